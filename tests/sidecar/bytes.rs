//! What the client gets is what the vendor sent.

use std::io::Read;
use std::sync::Arc;

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::scripted::{self, EVENTS, chunk, send};
use crate::support::{GEMMA, Gate, LLAMA, ask, client, client_builder, config, start};

/// Headers that are between two neighbours, or the sender's own.
fn comparable(headers: &HeaderMap) -> Vec<(String, String)> {
    let own = ["date", "connection", "keep-alive", "transfer-encoding", "content-length"];
    let gate = |name: &str| name.starts_with("x-tollgate-") || name.starts_with("cf-aig-");
    let kept = headers.iter().filter(|(name, _)| !own.contains(&name.as_str()) && !gate(name.as_str()));
    let mut kept: Vec<_> = kept.map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
    kept.sort();
    kept
}

#[tokio::test]
async fn who_asks_for_gzip_or_zstd_gets_it_where_the_config_says_so() {
    let on = Gate::with(crate::support::vendor(), |config| config.compat.compress = true);
    let off = Gate::start();
    let long = json!({"model": "@cf/baai/bge-m3", "input": ["a", "b"]});
    let stream = json!({"model": LLAMA, "messages": [], "stream": true});
    for (gate, path, body, asked, wanted) in [
        (&on, "/v1/embeddings", &long, "gzip", Some("gzip")),
        (&on, "/v1/embeddings", &long, "zstd, gzip;q=0.5", Some("zstd")),
        (&on, "/v1/embeddings", &long, "br", None),
        (&on, "/v1/chat/completions", &stream, "gzip", None),
        (&off, "/v1/embeddings", &long, "gzip", None),
    ] {
        let plain = gate.post(path, body).send().await.unwrap().bytes().await.unwrap();
        let reply = gate.post(path, body).header("accept-encoding", asked).send().await.unwrap();
        let encoding = reply.headers().get("content-encoding").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(encoding.as_deref(), wanted, "{path} {asked}");
        assert!(reply.headers().contains_key("cf-aig-log-id"));
        let bytes = reply.bytes().await.unwrap();
        let mut text = Vec::new();
        let read = match wanted {
            Some("gzip") => flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut text),
            Some(_) => ruzstd::decoding::StreamingDecoder::new(&bytes[..]).unwrap().read_to_end(&mut text),
            None => continue,
        };
        assert_eq!(read.unwrap(), text.len());
        assert!(bytes.len() < text.len(), "{} bytes for {}", bytes.len(), text.len());
        let vectors = |json: &[u8]| serde_json::from_slice::<Value>(json).unwrap()["data"].as_array().unwrap().len();
        assert_eq!((vectors(&text), vectors(&plain)), (2, 2));
    }
}

#[tokio::test]
async fn json_events_pictures_and_sound_pass_byte_by_byte() {
    let gate = Gate::start();
    let messages = json!([{"role": "user", "content": "Grüße, 世界 🌉"}]);
    let asks = [
        (format!("ai/run/{LLAMA}"), json!({"prompt": "hello"})),
        (format!("ai/run/{LLAMA}"), json!({"prompt": "hello", "stream": true})),
        ("ai/v1/chat/completions".into(), json!({"model": LLAMA, "messages": messages})),
        ("ai/v1/chat/completions".into(), json!({"model": GEMMA, "messages": messages, "stream": true})),
        ("ai/v1/responses".into(), json!({"model": LLAMA, "input": "hello", "stream": true})),
        ("ai/v1/embeddings".into(), json!({"model": "@cf/baai/bge-m3", "input": ["a", "b"]})),
        ("ai/run".into(), json!({"model": LLAMA, "input": {"prompt": "hello"}})),
        ("ai/run/@cf/leonardo/phoenix-1.0".into(), json!({"prompt": "a bridge"})),
        ("ai/run/@cf/black-forest-labs/flux-1-schnell".into(), json!({"prompt": "a bridge"})),
        ("ai/run/@cf/deepgram/aura-1".into(), json!({"text": "mind the gap ".repeat(40)})),
        (format!("ai/run/{LLAMA}"), json!({"prompt": 5, "max_tokens": "many"})),
        ("ai/run/@cf/nobody/knows".into(), json!({"prompt": "hello"})),
        ("storage/kv/namespaces?page=2".into(), json!({"any": "thing"})),
    ];
    for (path, body) in asks {
        let path = format!("/client/v4/accounts/acc/{path}");
        let direct = ask(&gate.client, &format!("{}{path}", gate.vendor.base_url()), &body).send().await.unwrap();
        let through = gate.post(&path, &body).send().await.unwrap();
        assert_eq!(through.status(), direct.status(), "{path}");
        assert_eq!(comparable(through.headers()), comparable(direct.headers()), "{path}");
        let (through, direct) = (through.bytes().await.unwrap(), direct.bytes().await.unwrap());
        assert_eq!(through, direct, "{path}");
    }
}

#[tokio::test]
async fn the_request_goes_up_as_it_came_less_what_is_between_neighbours() {
    let gate = Gate::start();
    let body = json!({"prompt": "hello", "unknown": [1, 2.50, null]});
    let request = gate.post(&format!("/run/{LLAMA}?tag=1"), &body);
    let request = request.header("x-session-affinity", "s1").header("connection", "x-hop").header("x-hop", "1");
    request.header("accept-encoding", "gzip").header("cf-aig-cache-ttl", "60").send().await.unwrap();
    let seen = gate.vendor.seen().pop().unwrap();
    assert_eq!(seen.path, format!("/client/v4/accounts/acc/ai/run/{LLAMA}?tag=1"));
    assert_eq!(seen.body, body.to_string());
    assert_eq!(seen.headers["x-session-affinity"], "s1");
    assert_eq!(seen.headers["accept-encoding"], "identity");
    assert!(!seen.headers.contains_key("x-hop") && !seen.headers.contains_key("cf-aig-cache-ttl"));
}

#[tokio::test]
async fn a_gateway_upstream_gets_the_gateways_form() {
    let gate = Gate::with(crate::support::vendor(), |config| config.upstream.gateway = "gw".into());
    let body = json!({"model": format!("workers-ai/{LLAMA}"), "messages": [{"role": "user", "content": "hi"}]});
    let reply = gate.post("/v1/acc/gw/compat/chat/completions", &body).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    gate.run(LLAMA, &json!({"prompt": "hi"})).await;
    let paths: Vec<_> = gate.vendor.seen().into_iter().map(|seen| seen.path).collect();
    let run = format!("/v1/acc/gw/workers-ai/run/{LLAMA}");
    assert_eq!(paths, ["/v1/acc/gw/workers-ai/v1/chat/completions".to_owned(), run]);
}

#[tokio::test]
async fn the_first_chunk_leaves_before_the_second_comes() {
    let first_was_read = Arc::new(Notify::new());
    let go_on = first_was_read.clone();
    let address = scripted::upstream(move |mut stream, _| {
        let go_on = go_on.clone();
        async move {
            send(&mut stream, EVENTS).await;
            send(&mut stream, &chunk("data: {\"response\":\"one\"}\n\n")).await;
            go_on.notified().await;
            send(&mut stream, &chunk("data: {\"response\":\"two\"}\n\n")).await;
            send(&mut stream, "0\r\n\r\n").await;
        }
    })
    .await;
    let (sidecar, _) = start(config(&format!("http://{address}")));
    let url = format!("http://{}/run/{LLAMA}", sidecar.listen());
    let mut reply = ask(&client(), &url, &json!({"prompt": "x", "stream": true})).send().await.unwrap();
    let first = reply.chunk().await.unwrap().unwrap();
    assert_eq!(first, "data: {\"response\":\"one\"}\n\n");
    first_was_read.notify_one();
    assert_eq!(reply.chunk().await.unwrap().unwrap(), "data: {\"response\":\"two\"}\n\n");
    assert_eq!(reply.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn http2_without_tls_is_spoken_too() {
    let gate = Gate::start();
    let client = client_builder().http2_prior_knowledge().build().unwrap();
    let url = gate.url(&format!("/run/{LLAMA}"));
    let (one, two) = (json!({"prompt": "one"}), json!({"prompt": "two", "stream": true}));
    let (one, two) = tokio::join!(ask(&client, &url, &one).send(), ask(&client, &url, &two).send());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((one.version(), one.status().as_u16()), (reqwest::Version::HTTP_2, 200));
    let answer: Value = one.json().await.unwrap();
    assert!(answer["result"]["response"].is_string());
    assert!(two.text().await.unwrap().ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_request_that_comes_letter_by_letter_is_a_request() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let gate = Gate::start();
    let body = r#"{"prompt":"x"}"#;
    let head = format!("POST /run/{LLAMA} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t\r\nconnection: close\r\n");
    let request = format!("{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut socket = tokio::net::TcpStream::connect(gate.sidecar.listen()).await.unwrap();
    socket.set_nodelay(true).unwrap();
    for letter in request.as_bytes()[..8].chunks(1) {
        socket.write_all(letter).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    socket.write_all(&request.as_bytes()[8..]).await.unwrap();
    let mut reply = String::new();
    socket.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 OK"), "{reply}");
}
