//! Whatever comes in, from clients or from upstream, is answered, and its receipt is sealed once: nothing in it panics.

#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use proptest::prelude::*;
use tollgate::body::Body;
use tollgate::gateway::Gateway;
use tollgate::layers::{budget, cache, retry};
use tollgate::neurons::Neurons;
use tollgate::readers::metrics::Metrics;
use tollgate::receipt::{Facts, Reader};
use tollgate::upstream::Around;
use tower::{ServiceExt, service_fn};

#[derive(Default)]
struct Sealed(AtomicUsize);

impl Reader for Sealed {
    fn sealed(&self, _: &Facts) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

const PATHS: [&str; 10] = [
    "/run/@cf/meta/llama-3.2-1b-instruct",
    "/run/@cf/black-forest-labs/flux-1-schnell",
    "/run/@cf/baai/bge-m3",
    "/run/@cf/openai/whisper",
    "/run/@cf/deepgram/aura-1",
    "/run/%40cf%2Fff",
    "/run",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/a/gw/compat/chat/completions",
];
const TYPES: [&str; 6] =
    ["application/json", "text/event-stream", "multipart/form-data; boundary=b", "audio/wav", "image/png", ""];
const HEADERS: [(&str, &str); 8] = [
    ("cf-aig-metadata", "{\"a\":1e999}"),
    ("cf-aig-cache-ttl", "2592000"),
    ("cf-aig-cache-key", "k"),
    ("cf-aig-custom-cost", "{\"per_token_in\":1e308,\"per_token_out\":1e308}"),
    ("cf-aig-request-timeout", "86400000"),
    ("x-tollgate-stream-cost", "true"),
    ("content-length", "18446744073709551615"),
    ("connection", "x-a, é,,"),
];
const REPLY_HEADERS: [(&str, &str); 7] = [
    ("cf-ai-neurons", "1e308"),
    ("retry-after", "Fri, 99999999999999999999 Dec 9999 23:59:59 GMT"),
    ("retry-after", "Sun, 18446744073709551615 Nov 1994 08:49:37 GMT"),
    ("retry-after-ms", "18446744073709551615"),
    ("content-encoding", "gzip"),
    ("cf-aig-cache-status", "HIT"),
    ("x-nothing", "0"),
];
/// What bodies are put together from.
const PARTS: [&str; 34] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\n",
    "data:",
    "[DONE]",
    "--b\r\n",
    "\r\n\r\n",
    "--b--",
    "Content-Disposition: form-data; name=\"width\"",
    "4294967296",
    "1e999",
    "-1",
    "true",
    "null",
    "é",
    "\"usage\":",
    "{\"prompt_tokens\":1e30,\"input_tokens\":1e30,\"completion_tokens\":1e30,\"output_tokens\":1,\"neurons\":1e300}",
    "\"model\":\"workers-ai/@cf/meta/llama-3.2-1b-instruct\"",
    "\"text\":[\"a\",\"b\"]",
    "\"input\":",
    "\"stream\":true",
    "\"max_tokens\":4294967295",
    "\"result\":{\"data\":[[1],[2]],",
    "\"image\":\"data:image/png;base64,iVBORw0KGgo=\"",
    "\"transcription_info\":{\"duration\":1e300}",
    "\"errors\":[{\"code\":3021}]",
    "\"audio\":\"UklGRv////9XQVZF\"",
    "RIFF\u{1}\u{1}\u{1}\u{1}WAVEfmt ",
];

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let parts = prop::collection::vec(prop::sample::select(&PARTS[..]), 0..24).prop_map(|parts| parts.concat());
    prop_oneof![
        4 => parts.clone().prop_map(String::into_bytes),
        4 => parts.prop_map(|inner| format!("{{\"prompt\":\"x\",{inner}}}").into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn everything_is_answered_and_sealed_once(
        path in prop::sample::select(&PATHS[..]),
        (asked, answered) in (prop::sample::select(&TYPES[..]), prop::sample::select(&TYPES[..])),
        headers in prop::collection::vec(prop::sample::select(&HEADERS[..]), 0..3),
        reply_headers in prop::collection::vec(prop::sample::select(&REPLY_HEADERS[..]), 0..3),
        status in prop::sample::select(&[200u16, 200, 200, 400, 410, 429, 503, 204][..]),
        (body, reply) in (bodies(), bodies()),
    ) {
        let vendor = service_fn(move |_: Request<Body>| {
            let mut answer = Response::builder().status(status).header("content-type", answered);
            for (name, value) in &reply_headers {
                answer = answer.header(*name, *value);
            }
            let answer = answer.body(Full::<bytes::Bytes>::from(reply.clone())).unwrap();
            async { Ok::<_, std::io::Error>(answer) }
        });
        let mut retries = retry::Settings::default();
        retries.max_attempts = 1;
        let mut budgets = budget::Settings::default();
        budgets.rules.push(budget::Rule::new("all", Neurons::MAX, budget::Period::Month));
        let mut kept = cache::Settings::default();
        kept.max_bytes = 1 << 20;
        let sealed = Arc::new(Sealed::default());
        let builder = Gateway::builder().account("023e").token("t").base_url("http://127.0.0.1:1").retry(retries).cache(kept);
        let builder = builder.budgets(budgets).reader(Arc::new(Metrics::new().unwrap())).reader(sealed.clone());
        let gate = builder.build_around(Around::new(vendor)).unwrap();
        let request = || {
            let mut request = Request::post(path).header("content-type", asked);
            for (name, value) in &headers {
                request = request.header(*name, *value);
            }
            request.body(Body::from(body.clone())).unwrap()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for call in 1..=2 {
            runtime.block_on(async {
                let reply = gate.clone().oneshot(request()).await.unwrap();
                let _ = reply.into_body().collect().await;
            });
            prop_assert_eq!(sealed.0.load(Ordering::SeqCst), call);
        }
    }
}
