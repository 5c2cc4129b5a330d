//! Replies and streams through the whole gate. The first byte picks route, form and status; the reply comes in pieces.
//!
//! Every call is answered and its receipt sealed once, and how a reply is cut into pieces does not change what it cost.

#![no_main]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use libfuzzer_sys::fuzz_target;
use tollgate::body::Body;
use tollgate::gateway::Gateway;
use tollgate::layers::retry;
use tollgate::receipt::{Facts, Reader};
use tollgate::upstream::Around;
use tower::{ServiceExt, service_fn};

const PATHS: [&str; 3] =
    ["/run/@cf/google/gemma-4-26b-a4b-it", "/client/v4/accounts/a/ai/v1/chat/completions", "/client/v4/accounts/a/ai/v1/responses"];
const TYPES: [&str; 3] = ["text/event-stream", "application/json", "application/octet-stream"];
const STATUSES: [u16; 4] = [200, 200, 400, 429];

#[derive(Default)]
struct Sealed(Mutex<Vec<Facts>>);

impl Reader for Sealed {
    fn sealed(&self, facts: &Facts) {
        self.0.lock().unwrap().push(facts.clone());
    }
}

fuzz_target!(|input: &[u8]| {
    let [pick, cut, reply @ ..] = input else { return };
    let whole = ask(usize::from(*pick), reply, reply.len().max(1));
    let pieces = ask(usize::from(*pick), reply, usize::from(*cut).max(1));
    assert_eq!((whole.cost.neurons, &whole.usage), (pieces.cost.neurons, &pieces.usage));
    assert_eq!(whole.outcome, pieces.outcome);
});

/// The receipt of a call that gets this reply in pieces of so many bytes.
fn ask(pick: usize, reply: &[u8], piece: usize) -> Facts {
    let pieces: Vec<Bytes> = reply.chunks(piece).map(Bytes::copy_from_slice).collect();
    let (path, kind, status) = (PATHS[pick % 3], TYPES[pick / 3 % 3], STATUSES[pick / 9 % 4]);
    let vendor = service_fn(move |_: Request<Body>| {
        let frames = pieces.clone().into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
        let body = StreamBody::new(stream::iter(frames));
        let reply = Response::builder().status(status).header("content-type", kind).body(body).unwrap();
        async { Ok::<_, std::io::Error>(reply) }
    });
    let mut retries = retry::Settings::default();
    retries.max_attempts = 1;
    let sealed = Arc::new(Sealed::default());
    let builder = Gateway::builder().account("a").token("t").base_url("http://127.0.0.1:1").retry(retries);
    let gate = builder.reader(sealed.clone()).build_around(Around::new(vendor)).unwrap();
    let body = r#"{"model":"@cf/google/gemma-4-26b-a4b-it","messages":[{"role":"user","content":"x"}],"input":"x","stream":true}"#;
    let request = Request::post(path).header("content-type", "application/json").body(Body::from(body)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let reply = gate.oneshot(request).await.unwrap();
        let _ = reply.into_body().collect().await;
    });
    let mut sealed = sealed.0.lock().unwrap();
    assert_eq!(sealed.len(), 1);
    sealed.pop().unwrap()
}
