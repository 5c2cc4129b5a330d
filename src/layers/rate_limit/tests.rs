//! What must hold, on the paused clock, against an upstream that enforces a sliding window of its own.

mod fair;
mod told;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt;

use http::StatusCode;

use super::*;
use crate::catalogue::Limit;
use crate::catalogue::{Catalogue, Model, Task};
use crate::layers::testing::{LLAMA, Sealed, Vendor, call_on, ok, refusal};
use crate::receipt::Readers;

static MODEL: LazyLock<Arc<Model>> = LazyLock::new(|| Catalogue::default().find(LLAMA, Task::Unknown));

fn call() -> Call {
    call_read_by(Arc::new([]))
}

fn call_read_by(readers: Readers) -> Call {
    call_on(readers, MODEL.clone(), "{}")
}

const MINUTE: Duration = Duration::from_secs(60);

/// A vendor with an exact sliding window. Calls take a while to reach it, some longer than others.
#[derive(Clone)]
struct Upstream {
    seen: Arc<Mutex<VecDeque<Instant>>>,
    accepted: Arc<Mutex<Vec<Instant>>>,
    refused: Arc<AtomicUsize>,
    limit: usize,
}

impl Upstream {
    fn new(limit: usize) -> Self {
        Self { seen: Arc::default(), accepted: Arc::default(), refused: Arc::default(), limit }
    }

    fn service(&self) -> Vendor<impl FnMut(Call) -> ReplyFuture + Clone + use<>> {
        let upstream = self.clone();
        Vendor(move |_: Call| {
            let upstream = upstream.clone();
            let way = Duration::from_millis(20 + fastrand::u64(0..400));
            Box::pin(async move {
                sleep(way).await;
                let passes = upstream.sees();
                sleep(Duration::from_millis(50)).await;
                Ok(if passes { ok("{}") } else { refusal(429, Some(3021)) })
            }) as ReplyFuture
        })
    }

    fn sees(&self) -> bool {
        let (now, mut seen) = (Instant::now(), self.seen.lock());
        while seen.front().is_some_and(|at| now - *at >= MINUTE) {
            seen.pop_front();
        }
        let passes = seen.len() < self.limit;
        if passes {
            seen.push_back(now);
            self.accepted.lock().push(now);
        } else {
            self.refused.fetch_add(1, Relaxed);
        }
        passes
    }
}

fn layer(requests: u32, change: impl FnOnce(&mut Settings)) -> RateLimitLayer {
    let mut settings = Settings::default();
    let quota = Quota { requests: Some(Limit::a_minute(requests)), tokens: None };
    settings.models.insert(LLAMA.into(), quota);
    change(&mut settings);
    RateLimitLayer::new(settings)
}

fn keyed(key: &str) -> Call {
    Call { key: Some(key.into()), ..call() }
}

async fn flood<S>(service: S, ask: impl Fn() -> Call, until: Instant) -> usize
where
    S: Service<Call, Response = Reply, Error = Error> + Clone,
{
    let mut answered = 0;
    while Instant::now() < until {
        let call = ask();
        match service.clone().oneshot(call).await {
            Ok(_) => answered += 1,
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
    answered
}

#[tokio::test(start_paused = true)]
async fn eight_flooding_clients_use_three_windows_and_see_no_429() {
    for limit in [20, 300, 720, 1500, 3000] {
        let upstream = Upstream::new(limit);
        let service = layer(limit as u32, |_| {}).layer(upstream.service());
        let start = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..8 {
            // Each of the clients has as many calls at once as it takes to flood.
            for _ in 0..(limit / 40).max(1) {
                clients.spawn(flood(service.clone(), call, start + 3 * MINUTE));
            }
        }
        clients.join_all().await;
        let accepted = upstream.accepted.lock().clone();
        let used = |window: u32| {
            let (from, to) = (start + window * MINUTE, start + (window + 1) * MINUTE);
            accepted.iter().filter(|at| (from..to).contains(at)).count() as f64 / limit as f64
        };
        let (refused, used) = (upstream.refused.load(Relaxed), [0, 1, 2].map(used));
        println!("{limit} a minute: {refused} refused upstream, used {used:.3?}");
        assert_eq!(refused, 0, "{limit}");
        assert!(used.iter().all(|used| *used >= 0.97), "{limit}: {used:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn half_the_limit_passes_at_once_after_idle_time() {
    for limit in [20, 300, 720, 1500, 3000] {
        let layer = layer(limit, |_| {});
        for _ in 0..2 {
            let burst = (0..limit).take_while(|_| layer.try_take(&call())).count();
            assert!(burst >= limit as usize / 2, "{limit}: {burst}");
            sleep(3 * MINUTE).await;
        }
    }
}

const POLITE: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

struct Asked {
    waits: Vec<Duration>,
    refused: usize,
}

/// Ten callers ask together for half the limit, evenly or in step.
async fn ask_politely<S>(service: S, ask: fn(&str) -> Call, in_step: bool, until: Instant) -> Asked
where
    S: Service<Call, Response = Reply, Error = Error, Future: Send> + Clone + Send + 'static,
{
    let mut calls = JoinSet::new();
    let mut turn = 0;
    while Instant::now() < until {
        let asking = if in_step { POLITE.len() } else { 1 };
        for _ in 0..asking {
            let (service, call) = (service.clone(), ask(POLITE[turn % POLITE.len()]));
            turn += 1;
            calls.spawn(async move {
                let receipt = call.receipt.clone();
                let reply = service.oneshot(call).await;
                (receipt.read(|facts| facts.waited), reply.is_err())
            });
        }
        sleep(Duration::from_millis(400) * asking as u32).await;
    }
    let done = calls.join_all().await;
    let mut waits: Vec<_> = done.iter().map(|(wait, _)| *wait).collect();
    waits.sort();
    Asked { waits, refused: done.iter().filter(|(_, refused)| *refused).count() }
}

#[tokio::test(start_paused = true)]
async fn one_call_does_not_wait_behind_anothers_thousand() {
    let service = layer(300, |settings| settings.max_wait = MINUTE * 10).layer(Vendor(|_| async { Ok(ok("{}")) }));
    let mut flooding = JoinSet::new();
    for _ in 0..1000 {
        flooding.spawn(service.clone().oneshot(keyed("flood")));
    }
    sleep(Duration::from_secs(5)).await;
    let asked = Instant::now();
    service.oneshot(keyed("one")).await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn within_a_key_the_first_come_is_first_served() {
    let service = layer(60, |settings| settings.max_wait = MINUTE).layer(Vendor(|_| async { Ok(ok("{}")) }));
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut calls = JoinSet::new();
    for n in 0..50 {
        let (service, order) = (service.clone(), order.clone());
        calls.spawn(async move {
            service.oneshot(keyed("a")).await.unwrap();
            order.lock().push(n);
        });
        tokio::task::yield_now().await;
    }
    calls.join_all().await;
    assert!(order.lock().is_sorted(), "{:?}", order.lock());
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_clients_who_vanish_leave_nothing_behind() {
    let layer = layer(300, |settings| settings.max_queue = 20_000);
    let service = layer.layer(Vendor(|_| async { Ok(ok("{}")) }));
    let mut clients = JoinSet::new();
    for n in 0..10_000 {
        let (service, patience) = (service.clone(), Duration::from_millis(1 + n % 3000));
        clients.spawn(async move { timeout(patience, service.oneshot(keyed("crowd"))).await.is_ok_and(|r| r.is_ok()) });
    }
    let mut served = 0;
    while let Some(answered) = clients.join_next().await {
        served += usize::from(answered.unwrap());
    }
    let standing = layer.snapshot()[0];
    assert_eq!(standing.waiting, 0);
    assert_eq!(standing.remaining as usize, 300 - served, "no permit was wasted on those who had gone");
    sleep(3 * MINUTE).await;
    layer.snapshot();
    assert!(layer.is_empty(), "nothing is remembered");
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_nobody_takes_goes_to_the_next() {
    let layer = layer(2, |settings| settings.max_wait = 2 * MINUTE);
    let service = layer.layer(Vendor(|_| async { Ok(ok("{}")) }));
    service.clone().oneshot(keyed("a")).await.unwrap();
    let gone = tokio::spawn(service.clone().oneshot(keyed("a")));
    tokio::task::yield_now().await;
    let stays = tokio::spawn(service.clone().oneshot(keyed("a")));
    tokio::task::yield_now().await;
    gone.abort();
    let asked = Instant::now();
    stays.await.unwrap().unwrap();
    assert!(asked.elapsed() < MINUTE, "{:?}", asked.elapsed());
    assert_eq!(layer.snapshot()[0].remaining, 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_or_no_patience_is_a_429_that_says_when() {
    let refused = async |change: fn(&mut Settings)| {
        let service = layer(2, change).layer(Vendor(|_| async { Ok(ok("{}")) }));
        service.clone().oneshot(call()).await.unwrap();
        let mut waiting = tokio::spawn(service.clone().oneshot(call()));
        let _ = timeout(Duration::from_millis(1), &mut waiting).await;
        service.oneshot(call()).await.unwrap_err()
    };
    for change in [
        |settings: &mut Settings| settings.max_wait = Duration::ZERO,
        |settings: &mut Settings| settings.max_wait = Duration::from_secs(1),
        |settings: &mut Settings| (settings.max_queue, settings.max_wait) = (1, MINUTE),
    ] {
        let error = refused(change).await;
        let reply = error.response(crate::endpoint::ErrorForm::Cloudflare);
        let header = |name: &str| reply.headers()[name].to_str().unwrap().to_owned();
        assert_eq!((reply.status(), header("x-should-retry")), (StatusCode::TOO_MANY_REQUESTS, "true".into()));
        assert!((1..=62).contains(&header("retry-after").parse::<u64>().unwrap()), "{error}");
        assert_eq!(header("ratelimit-policy"), "\"model\";q=2;w=60");
        assert!(header("ratelimit").starts_with("\"model\";r=1;t="), "{}", header("ratelimit"));
        assert!(error.to_string().contains(LLAMA), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_queue_is_full_the_one_who_floods_makes_room() {
    let settings = |settings: &mut Settings| (settings.max_queue, settings.max_wait) = (100, MINUTE);
    let service = layer(60, settings).layer(Vendor(|_| async { Ok(ok("{}")) }));
    let mut flooding = JoinSet::new();
    for _ in 0..200 {
        flooding.spawn(service.clone().oneshot(keyed("flood")));
    }
    tokio::task::yield_now().await;
    sleep(Duration::from_millis(10)).await;
    let mut others = JoinSet::new();
    for key in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
        others.spawn(service.clone().oneshot(keyed(key)));
    }
    assert!(others.join_all().await.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn it_learns_from_a_429_and_obeys_retry_after() {
    let answer = Arc::new(Mutex::new((Some(3021), None)));
    let asked = answer.clone();
    let vendor = Vendor(move |_| {
        let (code, after) = *asked.lock();
        let mut reply = refusal(429, code);
        if let Some(after) = after {
            reply.headers_mut().insert("retry-after", http::HeaderValue::from_static(after));
        }
        async { Ok(reply) }
    });
    let layer = layer(300, |_| {});
    let service = layer.layer(vendor);
    let ask = async || service.clone().oneshot(call()).await;
    for (code, learns) in [(Some(3040), false), (Some(3036), false), (Some(4006), false), (Some(3021), true)] {
        *answer.lock() = (code, None);
        ask().await.unwrap();
        assert_eq!(layer.snapshot()[0].pace < 1.0, learns, "{code:?}");
    }
    let pace = layer.snapshot()[0].pace;
    assert!((0.69..0.71).contains(&pace), "{pace}");
    sleep(2 * MINUTE).await;
    assert!((0.79..0.81).contains(&layer.snapshot()[0].pace), "additive increase");
    *answer.lock() = (None, Some("5"));
    ask().await.unwrap();
    let held = Instant::now();
    ask().await.unwrap();
    assert!(held.elapsed() >= Duration::from_secs(5), "the whole model waits: {:?}", held.elapsed());
    *answer.lock() = (None, Some("60"));
    ask().await.unwrap();
    let error = ask().await.unwrap_err();
    assert!(error.retry_after().is_some_and(|after| after > Duration::from_secs(50)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn others_on_the_account_are_made_room_for() {
    // Upstream has room for 150 of our 300: we find the pace within a few windows, at the cost of few refusals.
    let upstream = Upstream::new(150);
    let service = layer(300, |_| {}).layer(upstream.service());
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..40 {
        clients.spawn(flood(service.clone(), call, start + 10 * MINUTE));
    }
    clients.join_all().await;
    let accepted = upstream.accepted.lock().len();
    let refused = upstream.refused.load(Relaxed);
    println!("{accepted} accepted of {}, {refused} refused", 150 * 10);
    assert!(accepted as f64 >= 0.75 * 1500.0 && (refused as f64) < 0.2 * accepted as f64, "{accepted}, {refused}");
}

#[tokio::test(start_paused = true)]
async fn a_key_is_held_to_its_own_limit_and_holds_up_no_other() {
    let layer = layer(300, |settings| {
        settings.keys.insert("small".into(), Quota { requests: Some(Limit::a_minute(4)), tokens: None });
        settings.max_wait = Duration::ZERO;
    });
    let passed = |key: &str, asks: usize| (0..asks).filter(|_| layer.try_take(&keyed(key))).count();
    assert_eq!(passed("small", 10), 2);
    assert_eq!(passed("other", 100), 100);
    let mut in_a_minute = 2;
    for _ in 0..59 {
        sleep(Duration::from_secs(1)).await;
        in_a_minute += passed("small", 1);
    }
    assert_eq!(in_a_minute, 4);
}

#[tokio::test(start_paused = true)]
async fn tokens_are_taken_by_estimate_and_put_right() {
    let tokens = Limit { requests: std::num::NonZeroU32::new(1000).unwrap(), per: MINUTE };
    let layer = layer(300, |settings| {
        settings.models.get_mut(LLAMA).unwrap().tokens = Some(tokens);
        settings.max_wait = Duration::ZERO;
    });
    let sealed = Sealed::default();
    let vendor = Vendor(|call: Call| async move {
        call.receipt.note(|facts| {
            (facts.usage.input_tokens, facts.usage.output_tokens) = (10, 10);
            facts.cost.source = Source::Reported;
        });
        Ok(ok("{}"))
    });
    let service = layer.layer(vendor);
    // Each call is thought to write 256 tokens, so two fill what goes at once; each used 20.
    let mut passed = 0;
    for _ in 0..20 {
        passed += usize::from(service.clone().oneshot(call_read_by(sealed.readers())).await.is_ok());
    }
    assert!(passed > 10, "only {passed} passed: what was not used was not given back");
    sleep(3 * MINUTE).await;
    let refused = layer.layer(Vendor(|_| async { Ok(refusal(500, None)) }));
    for _ in 0..20 {
        refused.clone().oneshot(call()).await.unwrap();
    }
    let kept: Vec<_> = (0..10).map(|_| call()).collect();
    assert!(kept.iter().filter(|call| layer.try_take(call)).count() <= 3, "tokens in flight count");
}

#[tokio::test(start_paused = true)]
async fn idle_state_goes_away_without_anyone_asking_for_it() {
    let layer = RateLimitLayer::default();
    for n in 0..5000 {
        layer.try_take(&Call { account: format!("account-{n}").into(), ..call() });
    }
    assert!(layer.len() >= 5000);
    sleep(3 * MINUTE).await;
    for _ in 0..50_000 {
        layer.try_take(&call());
    }
    assert!(layer.len() < 50, "{} are left", layer.len());
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_on_the_receipt() {
    let sealed = Sealed::default();
    let service = layer(2, |settings| settings.max_wait = MINUTE).layer(Vendor(|_| async { Ok(ok("{}")) }));
    for _ in 0..2 {
        service.clone().oneshot(call_read_by(sealed.readers())).await.unwrap();
    }
    let waits: Vec<_> = sealed.0.lock().iter().map(|facts| facts.waited).collect();
    assert_eq!(waits[0], Duration::ZERO);
    assert!(waits[1] > Duration::from_secs(10), "{waits:?}");
}

#[test]
fn waiters_on_different_runtimes_wake_each_other() {
    let mut settings = Settings::default();
    let limit = Limit { requests: std::num::NonZeroU32::new(20).unwrap(), per: Duration::from_secs(1) };
    settings.models.insert(LLAMA.into(), Quota { requests: Some(limit), tokens: None });
    let layer = RateLimitLayer::new(settings);
    let threads = (0..4).map(|_| {
        let service = layer.layer(Vendor(|_| async { Ok(ok("{}")) }));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let calls = (0..8).map(|_| tokio::spawn(service.clone().oneshot(call())));
                for call in calls.collect::<Vec<_>>() {
                    call.await.unwrap().unwrap();
                }
            });
        })
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn accounts_that_the_config_does_not_name_share_one_limit() {
    let layer = layer(2, |_| {});
    let take = |account: String, is_unlisted| layer.try_take(&Call { account: account.into(), is_unlisted, ..call() });
    let taken = (0..1000).filter(|n| take(format!("junk-{n}"), true)).count();
    assert!(taken <= 2, "{taken} of a limit of 2");
    assert_eq!(layer.len(), 1);
    assert!(take("listed".into(), false));
}
