//! A store with faults, and the way to it, on a clock that is the test's own.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::local::Memory;
use super::{Answer, Answering, Away, Exchange, Store};

const LATE: Duration = Duration::from_millis(250);
/// When a run is over, in seconds.
pub(super) const UNTIL: f64 = 420.0;

/// What goes wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A gate dies, and comes back under its name, knowing nothing but what its disk has.
    Kill,
    /// A gate is told to stop, and starts again.
    Restart,
    /// Nobody reaches the store for a while, and they find it again one by one.
    Outage,
    /// One does not.
    Cut,
    /// The store forgets all.
    Flush,
    /// Another server takes its place, and has an older memory.
    Failover,
    /// Messages and answers are late, lost or come twice.
    Network,
    /// The store's clock is set forth or back.
    Clock,
}

/// Nothing, and each fault by itself.
pub(super) const SINGLE: [&[Fault]; 9] = [
    &[],
    &[Fault::Kill],
    &[Fault::Restart],
    &[Fault::Outage],
    &[Fault::Cut],
    &[Fault::Flush],
    &[Fault::Failover],
    &[Fault::Network],
    &[Fault::Clock],
];

#[derive(Debug)]
pub(super) struct World {
    pub(super) began: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    memory: Memory,
    /// What a replica of the store has: up to a second less.
    older: Memory,
    kept_at: f64,
    run: u64,
    rng: Rng,
    off: i64,
    away: Vec<(usize, f64, f64)>,
    is_bad: bool,
}

/// What is to come of a run's faults.
#[derive(Debug)]
pub(super) struct Fate {
    pub(super) victim: usize,
    events: Vec<(f64, Fault)>,
}

/// The way from one gate to the store.
#[derive(Debug)]
pub(super) struct Way {
    world: Arc<World>,
    gate: usize,
}

/// What a run came to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) limit: usize,
    pub(super) gates: usize,
    /// The most of any window.
    pub(super) worst: usize,
    /// Where more was asked for than there is.
    pub(super) used: Option<f64>,
}

// === impl World ===

impl World {
    pub(super) fn new(seed: u64, faults: &[Fault], gates: usize, rng: &mut Rng) -> (Arc<Self>, Fate) {
        let has = |fault| faults.contains(&fault);
        let at = |rng: &mut Rng, from: f64, to: f64| from + rng.f64() * (to - from);
        let (fault_at, victim) = (at(rng, 80.0, 200.0), rng.usize(..gates));
        let lasts = [0.5, 5.0, 20.0, 70.0, 150.0][rng.usize(..5)];
        let mut away = Vec::new();
        if has(Fault::Outage) {
            away.extend((0..gates).map(|gate| (gate, fault_at, fault_at + lasts + at(rng, 0.0, 3.0))));
        }
        if has(Fault::Cut) {
            away.push((victim, fault_at, fault_at + lasts));
        }
        let mut events = Vec::new();
        for fault in faults {
            match fault {
                Fault::Outage | Fault::Cut | Fault::Network => {}
                Fault::Failover => events.push((fault_at, *fault)),
                Fault::Clock | Fault::Kill | Fault::Restart | Fault::Flush => {
                    events.push((at(rng, 80.0, 300.0), *fault));
                }
            }
        }
        let state = State {
            memory: Memory::default(),
            older: Memory::default(),
            kept_at: 0.0,
            run: 0,
            rng: Rng::with_seed(seed ^ 0x5eed),
            off: 0,
            away,
            is_bad: has(Fault::Network),
        };
        (Arc::new(Self { began: Instant::now(), state: Mutex::new(state) }), Fate { victim, events })
    }

    pub(super) fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// What goes wrong at this time. Says which gates' faults are the caller's to bring about.
    pub(super) fn strike(&self, fate: &mut Fate, rng: &mut Rng) -> Vec<Fault> {
        let (now, state) = (self.now(), &mut *self.state.lock());
        if now > state.kept_at + 1.0 {
            (state.older, state.kept_at) = (state.memory.clone(), now);
        }
        let mut gates = Vec::new();
        for (_, fault) in fate.events.extract_if(.., |(when, _)| *when <= now) {
            match fault {
                Fault::Flush => state.memory = Memory::default(),
                Fault::Failover => {
                    state.memory = state.older.clone();
                    state.run += 1;
                }
                Fault::Clock => state.off += if rng.bool() { 10_000 } else { -10_000 },
                Fault::Kill | Fault::Restart => gates.push(fault),
                Fault::Outage | Fault::Cut | Fault::Network => {}
            }
        }
        gates
    }

    fn step(&self, exchange: &Exchange) -> Answer {
        let mut state = self.state.lock();
        let now = (2_000_000_000 + (self.now() * 1000.0) as i64 + state.off) as u64;
        let run = format!("{:08}", state.run);
        state.memory.step(exchange, now, &run)
    }
}

// === impl Way ===

impl Way {
    pub(super) fn new(world: &Arc<World>, gate: usize) -> Arc<Self> {
        Arc::new(Self { world: world.clone(), gate })
    }
}

impl Store for Way {
    fn exchange(&self, exchange: Exchange) -> Answering {
        let (world, gate) = (self.world.clone(), self.gate);
        Box::pin(async move {
            let began = Instant::now();
            let (there, back, is_lost, is_twice) = {
                let state = &mut *world.state.lock();
                let now = world.began.elapsed().as_secs_f64();
                let is_away = state.away.iter().any(|(who, from, to)| *who == gate && *from <= now && now < *to);
                let rng = &mut state.rng;
                let mut way = || Duration::from_micros(rng.u64(100..2500));
                let (mut there, mut back) = (way(), way());
                let (mut is_lost, mut is_twice) = (is_away, false);
                if state.is_bad {
                    let mut some = |part: f64| rng.f64() < part;
                    (is_lost, is_twice) = (is_lost || some(0.02), some(0.05));
                    let (slow, slower) = (some(0.05), some(0.05));
                    let mut late = || Duration::from_millis(rng.u64(50..3000));
                    there += if slow { late() } else { Duration::ZERO };
                    back += if slower { late() } else { Duration::ZERO };
                }
                (there, back, is_lost, is_twice)
            };
            if is_lost {
                sleep(LATE).await;
                return Err(Away("lost".into()));
            }
            // It arrives also where nobody waits for the answer any more.
            let stepped = tokio::spawn(async move {
                sleep(there).await;
                let answer = world.step(&exchange);
                if is_twice {
                    world.step(&exchange);
                }
                answer
            });
            let answer = tokio::time::timeout(LATE, async {
                let answer = stepped.await.unwrap();
                sleep(back).await;
                answer
            });
            let answer = answer.await.map_err(|_| Away("late".into()));
            assert!(began.elapsed() <= LATE + Duration::from_millis(1));
            answer
        })
    }
}

// === runs ===

/// How many runs of each kind are asked for.
fn asked() -> Option<u64> {
    std::env::var("TOLLGATE_FAULT_RUNS").ok()?.parse().ok()
}

/// So many of each kind where nobody asks for more, and of small sizes, for a test is to be short.
const RUNS: u64 = 1;

/// So many gates.
pub(super) fn gates(rng: &mut Rng) -> usize {
    if asked().is_some() { rng.usize(1..=10) } else { rng.usize(2..=4) }
}

/// One of these sizes, smallest first.
pub(super) fn size(rng: &mut Rng, sizes: &[usize]) -> usize {
    let most = if asked().is_some() { sizes.len() } else { sizes.len().min(2) };
    sizes[rng.usize(..most)]
}

/// Runs of each kind of faults; those that were over, of how many.
pub(super) fn all_runs<F>(kinds: &[&[Fault]], run: impl Fn(u64, Vec<Fault>) -> F) -> Vec<(String, usize, u64)>
where
    F: Future<Output = Outcome>,
{
    let mut over = Vec::new();
    let runs = asked().unwrap_or(RUNS);
    for (kind, faults) in kinds.iter().enumerate() {
        let mut outcomes = Vec::new();
        for seed in (0..runs).map(|n| n + 1_000_000 * kind as u64) {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
            outcomes.push((seed, runtime.block_on(async { run(seed, faults.to_vec()).await })));
        }
        let mut used: Vec<f64> = outcomes.iter().filter_map(|(_, outcome)| outcome.used).collect();
        used.sort_by(f64::total_cmp);
        let bad: Vec<_> = outcomes.iter().filter(|(_, outcome)| outcome.worst > outcome.limit).collect();
        let (least, median) = (used.first().copied().unwrap_or(1.0), used.get(used.len() / 2).copied().unwrap_or(1.0));
        let most = outcomes.iter().map(|(_, outcome)| outcome.gates).max().unwrap_or(0);
        println!(
            "{faults:?}: {} runs of 1 to {most} gates, {} over {bad:?}; used where wanted: median {median:.3}, least {least:.3}",
            runs,
            bad.len()
        );
        over.push((format!("{faults:?}"), bad.len(), runs));
    }
    over
}
