//! Streams that end before their time, on either side.

use serde_json::json;
use tollgate::receipt::{Outcome, Source};
use tollgate::simulator::{Fault, FaultRule, Settings, Trouble};

use crate::scripted::{self, EVENTS, chunk, send};
use crate::support::{Gate, LLAMA, client, config, start, vendor};

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

const ROLE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const WORD: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n";
const ERROR: &str = "data: {\"error\":{\"code\":3040,\"message\":\"full\"}}\n\n";

/// Sends each of these chunks by itself, to one connection after the other, and ends the stream well as far as HTTP goes.
async fn in_turn(
    replies: &'static [&'static [&'static str]],
) -> (tollgate::sidecar::Sidecar, crate::support::Receipts) {
    let turn = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let address = scripted::upstream(move |mut stream, _| {
        let reply = replies[turn.fetch_add(1, std::sync::atomic::Ordering::SeqCst).min(replies.len() - 1)];
        async move {
            send(&mut stream, EVENTS).await;
            for event in reply {
                send(&mut stream, &chunk(event)).await;
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            send(&mut stream, "0\r\n\r\n").await;
        }
    });
    let mut config = config(&format!("http://{}", address.await));
    config.retry.max_attempts = 3.try_into().unwrap();
    config.retry.delay = std::time::Duration::from_millis(1);
    start(config)
}

async fn chat(sidecar: &tollgate::sidecar::Sidecar) -> String {
    let body = json!({"model": LLAMA, "messages": [], "stream": true, "temperature": 0});
    let url = format!("http://{}/v1/chat/completions", sidecar.listen());
    crate::support::ask(&client(), &url, &body).send().await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn a_stream_that_fails_before_its_first_word_is_tried_again() {
    let (sidecar, receipts) = in_turn(&[&[ROLE, ERROR], &[ROLE], &[ROLE, WORD, "data: [DONE]\n\n"]]).await;
    let text = chat(&sidecar).await;
    assert!(text.contains("Hi") && text.ends_with("[DONE]\n\n") && !text.contains("3040"), "{text}");
    let facts = receipts.after(1).await.pop().unwrap();
    assert_eq!(facts.outcome, Outcome::Ok);
    let retried: Vec<_> = facts.attempts.iter().map(|attempt| attempt.retried).collect();
    assert_eq!(retried, [Some("out_of_capacity"), Some("cut_off"), None]);
}

#[tokio::test]
async fn a_stream_that_fails_or_stops_behind_a_word_is_no_answer_and_is_not_kept() {
    const FAILED: &[&[&str]] = &[&[ROLE, WORD, ERROR, "data: [DONE]\n\n"]];
    const CUT: &[&[&str]] = &[&[ROLE, WORD]];
    for events in [FAILED, CUT] {
        let (sidecar, receipts) = in_turn(events).await;
        let first = chat(&sidecar).await;
        assert!(first.contains("Hi"), "{first}");
        assert_eq!(chat(&sidecar).await, first);
        for facts in receipts.after(2).await {
            assert_eq!((facts.outcome, facts.attempts.len()), (Outcome::UpstreamError, 1), "{first}");
            assert_eq!((facts.cache, facts.cost.is_partial), (tollgate::receipt::CacheStatus::Miss, true));
        }
    }
}

#[tokio::test]
async fn a_head_and_its_comments_do_not_wait_for_the_first_word() {
    for head in [
        EVENTS.to_owned(),
        EVENTS.replace("text/event-stream", "application/json"),
        EVENTS.replace("text/event-stream", "text/plain"),
    ] {
        let told = std::sync::Arc::new(tokio::sync::Notify::new());
        let heard = told.clone();
        let address = scripted::upstream(move |mut stream, _| {
            let (heard, head) = (heard.clone(), head.clone());
            async move {
                send(&mut stream, &head).await;
                send(&mut stream, &chunk(": waiting\n\n")).await;
                // Not a word before the client has the comment.
                heard.notified().await;
                send(&mut stream, &chunk(WORD)).await;
                send(&mut stream, &chunk("data: [DONE]\n\n")).await;
                send(&mut stream, "0\r\n\r\n").await;
            }
        });
        let (sidecar, receipts) = start(config(&format!("http://{}", address.await)));
        let body = json!({"model": LLAMA, "messages": [], "stream": true});
        let url = format!("http://{}/v1/chat/completions", sidecar.listen());
        let mut reply = crate::support::ask(&client(), &url, &body).send().await.unwrap();
        assert_eq!(reply.chunk().await.unwrap().unwrap(), ": waiting\n\n");
        told.notify_one();
        assert!(reply.text().await.unwrap().ends_with("[DONE]\n\n"));
        assert_eq!(receipts.after(1).await[0].outcome, Outcome::Ok);
    }
}
