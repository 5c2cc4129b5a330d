//! What a decision costs, from ten limiters to a million: the call's lane is found, its window moved on, a permit taken.

#![allow(missing_docs, clippy::unwrap_used)]

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{Request, Response};
use tollgate::body::Body;
use tollgate::call::Call;
use tollgate::catalogue::Limit;
use tollgate::layers::identify::{Identify, Settings};
use tollgate::layers::rate_limit::{self, Quota, RateLimitLayer};
use tower::{ServiceExt, service_fn};

const MODEL: &str = "@cf/meta/llama-3.2-1b-instruct";

fn a_call() -> Call {
    let kept = Arc::new(Mutex::new(None));
    let keeper = kept.clone();
    let model = service_fn(move |call: Call| {
        *keeper.lock().unwrap() = Some(call);
        async { Ok::<_, tollgate::Error>(Response::new(Body::empty())) }
    });
    let rest = service_fn(|_: Request<Body>| async { Ok::<_, tollgate::Error>(Response::new(Body::empty())) });
    let mut settings = Settings::default();
    (settings.account, settings.has_token) = (Some("acc".into()), true);
    let request = Request::post(format!("/run/{MODEL}")).body(Body::from("{}")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Identify::new(settings, model, rest).oneshot(request)).unwrap();
    kept.lock().unwrap().take().unwrap()
}

/// So high that every decision is a yes.
fn layer() -> RateLimitLayer {
    let limit = Limit { requests: NonZeroU32::new(1 << 30).unwrap(), per: Duration::from_secs(60) };
    let mut settings = rate_limit::Settings::default();
    let mut quota = Quota::default();
    quota.requests = Some(limit);
    settings.models.insert(MODEL.into(), quota);
    RateLimitLayer::new(settings)
}

/// The name of a random one of so many, made on the spot: a real call's name is warm, having just been read.
fn name(seed: &mut u64, of: u64) -> Arc<str> {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    write(((*seed >> 32) * of) >> 32)
}

fn write(number: u64) -> Arc<str> {
    let mut digits = [b'0'; 32];
    for (place, digit) in digits.iter_mut().rev().enumerate().take(8) {
        *digit = b"0123456789abcdef"[(number >> (4 * place)) as usize & 15];
    }
    Arc::from(std::str::from_utf8(&digits).unwrap())
}

fn decisions(criterion: &mut Criterion) {
    let mut call = a_call();
    let mut group = criterion.benchmark_group("rate_limit");
    let mut seed = 1;
    group.bench_function("the harness alone", |bencher| {
        bencher.iter(|| {
            call.account = name(&mut seed, 1_000_000);
            std::hint::black_box(&call);
        });
    });
    for count in [10, 1000, 100_000, 1_000_000] {
        let layer = layer();
        for n in 0..count {
            call.account = write(n);
            layer.try_take(&call);
        }
        group.bench_function(BenchmarkId::new("accounts", count), |bencher| {
            bencher.iter(|| {
                call.account = name(&mut seed, count);
                layer.try_take(&call)
            });
        });
    }
    for count in [10, 1000, 100_000, 1_000_000] {
        let layer = layer();
        for n in 0..count {
            call.key = Some(write(n));
            layer.try_take(&call);
        }
        group.bench_function(BenchmarkId::new("keys of one model", count), |bencher| {
            bencher.iter(|| {
                call.key = Some(name(&mut seed, count));
                layer.try_take(&call)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decisions);
criterion_main!(benches);
