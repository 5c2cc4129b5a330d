//! A program that called Workers AI with reqwest, and goes on doing so through a gate. `cargo run --example reqwest`

mod common;

use std::convert::Infallible;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use tollgate::body::Body;
use tollgate::layers::budget::{Period, Rule};
use tollgate::layers::identify::ReplyBody;
use tollgate::neurons::Neurons;
use tollgate::upstream::Around;
use tower::{Service, ServiceExt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (builder, _vendor) = common::builder()?;
    // Your own client, with its own proxies, timeouts and connections.
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;

    // The lines to add: limits, retries, cost, cache, and a budget of half a dollar a day.
    let budget = Rule::new("everyone", Neurons::from_usd(0.5), Period::Day);
    let gate = builder.budget(budget).build_around(Around::reqwest(client))?;

    for question in ["Why is the sky blue?", "Why is the sky blue?", "And at night?"] {
        println!("{question}\n  {}", ask(gate.clone(), question).await?);
    }
    Ok(())
}

/// As it was, but for the gate where `client.execute(request)` stood.
async fn ask<S>(gate: S, question: &str) -> Result<String, Box<dyn std::error::Error>>
where
    S: Service<http::Request<Body>, Response = http::Response<ReplyBody>, Error = Infallible>,
{
    let body = json!({"model": "@cf/meta/llama-3.1-8b-instruct-fp8-fast", "messages": [{"role": "user", "content": question}]});
    let request = http::Request::post("/v1/chat/completions")
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))?;
    let reply = gate.oneshot(request).await?;
    let header = |name: &str| reply.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("-").to_owned();
    let (cost, cache) = (header("x-tollgate-cost-usd"), header("cf-aig-cache-status"));
    let answer: Value =
        serde_json::from_slice(&reply.into_body().collect().await.map_err(|why| why.to_string())?.to_bytes())?;
    let text = answer.pointer("/choices/0/message/content").and_then(Value::as_str).unwrap_or("no answer");
    Ok(format!("{text}\n  ${cost}, cache {cache}"))
}
