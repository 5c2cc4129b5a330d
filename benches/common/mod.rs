//! The whole gate, every layer on, around a client that answers at once.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::BodyExt;
use tollgate::body::Body;
use tollgate::catalogue::{Catalogue, Limit};
use tollgate::gateway::Gateway;
use tollgate::layers::identify::keys::{Key, Keys, sha256};
use tollgate::layers::{Reply, ReplyFuture, budget, cache, identify, rate_limit};
use tollgate::neurons::Neurons;
use tollgate::readers::metrics::Metrics;
use tower::Service;

const REPLY: &str = r#"{"result":{"response":"The quick brown fox jumps over the lazy dog.","usage":{"prompt_tokens":212,"completion_tokens":18,"total_tokens":230}},"success":true,"errors":[],"messages":[]}"#;

/// A vendor that is ready.
#[derive(Clone)]
pub struct Ready;

impl Service<Request<Body>> for Ready {
    type Response = Reply;
    type Error = tollgate::Error;
    type Future = ReplyFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), tollgate::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ReplyFuture {
        drop(request);
        Box::pin(async { Ok(reply()) })
    }
}

fn reply() -> Reply {
    Response::builder().header(header::CONTENT_TYPE, "application/json").body(Body::from(REPLY)).unwrap()
}

/// The gate, with the budget of the free allocation and one for all, and as many clients' keys.
pub fn gate(keys: usize) -> Gateway<Ready> {
    let mut kept = cache::Settings::default();
    kept.max_bytes = 8 << 20;
    let mut limits = rate_limit::Settings::default();
    let plenty = Limit { requests: NonZeroU32::new(2_000_000_000).unwrap(), per: Duration::from_secs(60) };
    let mut quota = rate_limit::Quota::default();
    quota.requests = Some(plenty);
    limits.models = Catalogue::default().models().iter().map(|model| (model.id.to_string(), quota)).collect();
    let mut budgets = budget::Settings::default();
    budgets.rules.push(budget::Plan::Auto.rule());
    budgets.rules.push(budget::Rule::new("all", Neurons::from_whole(1 << 40), budget::Period::Month));
    let keys: Vec<_> = (0..keys).map(|n| Key::new(format!("key-{n}"), sha256(&format!("secret-{n}")))).collect();
    let mut door = identify::Settings::default();
    door.keys = Keys::new(&keys).unwrap();
    let builder = Gateway::builder().account("023e105f4ecef8ad9ca31a8372d0c353").token("t").door(door);
    let builder = builder.limits(limits).cache(kept).budgets(budgets).reader(Arc::new(Metrics::new().unwrap()));
    builder.build_around(Ready).unwrap()
}

/// A chat of 1 KiB that nobody has asked before.
pub fn request(n: u64, model: &str, key: usize) -> Request<Body> {
    let words = "all work and no play ".repeat(44);
    let body = format!(
        r#"{{"messages":[{{"role":"system","content":"You are terse. {n:012}"}},{{"role":"user","content":"{words}"}}],"max_tokens":64,"temperature":0}}"#
    );
    Request::post(format!("/run/{model}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "bench")
        .header(header::AUTHORIZATION, format!("Bearer secret-{key}"))
        .body(Body::from(body))
        .unwrap()
}

/// One call, to the reply's last byte.
pub async fn call(gate: &mut Gateway<Ready>, request: Request<Body>) -> Bytes {
    let reply = gate.call(request).await.unwrap();
    assert_eq!(reply.status(), 200);
    reply.into_body().collect().await.unwrap().to_bytes()
}
