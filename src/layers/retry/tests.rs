//! The layer around a vendor that fails as it is told, on the paused clock.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use http::StatusCode;
use tower::ServiceExt;

use super::*;
use crate::call::{Backoff, Options};
use crate::catalogue::{Catalogue, Model, Task};
use crate::layers::meter::MeterLayer;
use crate::layers::testing::{LLAMA, Sealed, Vendor, call_on, ok, refusal};
use crate::receipt::Facts;

static MODEL: LazyLock<Arc<Model>> = LazyLock::new(|| Catalogue::default().find(LLAMA, Task::Unknown));

fn call() -> Call {
    call_on(Arc::new([]), MODEL.clone(), "{}")
}

fn with(options: Options) -> Call {
    Call { options: Arc::new(options), ..call() }
}

/// Answers with what a function says of each attempt, and counts them.
fn vendor(
    answer: impl Fn(usize) -> Result<Reply, Error> + Clone + Send + 'static,
) -> (Arc<AtomicUsize>, Vendor<impl FnMut(Call) -> ReplyFuture + Clone>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let vendor = Vendor(move |_| {
        let answer = answer(counted.fetch_add(1, Relaxed));
        Box::pin(async { answer }) as ReplyFuture
    });
    (count, vendor)
}

fn times_out() -> Error {
    Error::Timeout { after: Duration::from_secs(1), setting: "test", was_sent: true }
}

#[tokio::test(start_paused = true)]
async fn each_row_of_the_table_is_tried_as_often_as_it_says_and_handed_on_as_it_came() {
    let never = [
        (400, &[Some(5007), Some(5004), Some(5006), Some(3003), Some(3039), Some(3030), None][..], None),
        (401, &[Some(10000)], None),
        (402, &[None], None),
        (403, &[Some(5016), Some(5018), Some(3041), Some(3023), Some(5035)], None),
        (404, &[Some(3042), Some(7003), Some(7000)], None),
        (405, &[Some(5005), Some(5019)], None),
        (408, &[Some(3046)], Some("false")),
        (410, &[None], None),
        (413, &[Some(3006)], None),
        (422, &[Some(5012)], None),
        (429, &[Some(3036), Some(4006)], Some("false")),
    ];
    let retried = [
        (408, &[Some(3007), Some(3008), None][..], None),
        (429, &[Some(3021), Some(3040), Some(1234), None], None),
        (500, &[None], None),
        (502, &[None], None),
        (503, &[None], None),
        (524, &[None], None),
        (200, &[Some(3040), None], None),
    ];
    let rows = never.iter().map(|row| (row, 1)).chain(retried.iter().map(|row| (row, 4)));
    for ((status, codes, should_retry), tries) in rows {
        for code in *codes {
            let (status, code) = (*status, *code);
            let (count, vendor) = vendor(move |_| Ok(refusal(status, code)));
            let reply = RetryLayer::default().layer(vendor).oneshot(call()).await.unwrap();
            assert_eq!(count.load(Relaxed), tries, "{status} {code:?}");
            assert_eq!(reply.status().as_u16(), status);
            assert_eq!(reply.extensions().get::<VendorError>().unwrap().code, code);
            let told = reply.headers().get("x-should-retry").map(|value| value.to_str().unwrap());
            assert_eq!(told, *should_retry, "{status} {code:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_network_breaks_is_tried_again_and_what_we_refuse_is_not() {
    for (error, tries) in [
        (Error::Unreachable { host: "h".into(), why: "reset".into(), was_sent: true }, 4),
        (times_out(), 4),
        (Error::RateLimited { what: "w".into(), retry_after: Duration::ZERO, limit: None }, 1),
        (Error::Unavailable("stopping".into()), 1),
    ] {
        let failing = error.clone();
        let (count, vendor) = vendor(move |_| Err(failing.clone()));
        let seen = RetryLayer::default().layer(vendor).oneshot(call()).await.unwrap_err();
        assert_eq!((count.load(Relaxed), seen.code()), (tries, error.code()));
    }
}

#[tokio::test(start_paused = true)]
async fn the_receipt_tells_each_attempt_and_why_it_was_tried_again() {
    let sealed = Sealed::default();
    let (_, vendor) = vendor(|n| {
        let codes = [r#"{"errors":[{"code":3040}]}"#, r#"{"error":"3021: too many"}"#];
        let mut reply = ok(codes.get(n).copied().unwrap_or("{}"));
        if n < codes.len() {
            *reply.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        }
        Ok(reply)
    });
    let service = RetryLayer::default().layer(MeterLayer::default().layer(vendor));
    service.oneshot(call_on(sealed.readers(), MODEL.clone(), "{}")).await.unwrap();
    let receipts = sealed.0.lock();
    let attempts: Vec<_> =
        receipts[0].attempts.iter().map(|a| (a.status.unwrap().as_u16(), a.code, a.retried)).collect();
    let expected =
        [(429, Some(3040), Some("out_of_capacity")), (429, Some(3021), Some("rate_limited")), (200, None, None)];
    assert_eq!(attempts, expected);
}

#[tokio::test(start_paused = true)]
async fn a_callers_own_wishes_go_first() {
    let (count, vendor) = vendor(|_| Ok(refusal(500, None)));
    let service = RetryLayer::default().layer(vendor);
    let began = Instant::now();
    let options = Options {
        max_attempts: Some(3),
        retry_delay: Some(Duration::from_secs(40)),
        backoff: Some(Backoff::Constant),
        ..Options::default()
    };
    service.oneshot(with(options)).await.unwrap();
    assert_eq!(count.load(Relaxed), 3);
    assert_eq!(began.elapsed().as_secs(), 80);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_obeyed_unless_it_is_too_long() {
    for (after, tries, least) in [("7", 2, 7), ("3600", 1, 0)] {
        let (count, vendor) = vendor(move |n| {
            let mut reply = if n == 0 { refusal(429, Some(3040)) } else { ok("{}") };
            reply.headers_mut().insert("retry-after", HeaderValue::from_static(after));
            Ok(reply)
        });
        let began = Instant::now();
        RetryLayer::default().layer(vendor).oneshot(call()).await.unwrap();
        assert_eq!((count.load(Relaxed), began.elapsed().as_secs()), (tries, least));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_outlasts_the_clients_deadline() {
    let timeout = Duration::from_secs(3);
    let options = Options { request_timeout: Some(timeout), max_attempts: Some(10), ..Options::default() };
    let began = Instant::now();
    let hangs = Vendor(|_| Box::pin(std::future::pending()) as ReplyFuture);
    let error = RetryLayer::default().layer(hangs).oneshot(with(options.clone())).await.unwrap_err();
    assert_eq!((error.code(), began.elapsed().as_secs()), ("upstream_timeout", 3));
    assert!(error.to_string().contains("cf-aig-request-timeout"), "{error}");

    let began = Instant::now();
    let (_, fails) = vendor(|_| Ok(refusal(500, None)));
    let reply = RetryLayer::default().layer(fails).oneshot(with(options)).await.unwrap();
    assert!(reply.status() == 500 && began.elapsed() <= timeout, "{:?}", began.elapsed());
}

/// Seconds of the wall clock that the test below goes by.
static WALL: AtomicU64 = AtomicU64::new(0);

#[tokio::test(start_paused = true)]
async fn when_the_free_neurons_are_used_up_the_gate_says_so_until_midnight() {
    let wall = || SystemTime::UNIX_EPOCH + Duration::from_secs(WALL.load(Relaxed));
    let noon = 20_000 * 86_400 + 43_200;
    for code in [3036, 4006] {
        WALL.store(noon, Relaxed);
        let (count, vendor) = vendor(move |n| Ok(if n < 2 { refusal(429, Some(code)) } else { ok("{}") }));
        let service = RetryLayer::with_clock(Settings::default(), wall).layer(vendor);
        let ask = async || service.clone().oneshot(call()).await;
        let first = ask().await.unwrap();
        assert_eq!(first.headers()["retry-after"], "43200");
        WALL.store(noon + 60, Relaxed);
        let error = ask().await.unwrap_err();
        let reply = error.response(crate::endpoint::ErrorForm::Cloudflare);
        assert_eq!((reply.status().as_u16(), error.code()), (429, "free_neurons_used_up"));
        assert_eq!(
            (&reply.headers()["retry-after"], &reply.headers()["x-should-retry"]),
            (&"43140".parse().unwrap(), &"false".parse().unwrap())
        );
        assert!(service.clone().oneshot(Call { account: "other".into(), ..call() }).await.is_ok());
        assert_eq!(count.load(Relaxed), 2, "the held account asked nothing");
        WALL.store(noon + 301, Relaxed);
        assert!(ask().await.unwrap().status().is_success(), "the probe finds that the plan has changed");
        assert!(ask().await.is_ok());
    }
}

/// How 200 calls a second fare while upstream fails this share of attempts: attempts and answers a call.
async fn traffic(layer: &RetryLayer, attempts: u32, seconds: u64, failing: f64) -> (f64, f64) {
    let (count, vendor) =
        vendor(move |_| Ok(if fastrand::f64() < failing { refusal(429, Some(3040)) } else { ok("{}") }));
    let service = layer.layer(vendor);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..seconds * 200 {
        let options = Options { max_attempts: Some(attempts), ..Options::default() };
        calls.spawn(service.clone().oneshot(with(options)));
        sleep(Duration::from_millis(5)).await;
    }
    let (mut answered, all) = (0, calls.len() as f64);
    while let Some(reply) = calls.join_next().await {
        answered += usize::from(reply.unwrap().unwrap().extensions().get::<VendorError>().is_none());
    }
    (count.load(Relaxed) as f64 / all, answered as f64 / all)
}

#[tokio::test(start_paused = true)]
async fn half_the_attempts_failing_is_mended_for_good() {
    // Chance that is the same each time: 1.984 attempts a call is what to expect, and 2.0 not far away.
    fastrand::seed(1);
    for (tries, least) in [(4, 0.93), (7, 0.99)] {
        let (attempts, answered) = traffic(&RetryLayer::default(), tries, 100, 0.5).await;
        println!("{tries} attempts: {:.2}% answered, {attempts:.3} attempts a call", answered * 100.0);
        assert!(answered >= least, "{answered}");
        assert!(attempts < 2.0, "{attempts}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_not_multiplied_and_its_end_is_noticed_within_seconds() {
    fastrand::seed(1);
    let layer = RetryLayer::default();
    traffic(&layer, 4, 5, 1.0).await;
    let (attempts, _) = traffic(&layer, 4, 60, 1.0).await;
    println!("all fail, budget spent: {attempts:.3} attempts a call");
    assert!(attempts < 1.25, "{attempts}");
    traffic(&layer, 4, 3, 0.5).await;
    let (_, answered) = traffic(&layer, 4, 20, 0.5).await;
    println!("3 s after its end, with half failing: {:.2}% answered", answered * 100.0);
    assert!(answered >= 0.92, "{answered}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_ends_its_retries() {
    let (count, vendor) = vendor(|_| Ok(refusal(503, None)));
    let sealed = Sealed::default();
    let asked = call_on(sealed.readers(), MODEL.clone(), "{}");
    let options =
        Options { retry_delay: Some(Duration::from_secs(9)), backoff: Some(Backoff::Constant), ..Options::default() };
    let asked = Call { options: Arc::new(options), ..asked };
    let service = RetryLayer::default().layer(vendor);
    assert!(tokio::time::timeout(Duration::from_secs(1), service.oneshot(asked)).await.is_err());
    sleep(Duration::from_secs(100)).await;
    assert_eq!(count.load(Relaxed), 1);
    assert_eq!(sealed.0.lock().iter().map(|facts: &Facts| facts.outcome).len(), 1, "its receipt is sealed");
}
