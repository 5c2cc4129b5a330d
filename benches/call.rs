//! What the gate adds to a call, in process: identify, price and receipt around a service that is ready.

#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::{Request, Response, header};
use http_body_util::BodyExt;
use tollgate::body::Body;
use tollgate::call::Call;
use tollgate::layers::{identify, meter};
use tollgate::readers::metrics::Metrics;
use tollgate::receipt::Reader;
use tower::{Service, ServiceBuilder, service_fn};

/// As in the sidecar.
#[cfg(feature = "sidecar")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const REPLY: &str = r#"{"result":{"response":"The quick brown fox jumps over the lazy dog.","usage":{"prompt_tokens":212,"completion_tokens":18,"total_tokens":230}},"success":true,"errors":[],"messages":[]}"#;

fn body() -> String {
    let words = "all work and no play ".repeat(44);
    format!(
        r#"{{"messages":[{{"role":"system","content":"You are terse."}},{{"role":"user","content":"{words}"}}],"max_tokens":64}}"#
    )
}

fn one_call(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let vendor = service_fn(|_: Call| async {
        let reply = Response::builder().header(header::CONTENT_TYPE, "application/json").body(Body::from(REPLY));
        Ok::<_, tollgate::Error>(reply.unwrap())
    });
    let rest = service_fn(|_: Request<Body>| async { Ok::<_, tollgate::Error>(Response::new(Body::empty())) });
    let metrics = Arc::new(Metrics::new().unwrap()) as Arc<dyn Reader>;
    let mut settings = identify::Settings::default();
    (settings.account, settings.has_token) = (Some("023e105f4ecef8ad9ca31a8372d0c353".into()), true);
    settings.readers = Arc::new([metrics]);
    let mut stack = ServiceBuilder::new()
        .layer(identify::IdentifyLayer::new(settings, rest))
        .layer(meter::MeterLayer::default())
        .service(vendor);
    let body = bytes::Bytes::from(body());
    let request = || {
        Request::post("/run/@cf/meta/llama-3.2-1b-instruct")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "bench")
            .body(Body::from(body.clone()))
            .unwrap()
    };
    let mut group = criterion.benchmark_group("call");
    group.throughput(Throughput::Elements(1));
    group.bench_function("identify, price, receipt", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let reply = stack.call(request()).await.unwrap();
                reply.into_body().collect().await.unwrap()
            })
        });
    });
    // What the harness itself costs: the same request and reply, with nothing between them.
    group.bench_function("the harness alone", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let request = request();
                std::hint::black_box(&request);
                let reply =
                    Response::builder().header(header::CONTENT_TYPE, "application/json").body(Body::from(REPLY));
                reply.unwrap().into_body().collect().await.unwrap()
            })
        });
    });
    group.finish();
}

criterion_group!(benches, one_call);
criterion_main!(benches);
