//! How long it takes to compare a question with those that were answered before.
//!
//!   cargo bench --bench semantic

#![allow(missing_docs, clippy::unwrap_used)]

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use http::{Request, Response, header};
use http_body_util::BodyExt;
use serde_json::json;
use tollgate::body::Body;
use tollgate::catalogue::Limit;
use tollgate::gateway::Gateway;
use tollgate::layers::cache::semantic;
use tollgate::layers::identify::ReplyBody;
use tollgate::upstream::Around;
use tower::{Service, service_fn};

const MODEL: &str = "@cf/meta/llama-3.2-1b-instruct";
const EMBEDDER: &str = "@cf/baai/bge-m3";
const DIMENSIONS: usize = 1024;
const CALLS: usize = 500;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let vendor = service_fn(|request: Request<Body>| async move {
        let is_vector = request.uri().path().ends_with(EMBEDDER);
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let reply = if is_vector { vector(&body) } else { json!({"result": {"response": "So."}}).to_string() };
        let reply = Response::builder().header(header::CONTENT_TYPE, "application/json").body(Body::from(reply));
        Ok::<_, Infallible>(reply.unwrap())
    });
    for remembered in [0, 10, 100, 1000] {
        let plenty = Limit { requests: NonZeroU32::new(2_000_000_000).unwrap(), per: Duration::from_secs(60) };
        let mut semantic = semantic::Settings::default();
        // Nothing is ever near enough, so that all are compared and each is remembered.
        (semantic.threshold, semantic.max_entries) = (1.0, remembered.max(1));
        let builder = Gateway::builder().account("023e").token("t").limit(MODEL, plenty).limit(EMBEDDER, plenty);
        let mut gate = builder.semantic_cache(semantic).build_around(Around::new(vendor)).unwrap();
        for n in 0..remembered {
            ask(&mut gate, n, true).await;
        }
        let time = async |gate: &mut _, from: usize, asks: bool| {
            let began = Instant::now();
            for n in 0..CALLS {
                ask(gate, from + n, asks).await;
            }
            began.elapsed() / CALLS as u32
        };
        let (without, with) = (time(&mut gate, 1_000_000, false).await, time(&mut gate, 2_000_000, true).await);
        println!(
            "{remembered} remembered: {without:?} a call without, {with:?} with its vector made, read and compared"
        );
    }
}

/// As a vendor writes it, another one for each text.
fn vector(seed: &[u8]) -> String {
    let mut state = seed
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((state >> 40) as f64 / f64::from(1 << 24) - 0.5) * 0.1
    };
    let data: Vec<f64> = (0..DIMENSIONS).map(|_| (next() * 1e6).round() / 1e6).collect();
    json!({"result": {"shape": [1, DIMENSIONS], "data": [data]}, "success": true}).to_string()
}

async fn ask<G>(gate: &mut G, n: usize, asks: bool)
where
    G: Service<Request<Body>, Response = Response<ReplyBody>, Error = Infallible>,
{
    let body = json!({"prompt": format!("question {n}"), "temperature": 0}).to_string();
    let request = Request::post(format!("/run/{MODEL}"))
        .header("x-tollgate-semantic-cache", if asks { "true" } else { "false" })
        .body(Body::from(body))
        .unwrap();
    let reply = gate.call(request).await.unwrap();
    assert_eq!(reply.headers()["cf-aig-cache-status"], "MISS");
    reply.into_body().collect().await.unwrap();
}
