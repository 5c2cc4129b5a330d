//! Streams that end before their time, on either side.

use serde_json::json;
use tollgate::receipt::{Outcome, Source};
use tollgate::simulator::{Fault, FaultRule, Settings, Trouble};

use crate::support::{Gate, LLAMA, vendor};

fn question(stream: bool) -> serde_json::Value {
    json!({"prompt": "tell me all about the river", "stream": stream})
}

#[tokio::test]
async fn a_client_that_leaves_is_charged_what_flowed() {
    let mut settings = Settings::default();
    (settings.latency, settings.rate_limits) = (0.2, false);
    let gate = Gate::with(tollgate::simulator::start(settings).unwrap(), |_| {});
    let mut reply = gate.run(LLAMA, &question(true)).await;
    reply.chunk().await.unwrap().unwrap();
    drop(reply);
    let facts = gate.receipts.after(1).await.pop().unwrap();
    assert_eq!(facts.outcome, Outcome::Aborted);
    assert_eq!(facts.cost.source, Source::Estimated);
    assert!(facts.usage.input_tokens > 0 && facts.usage.output_tokens > 0, "{:?}", facts.usage);
    assert!(facts.cost.neurons < gate.vendor.counts().neurons());
}

#[tokio::test]
async fn an_upstream_that_dies_in_a_stream_is_told_and_counted() {
    let gate = Gate::start();
    gate.vendor.fault(FaultRule::always(Fault::new(Trouble::DieMid)));
    let reply = gate.run(LLAMA, &question(true)).await;
    assert_eq!(reply.status(), 200);
    assert!(reply.bytes().await.is_err(), "a cut stream must not look whole");
    let facts = gate.receipts.after(1).await.pop().unwrap();
    assert_eq!((facts.outcome, facts.cost.source), (Outcome::UpstreamError, Source::Estimated));
    assert!(facts.usage.output_tokens > 0);
}

#[tokio::test]
async fn an_upstream_that_dies_in_an_answer_is_a_502() {
    let gate = Gate::start();
    gate.vendor.fault(FaultRule::always(Fault::new(Trouble::DieMid)));
    let reply = gate.run(LLAMA, &question(false)).await;
    assert_eq!(reply.status(), 502);
    assert!(reply.text().await.unwrap().contains("broke off"));
}

#[tokio::test]
async fn an_upstream_that_stalls_is_given_up() {
    let gate = Gate::with(vendor(), |config| {
        config.upstream.first_byte_timeout = std::time::Duration::from_millis(100);
        config.upstream.idle_timeout = std::time::Duration::from_millis(100);
    });
    gate.vendor.fault(FaultRule::times(Fault::new(Trouble::Stall), 1));
    let reply = gate.run(LLAMA, &question(false)).await;
    assert_eq!(reply.status(), 504);
    assert!(reply.text().await.unwrap().contains("first_byte_timeout"));
    gate.vendor.clear_faults();
    gate.vendor.fault(FaultRule::times(Fault::new(Trouble::StallMid), 1));
    let reply = gate.run(LLAMA, &question(true)).await;
    assert!(reply.bytes().await.is_err());
    let outcomes: Vec<_> = gate.receipts.after(2).await.iter().map(|facts| facts.outcome).collect();
    assert_eq!(outcomes, [Outcome::Timeout, Outcome::UpstreamError]);
}

#[tokio::test]
async fn a_stream_that_opens_with_an_error_is_no_answer() {
    let gate = Gate::start();
    gate.vendor.fault(FaultRule::always(Fault::new(Trouble::StreamError(5012))));
    let reply = gate.run(LLAMA, &question(true)).await;
    assert!(reply.text().await.unwrap().contains("5012"));
    let facts = gate.receipts.after(1).await.pop().unwrap();
    assert_eq!(facts.outcome, Outcome::UpstreamError);
    assert!(facts.cost.neurons.is_zero());
}

#[tokio::test]
async fn the_cost_of_a_stream_is_told_where_it_is_asked_for() {
    let gate = Gate::start();
    let request = gate.post(&format!("/run/{LLAMA}"), &question(true)).header("x-tollgate-stream-cost", "true");
    let text = request.send().await.unwrap().text().await.unwrap();
    let facts = gate.receipts.after(1).await.pop().unwrap();
    let told = text.lines().find(|line| line.starts_with(": ")).unwrap();
    assert!(told.contains(&facts.cost.neurons.to_string()), "{told}");
}

#[tokio::test]
async fn streams_of_v1_have_openais_form() {
    let gate = Gate::start();
    let messages = json!([{"role": "user", "content": "hi"}]);
    let body = json!({"model": crate::support::GEMMA, "messages": messages, "stream": true});
    let text = gate.post("/v1/chat/completions", &body).send().await.unwrap().text().await.unwrap();
    let chunks = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    for chunk in chunks {
        let chunk: serde_json::Value = serde_json::from_str(chunk).unwrap();
        assert!(chunk["choices"].is_array(), "{chunk}");
    }
}
