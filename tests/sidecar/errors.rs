//! Bad input, and an upstream that is not there: said clearly, in the form of the route, and harming nobody else.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Gate, LLAMA, config, start, vendor};

/// A reply's status, and its message in the form of its route.
async fn told(reply: reqwest::Response) -> (u16, String) {
    let status = reply.status().as_u16();
    let body: Value = reply.json().await.unwrap();
    let message = body["errors"][0]["message"].as_str().or(body["error"]["message"].as_str());
    (status, message.unwrap_or_else(|| panic!("no message in {body}")).to_owned())
}

#[tokio::test]
async fn errors_have_the_form_of_their_route() {
    let gate = Gate::start();
    let raw = |path: &str, body: &str| {
        let request = gate.client.post(gate.url(path)).bearer_auth("t").header("content-type", "application/json");
        request.body(body.to_owned()).send()
    };
    let native: Value = raw("/run", "{\"prompt\":").await.unwrap().json().await.unwrap();
    assert_eq!((&native["success"], &native["result"]), (&json!(false), &Value::Null));
    assert!(native["errors"][0]["code"].is_number() && native["errors"][0]["message"].is_string());
    let openai: Value = raw("/v1/chat/completions", "[1]").await.unwrap().json().await.unwrap();
    assert_eq!(openai["error"]["type"], "invalid_request_error");

    let (status, message) = told(raw("/v1/chat/completions", "{\"messages\":[}").await.unwrap()).await;
    assert!(status == 400 && message.contains("line 1 column 14"), "{status} {message}");
    let (status, message) = told(raw("/v1/chat/completions", "{\"messages\":[]}").await.unwrap()).await;
    assert!(status == 400 && message.contains("no model is named"), "{status} {message}");
    let (status, message) = told(raw("/v2/chat", "{}").await.unwrap()).await;
    assert!(status == 404 && message.contains("/v1/chat/completions"), "{status} {message}");
    let reply = gate.client.get(gate.url("/v1/chat/completions")).bearer_auth("t").send().await.unwrap();
    assert_eq!(told(reply).await.0, 405);
    let reply = gate.client.post(gate.url(&format!("/run/{LLAMA}"))).body("{}").send().await.unwrap();
    let (status, message) = told(reply).await;
    assert!(status == 401 && message.contains("Authorization: Bearer"), "{status} {message}");
}

#[tokio::test]
async fn a_body_over_max_body_is_refused_announced_or_not() {
    let gate = Gate::with(vendor(), |config| config.max_body = bytesize::ByteSize::kib(4));
    let big = "x".repeat(5000);
    let (status, message) = told(gate.run(LLAMA, &json!({ "prompt": big })).await).await;
    assert!(status == 413 && message.contains("max_body"), "{status} {message}");
    let pieces = (0..10).map(|_| Ok::<_, std::io::Error>("y".repeat(1000)));
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let reply = gate.client.post(gate.url(&format!("/run/{LLAMA}"))).bearer_auth("t").body(body).send().await.unwrap();
    assert_eq!(told(reply).await.0, 413);
    assert_eq!(gate.run(LLAMA, &json!({"prompt": "short"})).await.status(), 200);
}

async fn raw(address: std::net::SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may close before all is written.
    let _ = stream.write_all(bytes).await;
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply).await;
    String::from_utf8_lossy(&reply).into_owned()
}

#[tokio::test]
async fn a_header_flood_is_431_and_garbage_is_400() {
    let gate = Gate::start();
    let flood: String = (0..500).map(|n| format!("x-{n}: y\r\n")).collect();
    let reply = raw(gate.sidecar.listen(), format!("POST / HTTP/1.1\r\nhost: x\r\n{flood}\r\n").as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 431"), "{reply}");
    let long = format!("POST / HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "y".repeat(200_000));
    let reply = raw(gate.sidecar.listen(), long.as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 431"), "{reply}");
    let reply = raw(gate.sidecar.listen(), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.1 400"), "{reply}");
    assert_eq!(gate.run(LLAMA, &json!({"prompt": "x"})).await.status(), 200);
}

#[tokio::test]
async fn a_slow_client_is_let_go() {
    let gate = Gate::with(vendor(), |config| {
        config.timeouts.body = Duration::from_millis(100);
        config.timeouts.header = Duration::from_millis(100);
    });
    let head =
        format!("POST /run/{LLAMA} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t\r\ncontent-length: 100\r\n\r\n{{");
    let mut stream = TcpStream::connect(gate.sidecar.listen()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut reply = vec![0; 4096];
    let read = stream.read(&mut reply).await.unwrap();
    let reply = String::from_utf8_lossy(&reply[..read]);
    assert!(reply.starts_with("HTTP/1.1 408") && reply.contains("nothing came"), "{reply}");
    // One that never finishes its head is closed.
    let mut stream = TcpStream::connect(gate.sidecar.listen()).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nho").await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await.expect("closed").unwrap();
}

#[tokio::test]
async fn an_unreachable_upstream_is_a_502_that_says_what_to_check() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (sidecar, receipts) = start(config(&format!("http://{closed}")));
    let url = format!("http://{}/v1/chat/completions", sidecar.listen());
    let reply = crate::support::ask(&crate::support::client(), &url, &json!({"model": LLAMA, "messages": []}));
    let (status, message) = told(reply.send().await.unwrap()).await;
    assert!(
        status == 502 && message.contains("check the base URL") && message.contains(&closed.to_string()),
        "{message}"
    );
    assert_eq!(receipts.after(1).await[0].outcome, tollgate::receipt::Outcome::UpstreamError);
}

#[tokio::test]
async fn an_unlisted_model_passes_and_is_counted_as_other() {
    let gate = Gate::start();
    let reply = gate.run("@cf/nobody/knows-this", &json!({"prompt": "x"})).await;
    assert_eq!(reply.status(), 400, "the vendor's own word");
    gate.receipts.after(1).await;
    let metrics = gate.metrics().await;
    assert!(metrics.contains("model=\"other\"") && !metrics.contains("knows-this"));
}
