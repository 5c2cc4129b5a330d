//! Thousands of random runs of several gates over the model of their store, each with a limit and a budget: event by event, with no
//! task, no timer and no socket. Whole gates, and fewer runs, are in `faults.rs` and `budget_faults.rs`.

mod fault;
mod run;

use self::fault::Fault;
use self::run::{Outcome, Run};

/// What goes wrong together, and whether the limit and the budget are to hold then: see `docs/replicas.md`.
const KINDS: [(&[Fault], bool, bool); 17] = [
    (&[], true, true),
    (&[Fault::Kill], true, true),
    (&[Fault::Restart], true, true),
    (&[Fault::Outage], true, true),
    (&[Fault::Cut], true, true),
    (&[Fault::Flush], true, true),
    (&[Fault::Failover], true, true),
    (&[Fault::Network], true, true),
    (&[Fault::Clock], true, true),
    (&[Fault::GateClock], true, true),
    (&[Fault::Kill, Fault::Outage], true, true),
    (&[Fault::Outage, Fault::Flush], true, true),
    (&[Fault::Network, Fault::Kill], true, true),
    (&[Fault::Network, Fault::Restart], false, true),
    // A newcomer's first word cannot tell how much time has passed.
    (&[Fault::Clock, Fault::Restart], false, true),
    (&[Fault::Clock, Fault::GateClock], true, true),
    (&[Fault::Kill, Fault::Flush], true, false),
];

/// So many runs by several threads, and what is wrong with any of them.
fn storm(runs: std::ops::Range<u64>) -> (usize, Vec<(u64, Outcome)>, Vec<String>) {
    let threads = std::thread::available_parallelism().map_or(2, usize::from) as u64;
    let of = |thread: u64| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (mut steps, mut calm, mut wrong) = (0, Vec::new(), Vec::new());
        for seed in runs.clone().filter(|seed| seed / 64 % threads == thread) {
            let kind = (seed % KINDS.len() as u64) as usize;
            let (faults, holds_limit, holds_budget) = KINDS[kind];
            let outcome = runtime.block_on(async { Run::new(seed, faults).go().await });
            let is_over = holds_limit && outcome.limit.0 > outcome.limit.1;
            if is_over || holds_budget && outcome.budget.0 > outcome.budget.1 {
                wrong.push(format!("seed {seed}, {faults:?}: {outcome:?}"));
            }
            steps += outcome.steps;
            if faults.is_empty() {
                calm.push((seed, outcome));
            }
        }
        (steps, calm, wrong)
    };
    let parts: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|thread| scope.spawn(move || of(thread))).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (mut steps, mut calm, mut wrong) = (0, Vec::new(), Vec::new());
    for part in parts {
        steps += part.0;
        calm.extend(part.1);
        wrong.extend(part.2);
    }
    (steps, calm, wrong)
}

/// `TOLLGATE_STORM_RUNS` for more or fewer, `TOLLGATE_STORM_SEED` for others.
#[test]
fn ten_thousand_runs_of_random_faults_pass_no_limit_and_no_budget() {
    let by_default = if std::env::var_os("TOLLGATE_TEST_ALL").is_some() { 10_000 } else { 1000 };
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let (runs, first) =
        (number("TOLLGATE_STORM_RUNS").unwrap_or(by_default), number("TOLLGATE_STORM_SEED").unwrap_or(0));
    let began = std::time::Instant::now();
    let (steps, calm, wrong) = storm(first..first + runs);
    let mean = |part: fn(&Outcome) -> f64| calm.iter().map(|(_, it)| part(it)).sum::<f64>() / calm.len().max(1) as f64;
    println!(
        "{runs} runs, {steps} events in {:.1} s; where nothing fails {:.2} of the limit and {:.2} of the budget are used",
        began.elapsed().as_secs_f64(),
        mean(|it| it.used),
        mean(|it| it.spent)
    );
    assert!(wrong.is_empty(), "{} of {runs}: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    assert!(mean(|it| it.used) > 0.8 && mean(|it| it.spent) > 0.4);
}
