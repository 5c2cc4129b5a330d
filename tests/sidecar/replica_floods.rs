//! Three and ten gates that are flooded with more than a limit or a budget has room for, through a real Redis. The small ones run by
//! themselves; those of `docs/replicas.md` take minutes and are asked for.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;
use tollgate::layers::budget::{Period, Rule, Split};
use tollgate::neurons::Neurons;
use tollgate::sidecar::Sidecar;
use tollgate::sidecar::config::Config;
use tollgate::simulator::{self, Running};

use crate::budgets::standing;
use crate::redis::Redis;
use crate::support::{LLAMA, Process, ask, client, config, start};

/// A stand-in with this limit a minute, which it enforces as the vendor does.
fn vendor(limit: u32) -> Running {
    let mut settings = simulator::Settings::default();
    settings.latency = 0.0;
    let mut entry = tollgate::catalogue::Entry::default();
    entry.requests_per_minute = NonZeroU32::new(limit);
    settings.models.insert(LLAMA.into(), entry);
    simulator::start(settings).unwrap()
}

fn gate(vendor: &Running, redis: &Redis, name: &str, limit: u32, rules: Vec<Rule>) -> Sidecar {
    let mut config = config(&vendor.base_url());
    let text = format!(
        "[limits]\nmax_wait = \"10s\"\n[limits.models.{LLAMA:?}]\nrequests = {limit}\n\
         [replicas]\nstore = \"{}\"\nname = \"{name}\"\ntimeout = \"2s\"\n",
        redis.url()
    );
    let own = Config::parse(&text, "test").unwrap();
    (config.limits, config.replicas, config.budgets) = (own.limits, own.replicas, rules);
    config.workers = 1;
    config.reservations.max_wait = Duration::from_millis(500);
    config.reservations.max_waiting = 5_000;
    start(config).0
}

/// Clients for each second that they go on, at each of these gates.
/// When each passed that did.
async fn flood(gates: &[Sidecar], at_once: impl Fn(usize) -> usize, lasts: Duration) -> Vec<Duration> {
    let (began, passed, mut clients) = (Instant::now(), Arc::<Mutex<Vec<_>>>::default(), JoinSet::new());
    let until = began + lasts;
    for (n, gate) in gates.iter().enumerate() {
        let client = client();
        for _ in 0..at_once(n) {
            let (url, client, passed) =
                (format!("http://{}/run/{LLAMA}", gate.listen()), client.clone(), passed.clone());
            clients.spawn(async move {
                while Instant::now() < until {
                    let reply = ask(&client, &url, &json!({"prompt": "x", "max_tokens": 1})).send().await.unwrap();
                    match reply.status().as_u16() {
                        200 => passed.lock().push(began.elapsed()),
                        429 => tokio::time::sleep(Duration::from_millis(100)).await,
                        other => panic!("{other}: {}", reply.text().await.unwrap()),
                    }
                }
            });
        }
    }
    clients.join_all().await;
    std::mem::take(&mut *passed.lock())
}

/// What came of three windows, of which the last has the load at other gates.
struct Flooded {
    passed: [usize; 3],
    /// What passed in the first seconds of the second and of the third window: where the load has moved, it is as where it has not.
    seconds: [[usize; 3]; 2],
    /// 429s upstream.
    over: u64,
}

async fn windows(gates: usize, skew: usize, limit: u32, window: Duration) -> Option<Flooded> {
    let (vendor, redis) = (vendor(limit), Redis::start()?);
    let all: Vec<_> = (0..gates).map(|n| gate(&vendor, &redis, &format!("{n}"), limit, Vec::new())).collect();
    let each = (limit as usize / 150).clamp(2, 16);
    let heavy = |busy: usize| move |n: usize| if n == busy { each * skew } else { each };
    let (mut passed, mut seconds) = ([0; 3], [[0; 3]; 2]);
    for (n, passed) in passed.iter_mut().enumerate() {
        let times = flood(&all, heavy(if n == 2 { gates - 1 } else { 0 }), window).await;
        *passed = times.len();
        if let Some(seconds) = n.checked_sub(1).map(|n| &mut seconds[n]) {
            *seconds = [1, 2, 5].map(|first| times.iter().filter(|at| at.as_secs() < first).count());
        }
    }
    Some(Flooded { passed, seconds, over: vendor.counts().rate_limited })
}

/// `TOLLGATE_REPLICA_FLOODS=1`: three whole windows each of 3 and 10 gates, even and 10:1, at 20, 300 and 3,000 a minute; all at once, or
/// one: `TOLLGATE_REPLICA_FLOODS=3,1,3000`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gates_that_are_flooded_use_a_limit_to_the_full_and_pass_it_nowhere() {
    let asked = std::env::var("TOLLGATE_REPLICA_FLOODS").ok();
    let is_full = asked.is_some();
    let one = asked.filter(|asked| asked.contains(','));
    let (gates, limits, window): (&[_], &[_], _) = match is_full {
        true => (&[3, 10], &[20, 300, 3000], Duration::from_secs(60)),
        false => (&[10], &[300], Duration::from_secs(3)),
    };
    let mut runs = JoinSet::new();
    for (gates, limit) in gates.iter().flat_map(|gates| limits.iter().map(|limit| (*gates, *limit))) {
        for skew in if is_full { vec![1, 10] } else { vec![10] } {
            if one.as_ref().is_some_and(|one| *one != format!("{gates},{skew},{limit}")) {
                continue;
            }
            runs.spawn(async move { (gates, skew, limit, windows(gates, skew, limit, window).await) });
        }
    }
    let mut all = runs.join_all().await;
    all.sort_by_key(|(gates, skew, limit, _)| (*gates, *limit, *skew));
    for (gates, skew, limit, done) in all {
        let Some(Flooded { passed, seconds, over }) = done else { return };
        let used = passed.iter().sum::<usize>() as f64 / f64::from(3 * limit);
        println!("| {gates} | {skew}:1 | {limit} | {over} | {passed:?} | {used:.3} | {seconds:?} |");
        assert_eq!(over, 0, "{gates} gates, {skew}:1, {limit} a minute: {passed:?}");
        // Short windows leave the last one nothing that comes free.
        assert!(
            used > 0.0 && (!is_full || passed.iter().all(|passed| *passed > 0)),
            "{gates} gates, {skew}:1: {passed:?}"
        );
    }
}

/// `TOLLGATE_REPLICA_BUDGET=1`: 2,000 calls against a budget for 100 through ten gates, four of which are killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_is_spent_once_by_many_gates_of_which_some_are_killed() {
    let is_full = std::env::var_os("TOLLGATE_REPLICA_BUDGET").is_some();
    let (gates, calls, room, kills) = if is_full { (10, 2_000, 100, 4) } else { (3, 150, 20, 1) };
    let Some(redis) = Redis::start() else { return };
    let vendor = vendor(10_000_000);
    // 64 tokens at 18,252 micro-neurons, and what little the prompt costs.
    let limit = 1.2 * f64::from(room);
    let budget = format!("[{{name = \"all\", limit = \"{limit} neurons\", window = \"day\"}}]");
    let limits = format!("{{{LLAMA:?} = {{requests = 10000000}}}}");
    let places: Vec<_> = (0..gates).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut all: Vec<_> = places
        .iter()
        .enumerate()
        .map(|(n, place)| {
            Process::serve(
                &vendor.base_url(),
                &[
                    ("TOLLGATE_REPLICAS_STORE", &*redis.url()),
                    ("TOLLGATE_REPLICAS_NAME", &*format!("gate-{n}")),
                    ("TOLLGATE_REPLICAS_TIMEOUT", "2s"),
                    ("TOLLGATE_LIMITS_MODELS", &*limits),
                    ("TOLLGATE_BUDGETS", &*budget),
                    ("TOLLGATE_RESERVATIONS_MAX_WAIT", "5s"),
                    ("TOLLGATE_RECORDS_PATH", &*place.path().join("t.db").display().to_string()),
                    ("TOLLGATE_WORKERS", "1"),
                ],
            )
        })
        .collect();
    let up: Arc<Mutex<Vec<String>>> = Arc::new(Mutex::new(all.iter().map(|gate| gate.listen.clone()).collect()));
    let next = Arc::new(AtomicU64::new(0));
    let call = move |client: reqwest::Client, up: Arc<Mutex<Vec<String>>>, n: u64| async move {
        let url = {
            let up = up.lock();
            format!("{}/run/{LLAMA}", up[n as usize % up.len()])
        };
        let body = json!({"prompt": format!("tale {n}"), "max_tokens": 64, "stream": n.is_multiple_of(3)});
        let asked = async { ask(&client, &url, &body).send().await?.bytes().await };
        if n.is_multiple_of(13) {
            // Leaves, at one moment or another.
            let _ = tokio::time::timeout(Duration::from_micros(500 * (n % 40)), asked).await;
        } else {
            // Those of a gate that is killed end with it.
            let _ = asked.await;
        }
    };
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let (next, up, client) = (next.clone(), up.clone(), client());
            tokio::spawn(async move {
                while let Some(n) = Some(next.fetch_add(1, Ordering::SeqCst)).filter(|n| *n < calls) {
                    call(client.clone(), up.clone(), n).await;
                }
            })
        })
        .collect();
    for kill in 0..kills {
        while next.load(Ordering::SeqCst) < calls * (kill + 1) / (kills * 4) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let gate = kill as usize % all.len();
        all[gate].kill();
        all[gate].start_again();
        up.lock()[gate] = all[gate].listen.clone();
    }
    for client in clients {
        client.await.unwrap();
    }
    let mut spent = vendor.counts().neurons().as_f64();
    // What a gate has ahead, or had when it was killed, it gives back a little later.
    for n in 0..100 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        call(client(), up.clone(), calls + 14 + 13 * n).await;
        spent = vendor.counts().neurons().as_f64();
        // No other call fits.
        if spent > limit - 1.3 {
            break;
        }
    }
    println!("{gates} gates, {kills} killed, {calls} calls: {spent} of {limit} neurons");
    assert!(spent <= limit, "{spent} of {limit}");
    // What a gate that is killed had under way counts as spent, and of the small budget that is a larger part.
    let least = if is_full { 0.9 } else { 0.7 };
    assert!(spent >= least * limit, "{spent} of {limit}");
    for gate in &all {
        let client = client();
        let is_free = async || standing(&client, &gate.admin, "all").await["reserved_neurons"].as_f64() == Some(0.0);
        crate::support::until(is_free).await;
    }
}

/// Asked for by `TOLLGATE_REPLICA_BUCKETS=10000`. Each user is an account, so that the vendor counts them apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bucket_holds_over_many_gates_and_is_used_up() {
    let asked = std::env::var("TOLLGATE_REPLICA_BUCKETS").ok().and_then(|buckets| buckets.parse::<u64>().ok());
    let (Some(buckets), gates) = (asked, 10) else { return };
    let Some(redis) = Redis::start() else { return };
    let vendor = vendor(10_000_000);
    // A call may cost 1.56 neurons and costs up to 1.2.
    let limit = Neurons::from_whole(40);
    let rule = || {
        let mut rule = Rule::new("a user's", limit, Period::Month);
        rule.split_by = vec![Split::Metadata("user".into())];
        rule
    };
    let all: Vec<_> = (0..gates).map(|n| gate(&vendor, &redis, &format!("{n}"), 10_000_000, vec![rule()])).collect();
    // A store that was never used grants nothing for two seconds.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let urls: Arc<Vec<_>> = Arc::new(all.iter().map(|gate| format!("http://{}", gate.listen())).collect());
    let (next, calls) = (Arc::new(AtomicU64::new(0)), 60 * buckets);
    let mut clients = JoinSet::new();
    for _ in 0..20 {
        let (next, urls, client) = (next.clone(), urls.clone(), client());
        clients.spawn(async move {
            while let Some(n) = Some(next.fetch_add(1, Ordering::SeqCst)).filter(|n| *n < calls) {
                let (user, gate) = (n % buckets, (n / buckets) as usize % urls.len());
                let url = format!("{}/client/v4/accounts/user-{user}/ai/run/{LLAMA}", urls[gate]);
                let body = json!({"prompt": format!("tale {n}"), "max_tokens": 64});
                let reply = ask(&client, &url, &body).header("cf-aig-metadata", format!("{{\"user\":{user}}}"));
                let _ = reply.send().await.unwrap().bytes().await;
            }
        });
    }
    clients.join_all().await;
    let spent: Vec<_> = (0..buckets).map(|user| vendor.spent(&format!("user-{user}"))).collect();
    let (least, most) = (spent.iter().min().unwrap(), spent.iter().max().unwrap());
    println!("{gates} gates: of {limit} the vendor counts {least} to {most} in {buckets} buckets");
    assert!(*most <= limit, "{most} of {limit}");
    assert!(least.as_f64() >= 0.9 * limit.as_f64(), "{least} of {limit}");
    for gate in &all {
        let (client, admin) = (client(), format!("http://{}", gate.admin()));
        let is_free = async || standing(&client, &admin, "a user's").await["reserved_neurons"].as_f64() == Some(0.0);
        crate::support::until(is_free).await;
    }
}
