//! An axum service that asks models, and the lines that put a gate before them. `cargo run --example axum`
//!
//! Its own route `/joke` asks a model through the gate; whatever comes to `/v1/…` goes to Workers AI through the same gate, so
//! that any OpenAI client can be pointed at this service.

mod common;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::json;
use tollgate::client::WorkersAi;
use tollgate::readers::metrics::Metrics;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (builder, _vendor) = common::builder()?;

    // The gate: limits, retries, cost and cache. These are the lines to add.
    let metrics = Arc::new(Metrics::new()?);
    let gate = builder.reader(metrics.clone()).build()?;
    let app = Router::new()
        .route("/joke/{about}", get(joke))
        .with_state(WorkersAi::new(gate.clone()))
        .route("/metrics", get(async move || metrics.render().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)))
        .route_service("/v1/{*route}", gate);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });
    visit(&url).await?;
    serving.abort();
    Ok(())
}

async fn joke(State(ai): State<WorkersAi>, Path(about): Path<String>) -> Result<String, (StatusCode, String)> {
    let inputs = json!({"prompt": format!("Tell a joke about {about}."), "max_tokens": 60});
    let answer = ai.run("@cf/meta/llama-3.2-1b-instruct", &inputs).await;
    let answer = answer.map_err(|failure| (StatusCode::BAD_GATEWAY, failure.to_string()))?;
    Ok(format!("{}\n({} neurons)\n", answer.text().unwrap_or_default(), answer.receipt.cost.neurons))
}

/// What a visitor sees.
async fn visit(url: &str) -> Result<(), Box<dyn std::error::Error>> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    for path in ["/joke/cats", "/joke/cats", "/joke/dogs"] {
        print!("GET {path}\n{}", client.get(format!("{url}{path}")).send().await?.text().await?);
    }
    let body = json!({"model": "@cf/meta/llama-3.2-1b-instruct", "messages": [{"role": "user", "content": "Hello"}]});
    let reply = client.post(format!("{url}/v1/chat/completions")).json(&body).send().await?;
    println!(
        "POST /v1/chat/completions: {} at {:?} neurons",
        reply.status(),
        reply.headers().get("x-tollgate-neurons")
    );
    let metrics = client.get(format!("{url}/metrics")).send().await?.text().await?;
    for line in metrics.lines().filter(|line| line.starts_with("tollgate_cost_usd") || line.contains("status=\"HIT\""))
    {
        println!("{line}");
    }
    Ok(())
}
