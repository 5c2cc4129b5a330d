//! The AI Gateway's own WebSocket: each request on it is a call.

use std::collections::BTreeMap;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tollgate::receipt::{CacheStatus, Outcome};

use crate::sockets::{Socket, open_with, send};
use crate::support::{Gate, LLAMA, TOKEN};

async fn open(gate: &Gate) -> Socket {
    open_with(gate, "/v1/acc/gw", &[("cf-aig-authorization", &format!("Bearer {TOKEN}"))]).await.unwrap()
}

fn create(event: &str, query: &Value) -> Value {
    json!({"type": "universal.create",
        "request": {"eventId": event, "provider": "workers-ai", "endpoint": LLAMA, "query": query}})
}

async fn next(socket: &mut Socket) -> Value {
    loop {
        if let Message::Text(text) = socket.next().await.unwrap().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

#[tokio::test]
async fn several_requests_at_once_are_calls_with_receipts_of_their_own() {
    let gate = Gate::start();
    let mut socket = open(&gate).await;
    for n in 0..20 {
        send(&mut socket, create(&format!("e{n}"), &json!({"prompt": format!("What is {n}?"), "temperature": 0})))
            .await;
    }
    let mut answers = BTreeMap::new();
    for _ in 0..20 {
        let answer = next(&mut socket).await;
        assert_eq!(
            (&answer["type"], &answer["metadata"]["step"]),
            (&json!("universal.created"), &json!("0")),
            "{answer}"
        );
        assert!(answer["response"]["result"]["response"].is_string(), "{answer}");
        answers.insert(answer["metadata"]["eventId"].as_str().unwrap().to_owned(), answer["metadata"]["logId"].clone());
    }
    assert_eq!(answers.len(), 20);
    let facts = gate.receipts.after(20).await;
    assert!(
        facts
            .iter()
            .all(|facts| facts.outcome == Outcome::Ok && answers.values().any(|id| *id == *facts.id.to_string()))
    );
    assert_eq!(facts.iter().map(|facts| facts.cost.neurons.micro()).sum::<u64>(), gate.vendor.spent("acc").micro());
    // A repeat is answered from the cache.
    send(&mut socket, create("again", &json!({"prompt": "What is 7?", "temperature": 0}))).await;
    let answer = next(&mut socket).await;
    assert_eq!((&answer["metadata"]["cacheStatus"], &answer["metadata"]["eventId"]), (&json!("HIT"), &json!("again")));
    assert_eq!(gate.receipts.after(21).await[20].cache, CacheStatus::Hit);
}

#[tokio::test]
async fn a_stream_is_begun_goes_on_and_is_done() {
    let gate = Gate::start();
    let mut socket = open(&gate).await;
    send(&mut socket, create("s", &json!({"prompt": "tell me of the river", "stream": true}))).await;
    let begun = next(&mut socket).await;
    assert!(begun["type"] == "universal.created" && begun.get("response").is_none(), "{begun}");
    let mut chunks = 0;
    loop {
        let message = next(&mut socket).await;
        assert_eq!(message["metadata"]["eventId"], "s");
        if message["type"] == "universal.done" {
            break;
        }
        assert!(message["type"] == "universal.stream" && message["response"].is_object(), "{message}");
        chunks += 1;
    }
    assert!(chunks > 2, "{chunks}");
    let facts = gate.receipts.after(1).await.pop().unwrap();
    assert_eq!((facts.outcome, facts.stream, facts.cost.neurons), (Outcome::Ok, true, gate.vendor.spent("acc")));
}

#[tokio::test]
async fn what_is_refused_or_is_no_request_is_told_and_the_socket_goes_on() {
    let gate = Gate::with(crate::support::vendor(), |config| {
        let budget = "[[budgets]]\nname = \"small\"\nlimit = \"1 neurons\"\nwindow = \"day\"\n";
        config.budgets = tollgate::sidecar::config::Config::parse(budget, "test").unwrap().budgets;
    });
    let mut socket = open(&gate).await;
    for junk in ["", "no JSON", "7", "{}", "{\"type\":\"universal.create\",\"request\":{}}"] {
        socket.send(Message::Text(junk.into())).await.unwrap();
        assert_eq!(next(&mut socket).await["type"], "error", "{junk}");
    }
    send(&mut socket, json!({"type": "universal.destroy", "request": {"eventId": 7}})).await;
    let told = next(&mut socket).await;
    assert_eq!((&told["type"], &told["metadata"]["eventId"]), (&json!("error"), &json!(7)), "{told}");
    send(&mut socket, create("dear", &json!({"prompt": "Hi", "max_tokens": 1000}))).await;
    let told = next(&mut socket).await;
    assert_eq!((&told["metadata"]["status"], &told["response"]["success"]), (&json!(429), &json!(false)), "{told}");
    send(&mut socket, create("cheap", &json!({"prompt": "Hi", "max_tokens": 8}))).await;
    assert!(next(&mut socket).await["response"]["result"].is_object());
    socket.close(None).await.unwrap();
}
