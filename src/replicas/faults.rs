//! Whole gates' limits over a store with faults, on a clock that is the test's own: whatever goes wrong, no window of upstream's
//! sees more than the limit.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tower::{Layer, ServiceExt};

use super::Session;
use super::world::{Fault, Outcome, SINGLE, UNTIL, Way, World, all_runs, gates, size};
use crate::catalogue::Limit;
use crate::layers::rate_limit::{OnStoreLoss, Quota, RateLimitLayer, Settings, Sharing};
use crate::layers::testing::{LLAMA, Vendor, call, ok};

const WINDOW: f64 = 60.0;

/// One gate: its limits, who speaks for it, and its calls.
struct Gate {
    limits: RateLimitLayer,
    session: tokio::task::JoinHandle<()>,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    calls: JoinSet<()>,
}

fn gate(world: &Arc<World>, number: usize, limit: u32) -> Gate {
    let quota = Quota { requests: Some(Limit::a_minute(limit)), ..Quota::default() };
    let models = [(LLAMA.to_owned(), quota)].into();
    let settings = Settings { max_wait: Duration::from_secs(10), models, ..Settings::default() };
    let sharing = Sharing::new(OnStoreLoss::Keep, Duration::from_secs(30));
    let limits = RateLimitLayer::shared(settings, sharing.clone());
    let store = Way::new(world, number);
    let session = Session::new(&format!("gate-{number}"), store, sharing, limits.clone());
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let session = tokio::spawn(session.run_until(async { drop(ended.await) }));
    Gate { limits, session, end: Some(end), calls: JoinSet::new() }
}

async fn run(seed: u64, faults: Vec<Fault>) -> Outcome {
    let mut rng = Rng::with_seed(seed);
    let limit = size(&mut rng, &[5, 20, 60, 150, 300]);
    let gates = gates(&mut rng);
    let (world, mut fate) = World::new(seed, &faults, gates, &mut rng);
    let (began, victim) = (world.began, fate.victim);
    let upstream = Arc::new(Mutex::new(Vec::new()));
    let mut all: Vec<_> = (0..gates).map(|number| gate(&world, number, limit as u32)).collect();
    let mut weights: Vec<f64> = (1..=gates).map(|n| 1.0 / n as f64).collect();
    rng.shuffle(&mut weights);
    let rate = limit as f64 / WINDOW * [0.6, 1.5, 4.0][rng.usize(..3)];
    let mut now = 0.0;
    while now < UNTIL {
        now += -(1.0 - rng.f64()).ln() / rate;
        sleep_until(began + Duration::from_secs_f64(now)).await;
        for fault in world.strike(&mut fate, &mut rng) {
            all[victim].calls.abort_all();
            if fault == Fault::Kill {
                all[victim].session.abort();
            } else {
                drop(all[victim].end.take());
                let _ = (&mut all[victim].session).await;
            }
            all[victim] = gate(&world, victim, limit as u32);
        }
        if rng.f64() < 0.002 {
            rng.shuffle(&mut weights);
        }
        let mut pick = rng.f64() * weights.iter().sum::<f64>();
        let chosen = weights.iter().position(|weight| {
            pick -= weight;
            pick < 0.0
        });
        let gate = &mut all[chosen.unwrap_or(0)];
        let (seen, jitter) = (upstream.clone(), rng.f64() * 0.59);
        let vendor = Vendor(move |_| {
            seen.lock().push(began.elapsed().as_secs_f64() + jitter);
            async { Ok(ok("{}")) }
        });
        let service = gate.limits.layer(vendor);
        gate.calls.spawn(async move { drop(service.oneshot(call(LLAMA, "{}")).await) });
        while gate.calls.try_join_next().is_some() {}
    }
    let mut seen = upstream.lock().clone();
    seen.sort_by(f64::total_cmp);
    let in_window = |n: usize| seen.partition_point(|at| *at < seen[n] + WINDOW) - n;
    let worst = (0..seen.len()).map(in_window).max().unwrap_or(0);
    let used = seen.iter().filter(|at| (120.0..360.0).contains(*at)).count() as f64 / (limit as f64 * 4.0);
    let is_wanted = rate > limit as f64 / WINDOW;
    Outcome { limit, gates, worst, used: is_wanted.then_some(used) }
}

#[test]
fn no_window_is_passed_whatever_single_thing_goes_wrong() {
    use Fault::{Clock, Flush, Kill, Network, Outage, Restart};
    let pairs: &[&[Fault]] = &[&[Kill, Outage], &[Kill, Flush], &[Outage, Flush], &[Network, Kill], &[Clock, Restart]];
    for (faults, over, runs) in all_runs(&[&SINGLE, pairs].concat(), run) {
        assert_eq!(over, 0, "{faults}: {over} of {runs} runs passed the limit");
    }
}

/// Nothing exact is to be had of these: see `docs/replicas.md`. That they end, and how often they pass the limit, is printed.
#[test]
fn two_faults_of_one_gate_at_once_are_told_of() {
    use Fault::{Cut, Flush, Kill};
    all_runs(&[&[Cut, Kill], &[Cut, Flush]], run);
}
