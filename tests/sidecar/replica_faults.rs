//! What fails while gates share a limit and a budget through a real Redis: the store, the way to it, and gates themselves. The vendor's
//! stand-in counts exactly.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;
use tollgate::simulator::{self, Running};

use crate::budgets::standing;
use crate::proxy::{Proxy, Way};
use crate::redis::Redis;
use crate::support::{LLAMA, Process, ask, client};

/// It has a budget and no limit; the other has a limit and no budget.
const BUDGETED: &str = "@cf/meta/llama-3.1-8b-instruct-fp8-fast";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Nothing,
    /// `kill -9` of the store; it comes back after a while with what its log of changes has.
    KilledWithLog(Duration),
    /// The same with nothing.
    KilledWithNothing(Duration),
    FlushAll,
    ScriptFlush,
    Pause(Duration),
    /// Nothing passes between the gates and the store, and nobody is told.
    Hole(Duration),
    /// The same for one gate of all.
    OneInAHole(Duration),
    /// The connections of one gate end, and it gets no others.
    OneCutOff(Duration),
    /// Each answer comes 100 ms late.
    Slow(Duration),
    /// One gate is killed and started again, so often.
    GateKilled(u32),
    /// Each gate in turn is told to stop, and started again.
    Rolling,
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
struct Scale {
    gates: usize,
    before: Duration,
    after: Duration,
    /// A minute.
    limit: u32,
    /// Of the limit.
    load: f64,
    budget: f64,
    budget_calls_per_second: f64,
}

struct Bench {
    scale: Scale,
    vendor: Running,
    redis: Redis,
    ways: Vec<Proxy>,
    gates: Vec<Process>,
    /// Where a load balancer would send calls.
    up: Arc<Mutex<Vec<Option<String>>>>,
    _places: Vec<tempfile::TempDir>,
}

#[derive(Clone, Debug, Default)]
struct Answers {
    passed: usize,
    refused: usize,
    /// 503 and lost connections.
    failed: usize,
    longest: Duration,
}

impl Bench {
    fn start(scale: Scale) -> Option<Self> {
        let redis = Redis::start()?;
        let mut settings = simulator::Settings::default();
        settings.latency = 0.0;
        let mut entry = tollgate::catalogue::Entry::default();
        entry.requests_per_minute = std::num::NonZeroU32::new(scale.limit);
        settings.models.insert(LLAMA.into(), entry.clone());
        entry.requests_per_minute = std::num::NonZeroU32::new(10_000_000);
        settings.models.insert(BUDGETED.into(), entry);
        let vendor = simulator::start(settings).unwrap();
        let limits = format!("{{{LLAMA:?} = {{requests = {}}}, {BUDGETED:?} = {{requests = 10000000}}}}", scale.limit);
        let budgets = format!(
            "[{{name = \"all\", limit = \"{} neurons\", window = \"day\", models = [{BUDGETED:?}]}}]",
            scale.budget
        );
        let (mut ways, mut gates, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..scale.gates {
            let (way, place) = (Proxy::before(redis.port), tempfile::tempdir().unwrap());
            let records = place.path().join("records.db");
            gates.push(Process::serve(
                &vendor.base_url(),
                &[
                    ("TOLLGATE_REPLICAS_STORE", &*format!("redis://127.0.0.1:{}", way.port)),
                    ("TOLLGATE_REPLICAS_NAME", &*format!("gate-{n}")),
                    ("TOLLGATE_LIMITS_MODELS", &*limits),
                    ("TOLLGATE_LIMITS_MAX_WAIT", "5s"),
                    ("TOLLGATE_BUDGETS", &*budgets),
                    ("TOLLGATE_RECORDS_PATH", records.to_str().unwrap()),
                    ("TOLLGATE_WORKERS", "1"),
                ],
            ));
            ways.push(way);
            places.push(place);
        }
        let up = gates.iter().map(|gate| Some(gate.listen.clone())).collect();
        Some(Self { scale, vendor, redis, ways, gates, up: Arc::new(Mutex::new(up)), _places: places })
    }

    async fn strike(&mut self, fault: Fault) {
        let set = |ways: &[Proxy], way| ways.iter().for_each(|proxy| proxy.set(way));
        match fault {
            Fault::Nothing => {}
            Fault::KilledWithLog(lasts) | Fault::KilledWithNothing(lasts) => {
                self.redis.kill();
                tokio::time::sleep(lasts).await;
                if matches!(fault, Fault::KilledWithNothing(_)) {
                    self.redis.forget();
                }
                self.redis.start_again();
            }
            Fault::FlushAll => drop(self.redis.ask(&["FLUSHALL"])),
            Fault::ScriptFlush => drop(self.redis.ask(&["SCRIPT", "FLUSH"])),
            Fault::Pause(lasts) => {
                self.redis.ask(&["CLIENT", "PAUSE", &lasts.as_millis().to_string(), "ALL"]);
                tokio::time::sleep(lasts).await;
            }
            Fault::Hole(lasts) => {
                set(&self.ways, Way::Stop);
                tokio::time::sleep(lasts).await;
                set(&self.ways, Way::Pass);
            }
            Fault::OneInAHole(lasts) | Fault::OneCutOff(lasts) => {
                let is_cut = matches!(fault, Fault::OneCutOff(_));
                set(&self.ways[..1], if is_cut { Way::Cut } else { Way::Stop });
                tokio::time::sleep(lasts).await;
                set(&self.ways[..1], Way::Pass);
            }
            Fault::Slow(lasts) => {
                set(&self.ways, Way::Delay(Duration::from_millis(100)));
                tokio::time::sleep(lasts).await;
                set(&self.ways, Way::Pass);
            }
            Fault::GateKilled(times) => {
                for n in 0..times as usize {
                    let gate = n % self.gates.len();
                    self.gates[gate].kill();
                    self.again(gate);
                    tokio::time::sleep(Duration::from_millis(100 + n as u64 * 7919 % 900)).await;
                }
            }
            Fault::Rolling => {
                for gate in 0..self.gates.len() {
                    self.up.lock()[gate] = None;
                    self.gates[gate].terminate();
                    self.gates[gate].child.wait().unwrap();
                    self.again(gate);
                    tokio::time::sleep(Duration::from_secs(2)).await;
                }
            }
        }
    }

    fn again(&mut self, gate: usize) {
        self.gates[gate].start_again();
        self.up.lock()[gate] = Some(self.gates[gate].listen.clone());
    }

    /// So many calls a second, one gate after the other, for so long.
    fn load(&self, model: &'static str, per_second: f64, lasts: Duration) -> tokio::task::JoinHandle<Answers> {
        let up = self.up.clone();
        tokio::spawn(async move {
            let (client, began, answers) = (client(), Instant::now(), Arc::new(Mutex::new(Answers::default())));
            let mut calls = JoinSet::new();
            for n in 0.. {
                let at = Duration::from_secs_f64(n as f64 / per_second);
                if at > lasts {
                    break;
                }
                tokio::time::sleep_until((began + at).into()).await;
                let url = {
                    let up = up.lock();
                    let up: Vec<_> = up.iter().flatten().collect();
                    format!("{}/run/{model}", up[n % up.len()])
                };
                let (client, answers) = (client.clone(), answers.clone());
                calls.spawn(async move {
                    let asked = Instant::now();
                    let body = json!({"prompt": format!("call {n}"), "max_tokens": 20});
                    let status = match ask(&client, &url, &body).send().await {
                        Ok(reply) => reply.status().as_u16(),
                        Err(_) => 0,
                    };
                    let mut answers = answers.lock();
                    match status {
                        200 => {
                            answers.passed += 1;
                            answers.longest = answers.longest.max(asked.elapsed());
                        }
                        402 | 429 => answers.refused += 1,
                        _ => answers.failed += 1,
                    }
                });
                while calls.try_join_next().is_some() {}
            }
            calls.join_all().await;
            Arc::try_unwrap(answers).unwrap().into_inner()
        })
    }

    /// On a busy machine no call may have had its turn before the fault, nor soon after it.
    async fn passes_yet(&self, model: &str) -> bool {
        for n in 0..60 {
            let url = format!("{}/run/{model}", self.gates[0].listen);
            let body = json!({"prompt": format!("late call {n}"), "max_tokens": 20});
            if ask(&client(), &url, &body).send().await.is_ok_and(|reply| reply.status().is_success()) {
                return true;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        false
    }

    /// Everything of a row: calls go on before, while and after it.
    async fn row(mut self, fault: Fault) -> Row {
        let scale = self.scale;
        let lasts = match fault {
            Fault::KilledWithLog(lasts)
            | Fault::KilledWithNothing(lasts)
            | Fault::Pause(lasts)
            | Fault::Hole(lasts)
            | Fault::OneInAHole(lasts)
            | Fault::OneCutOff(lasts)
            | Fault::Slow(lasts) => lasts,
            Fault::GateKilled(times) => Duration::from_secs(1) * times,
            Fault::Rolling => Duration::from_secs(4) * scale.gates as u32,
            Fault::Nothing | Fault::FlushAll | Fault::ScriptFlush => Duration::ZERO,
        };
        let all = scale.before + lasts + scale.after;
        let limited = self.load(LLAMA, f64::from(scale.limit) / 60.0 * scale.load, all);
        let budgeted = self.load(BUDGETED, scale.budget_calls_per_second, all);
        tokio::time::sleep(scale.before).await;
        self.strike(fault).await;
        let (mut limited, mut budgeted) = (limited.await.unwrap(), budgeted.await.unwrap());
        let (mut reserved, mut is_shared) = (0.0, true);
        for gate in &self.gates {
            is_shared &= is_back(&gate.admin).await;
        }
        for (model, answers) in [(LLAMA, &mut limited), (BUDGETED, &mut budgeted)] {
            if answers.passed == 0 {
                answers.passed += usize::from(self.passes_yet(model).await);
            }
        }
        let counts = self.vendor.counts();
        for gate in &self.gates {
            reserved += standing(&client(), &gate.admin, "all").await["reserved_neurons"].as_f64().unwrap();
        }
        let spent = counts.models.get(BUDGETED).map_or(0.0, |model| model.neurons.as_f64());
        Row { fault, limited, budgeted, over: counts.rate_limited, spent, budget: scale.budget, reserved, is_shared }
    }
}

/// On a busy machine a gate finds its store again later than on others.
async fn is_back(admin: &str) -> bool {
    for _ in 0..600 {
        let ready = client().get(format!("{admin}/readyz")).send().await.unwrap().text().await.unwrap();
        if ready.contains("shared through the store") {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

#[derive(Debug)]
struct Row {
    fault: Fault,
    limited: Answers,
    budgeted: Answers,
    /// 429s upstream.
    over: u64,
    spent: f64,
    budget: f64,
    reserved: f64,
    is_shared: bool,
}

impl Row {
    fn holds(&self) {
        assert_eq!(self.over, 0, "429s upstream: {self:?}");
        assert!(self.spent <= self.budget, "overspent: {self:?}");
        assert!(self.limited.passed > 0 && self.budgeted.passed > 0, "{self:?}");
        assert!(self.is_shared, "not back: {self:?}");
        assert!(self.reserved.abs() < 1e-9, "left reserved: {self:?}");
    }
}

/// All rows at once, each with a store and gates of its own.
async fn rows(faults: &[Fault], scale: Scale) -> Option<Vec<Row>> {
    let mut running = JoinSet::new();
    for (n, fault) in faults.iter().copied().enumerate() {
        let bench = Bench::start(scale)?;
        running.spawn(async move { (n, bench.row(fault).await) });
    }
    let mut rows = running.join_all().await;
    rows.sort_by_key(|(n, _)| *n);
    Some(rows.into_iter().map(|(_, row)| row).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_single_thing_fails_no_limit_and_no_budget_is_passed() {
    let second = Duration::from_secs(1);
    let faults = [
        Fault::KilledWithLog(second),
        Fault::KilledWithNothing(second),
        Fault::FlushAll,
        Fault::ScriptFlush,
        Fault::Pause(second),
        Fault::Hole(second),
        Fault::OneCutOff(second),
        Fault::GateKilled(2),
    ];
    // Without the gates' care the second half of the limit would be granted twice, and so would what is left of the budget.
    let scale = Scale {
        gates: 2,
        before: 2 * second,
        after: 3 * second,
        limit: 60,
        load: 15.0,
        budget: 20.0,
        budget_calls_per_second: 12.0,
    };
    let Some(rows) = rows(&faults, scale).await else { return };
    for row in &rows {
        println!("{row:?}");
    }
    rows.iter().for_each(Row::holds);
}

/// The table in `docs/replicas.md`. Takes ten minutes, so it is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_costs_what_the_table_says() {
    if std::env::var_os("TOLLGATE_REPLICA_FAULTS").is_none() {
        return;
    }
    let seconds = Duration::from_secs;
    let faults = [
        Fault::Nothing,
        Fault::KilledWithLog(seconds(3)),
        Fault::KilledWithNothing(seconds(3)),
        Fault::FlushAll,
        Fault::ScriptFlush,
        Fault::Pause(seconds(5)),
        Fault::Slow(seconds(20)),
        Fault::Hole(seconds(20)),
        Fault::Hole(seconds(180)),
        Fault::OneInAHole(seconds(20)),
        Fault::OneInAHole(seconds(180)),
        Fault::GateKilled(50),
        Fault::Rolling,
    ];
    let scale = Scale {
        gates: 3,
        before: seconds(75),
        after: seconds(130),
        limit: 300,
        load: 0.6,
        budget: 60.0,
        budget_calls_per_second: 1.0,
    };
    let Some(rows) = rows(&faults, scale).await else { return };
    println!(
        "| what | 429s upstream | limited calls: passed, refused, failed, longest | budget used | passed, refused, failed | left reserved |"
    );
    for row in &rows {
        let Answers { passed, refused, failed, longest } = &row.limited;
        let Answers { passed: spent, refused: full, failed: shut, .. } = &row.budgeted;
        let used = row.spent / row.budget;
        println!(
            "| {:?} | {} | {passed}, {refused}, {failed}, {:.1} s | {used:.3} | {spent}, {full}, {shut} | {} |",
            row.fault,
            row.over,
            longest.as_secs_f64(),
            row.reserved
        );
    }
    rows.iter().for_each(Row::holds);
}
