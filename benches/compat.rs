//! What mending a stream costs: a thousand chunks in frames of one, as the vendor's paths have them and as `/v1` does. The
//! difference of two lines, divided by a thousand, is the price of a chunk. The lines to the first chunk tell what mending adds
//! to the time until a client has one.

#![allow(missing_docs, clippy::unwrap_used)]

use std::convert::Infallible;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tollgate::body::Body;
use tollgate::call::Call;
use tollgate::layers::{compat::CompatLayer, identify};
use tower::{Service, ServiceBuilder, service_fn};

const CHUNKS: usize = 1000;

fn chunk(delta: &str, more: &str) -> Bytes {
    format!(
        "data: {{\"id\":\"chatcmpl-7\",\"object\":\"chat.completion.chunk\",\"created\":1791402526,\
         \"model\":\"@cf/meta/llama-3.2-1b-instruct\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\
         \"finish_reason\":null}}]{more}}}\n\n"
    )
    .into()
}

/// A clean stream, one whose every chunk has the role again, and one with running usage.
fn streams() -> [(&'static str, Vec<Bytes>); 3] {
    let first = chunk(r#"{"role":"assistant","content":""}"#, "");
    let with = |each: &dyn Fn(usize) -> Bytes| {
        let done = Bytes::from_static(b"data: [DONE]\n\n");
        std::iter::once(first.clone()).chain((0..CHUNKS).map(each)).chain([done]).collect::<Vec<_>>()
    };
    let usage =
        |n: usize| format!(r#","usage":{{"prompt_tokens":9,"completion_tokens":{n},"total_tokens":{}}}"#, n + 9);
    [
        ("untouched", with(&|n| chunk(&format!(r#"{{"content":" word {n}"}}"#), ""))),
        ("a role in each", with(&|n| chunk(&format!(r#"{{"role":"assistant","content":" word {n}"}}"#), ""))),
        ("usage in each", with(&|n| chunk(&format!(r#"{{"content":" word {n}"}}"#), &usage(n)))),
    ]
}

fn mending(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut group = criterion.benchmark_group("compat");
    for (name, chunks) in streams() {
        let vendor = service_fn(move |_: Call| {
            let frames = chunks.clone().into_iter().map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
            let body = Body::stream(StreamBody::new(stream::iter(frames)));
            async {
                Ok::<_, tollgate::Error>(
                    Response::builder().header("content-type", "text/event-stream").body(body).unwrap(),
                )
            }
        });
        let rest = service_fn(|_: Request<Body>| async { Ok::<_, tollgate::Error>(Response::new(Body::empty())) });
        let mut settings = identify::Settings::default();
        (settings.account, settings.has_token) = (Some("acc".into()), true);
        let compat = CompatLayer::new(settings.openai);
        let mut stack =
            ServiceBuilder::new().layer(identify::IdentifyLayer::new(settings, rest)).layer(compat).service(vendor);
        for (face, path) in
            [("vendor", "/client/v4/accounts/acc/ai/v1/chat/completions"), ("v1", "/v1/chat/completions")]
        {
            group.bench_function(format!("{name}, {face}"), |bencher| {
                bencher.iter(|| {
                    let body = Body::from(r#"{"model":"@cf/meta/llama-3.2-1b-instruct","messages":[],"stream":true}"#);
                    let request = Request::post(path).body(body).unwrap();
                    runtime.block_on(async {
                        let mut body = stack.call(request).await.unwrap().into_body();
                        let mut bytes = 0;
                        while let Some(frame) = body.frame().await {
                            bytes += frame.unwrap().into_data().unwrap().len();
                        }
                        assert!(bytes > CHUNKS);
                    });
                });
            });
            group.bench_function(format!("{name}, to the first chunk, {face}"), |bencher| {
                bencher.iter(|| {
                    let body = Body::from(r#"{"model":"@cf/meta/llama-3.2-1b-instruct","messages":[],"stream":true}"#);
                    let request = Request::post(path).body(body).unwrap();
                    runtime.block_on(async {
                        let mut body = stack.call(request).await.unwrap().into_body();
                        assert!(body.frame().await.unwrap().unwrap().into_data().unwrap().len() > 100);
                    });
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, mending);
criterion_main!(benches);
