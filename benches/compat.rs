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
const ASKED: &str =
    r#"{"model":"@cf/meta/llama-3.2-1b-instruct","messages":[],"input":"hi","max_tokens":9,"stream":true}"#;

fn chunk(delta: &str, more: &str) -> Bytes {
    format!(
        "data: {{\"id\":\"chatcmpl-7\",\"object\":\"chat.completion.chunk\",\"created\":1791402526,\
         \"model\":\"@cf/meta/llama-3.2-1b-instruct\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\
         \"finish_reason\":null}}]{more}}}\n\n"
    )
    .into()
}

/// A stream as the vendor sends it, and the route that it is the answer of.
struct Stream {
    name: &'static str,
    route: &'static str,
    chunks: Vec<Bytes>,
}

/// Chats: a clean stream, one whose every chunk has the role again, and one with running usage. Messages in Anthropic's form, with
/// their usage and without. Responses with all that OpenAI promises in each event, and without.
fn streams() -> Vec<Stream> {
    let usage =
        |n: usize| format!(r#","usage":{{"prompt_tokens":9,"completion_tokens":{n},"total_tokens":{}}}"#, n + 9);
    vec![
        chat("untouched", |n| chunk(&format!(r#"{{"content":" word {n}"}}"#), "")),
        chat("a role in each", |n| chunk(&format!(r#"{{"role":"assistant","content":" word {n}"}}"#), "")),
        chat("usage in each", |n| chunk(&format!(r#"{{"content":" word {n}"}}"#), &usage(n))),
        messages("messages", r#"{"input_tokens":9,"output_tokens":1}"#),
        messages("messages without usage", "null"),
        responses("responses", r#","logprobs":[]"#),
        responses("responses without logprobs", ""),
    ]
}

fn chat(name: &'static str, each: impl Fn(usize) -> Bytes) -> Stream {
    let first = chunk(r#"{"role":"assistant","content":""}"#, "");
    let done = Bytes::from_static(b"data: [DONE]\n\n");
    let chunks = std::iter::once(first).chain((0..CHUNKS).map(each)).chain([done]).collect();
    Stream { name, route: "chat/completions", chunks }
}

fn named(event: &str, more: &str) -> Bytes {
    format!("event: {event}\ndata: {{\"type\":\"{event}\",{more}}}\n\n").into()
}

fn messages(name: &'static str, usage: &str) -> Stream {
    let message = format!(
        r#""message":{{"id":"msg_7","type":"message","role":"assistant","model":"@cf/meta/llama-3.2-1b-instruct","content":[],"stop_reason":null,"usage":{usage}}}"#
    );
    let first = [
        named("message_start", &message),
        named("content_block_start", r#""index":0,"content_block":{"type":"text","text":""}"#),
    ];
    let word =
        |n| named("content_block_delta", &format!(r#""index":0,"delta":{{"type":"text_delta","text":" word {n}"}}"#));
    let end = format!(r#""delta":{{"stop_reason":"end_turn","stop_sequence":null}},"usage":{usage}"#);
    let last = [
        named("content_block_stop", r#""index":0"#),
        named("message_delta", &end),
        Bytes::from_static(b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"),
    ];
    Stream { name, route: "messages", chunks: first.into_iter().chain((0..CHUNKS).map(word)).chain(last).collect() }
}

fn responses(name: &'static str, more: &str) -> Stream {
    let word = |n| {
        let delta = format!(
            r#""item_id":"msg_7","output_index":0,"content_index":0,"delta":" word {n}","sequence_number":{n}{more}"#
        );
        named("response.output_text.delta", &delta)
    };
    let details = r#""input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0},"output_tokens_details":{"reasoning_tokens":0}"#;
    let last = format!(
        r#""sequence_number":{CHUNKS},"response":{{"id":"resp_7","status":"completed","usage":{{"input_tokens":9,"output_tokens":9,{details}}}}}"#
    );
    let chunks = (0..CHUNKS).map(word).chain([named("response.completed", &last)]).collect();
    Stream { name, route: "responses", chunks }
}

fn mending(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut group = criterion.benchmark_group("compat");
    for Stream { name, route, chunks } in streams() {
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
            [("vendor", format!("/client/v4/accounts/acc/ai/v1/{route}")), ("v1", format!("/v1/{route}"))]
        {
            let request = || Request::post(&path).body(Body::from(ASKED)).unwrap();
            group.bench_function(format!("{name}, {face}"), |bencher| {
                bencher.iter(|| {
                    runtime.block_on(async {
                        let mut body = stack.call(request()).await.unwrap().into_body();
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
                    runtime.block_on(async {
                        let mut body = stack.call(request()).await.unwrap().into_body();
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
