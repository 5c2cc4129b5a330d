//! Either side stops at any byte of a call: the call ends within its limits, and all that it held comes back.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::scripted::{self, send};
use crate::support::{Process, vendor};
use crate::wire::{Held, LONG, address, closed, count, http1, http2, narrow, run};

/// Every limit is short, so that each stall ends soon; that it ends is what is tested.
const SHORT: [(&str, &str); 15] = [
    ("TOLLGATE_TIMEOUTS_HANDSHAKE", "300ms"),
    ("TOLLGATE_TIMEOUTS_HEADER", "300ms"),
    ("TOLLGATE_TIMEOUTS_BODY", "300ms"),
    ("TOLLGATE_TIMEOUTS_SEND", "300ms"),
    ("TOLLGATE_TIMEOUTS_LINGER", "300ms"),
    ("TOLLGATE_TIMEOUTS_IDLE", "300ms"),
    ("TOLLGATE_UPSTREAM_CONNECT_TIMEOUT", "2s"),
    ("TOLLGATE_UPSTREAM_FIRST_BYTE_TIMEOUT", "600ms"),
    ("TOLLGATE_UPSTREAM_IDLE_TIMEOUT", "300ms"),
    ("TOLLGATE_UPSTREAM_BODY_TIMEOUT", "600ms"),
    ("TOLLGATE_CACHE_TTL", "1m"),
    ("TOLLGATE_SHUTDOWN_TIMEOUT", "1s"),
    ("TOLLGATE_WORKERS", "1"),
    ("TOLLGATE_LOG_LEVEL", "error"),
    ("TOLLGATE_BUDGETS", r#"[{ name = "all", limit = "100000000 neurons", window = "day" }]"#),
];

/// How many stalls there are at once.
const AT_ONCE: usize = 16;

/// Places in so many bytes: all of them, or as many as asked for, spread evenly, the first and the last among them.
fn places(bytes: usize) -> impl Iterator<Item = usize> {
    let wanted = count("TOLLGATE_CASES", 20).clamp(2, bytes);
    (0..wanted).map(move |n| n * (bytes - 1) / (wanted - 1))
}

/// Runs one stall for each place, some at once, and then looks at what is held.
async fn at_each_place<F, Fut>(process: &Process, bytes: usize, what: &str, stall: F)
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let before = Held::by(process).await;
    let mut stalls = JoinSet::new();
    for place in places(bytes) {
        if stalls.len() >= AT_ONCE {
            stalls.join_next().await.unwrap().unwrap();
        }
        stalls.spawn(stall(place));
    }
    while let Some(ended) = stalls.join_next().await {
        ended.unwrap();
    }
    Held::is_back(process, before, 2 * AT_ONCE, what).await;
}

async fn sends_and_stops(to: SocketAddr, bytes: Vec<u8>, place: usize, what: &'static str) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // Limits are short: it may have been closed already.
    let _ = stream.write_all(&bytes[..place]).await;
    closed(&mut stream, &format!("{what}, at byte {place}")).await;
}

#[tokio::test]
async fn a_client_may_stop_at_any_byte_of_its_request() {
    let vendor = vendor();
    let process = Process::serve(&vendor.base_url(), &SHORT);
    let body = r#"{"prompt": "tell me all about the river", "max_tokens": 10}"#;
    let (listen, admin) = (address(&process.listen), address(&process.admin));
    let admins = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-padding: 0123456789\r\n\r\n".to_vec();
    let admins2 = http2("/healthz", "", 65_535);
    for (what, to, bytes) in [
        ("HTTP/1", listen, http1(&run(), body)),
        ("HTTP/2", listen, http2(&run(), body, 65_535)),
        ("HTTP/1 on the admin port", admin, admins),
        ("HTTP/2 on the admin port", admin, admins2),
    ] {
        // The whole request is one of the places: then it is the next one that never comes.
        at_each_place(&process, bytes.len() + 1, what, |place| sends_and_stops(to, bytes.clone(), place, what)).await;
    }
}

/// Answers with the first so many bytes of a reply, as the prompt says, and then waits.
async fn stops_at_a_byte(reply: String) -> SocketAddr {
    scripted::upstream(move |mut stream, request| {
        let reply = reply.clone();
        async move {
            // The gate may have given the call up before all of it was here.
            let Some(place) = request.split("stop at ").nth(1).and_then(|rest| rest.split('"').next()) else { return };
            let place: usize = place.parse().unwrap();
            let _ = stream.write_all(&reply.as_bytes()[..place]).await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
    })
    .await
}

#[tokio::test]
async fn upstream_may_stop_at_any_byte_of_its_reply() {
    let json = r#"{"result":{"response":"Hi","usage":{"prompt_tokens":26,"completion_tokens":18}},"success":true}"#;
    let json =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{json}", json.len());
    let events = scripted::EVENTS.to_owned()
        + &scripted::chunk(": thinking\n\n")
        + &scripted::chunk("data: {\"response\":\"one\"}\n\n")
        + &scripted::chunk("data: [DONE]\n\n")
        + "0\r\n\r\n";
    for (what, reply, stream) in [("an answer", json, false), ("a stream", events, true)] {
        let upstream = stops_at_a_byte(reply.clone()).await;
        let process = Process::serve(&format!("http://{upstream}"), &SHORT);
        let listen = address(&process.listen);
        for version in ["HTTP/1", "HTTP/2"] {
            at_each_place(&process, reply.len() + 1, what, |place| {
                let body = format!("{{\"prompt\": \"{version}, stop at {place}\", \"stream\": {stream}}}");
                let bytes = if version == "HTTP/1" { http1(&run(), &body) } else { http2(&run(), &body, 65_535) };
                sends_and_stops(listen, bytes.clone(), bytes.len(), what)
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_client_may_stop_reading_at_any_byte_of_its_reply() {
    // More than the kernel takes for a client.
    let piece = format!("data: {{\"response\":\"{}\"}}\n\n", "x".repeat(60_000));
    let upstream = scripted::upstream(move |mut stream, _| {
        let chunk = scripted::chunk(&piece);
        async move {
            let _ = stream.write_all(scripted::EVENTS.as_bytes()).await;
            while stream.write_all(chunk.as_bytes()).await.is_ok() {}
        }
    })
    .await;
    let process = Process::serve(&format!("http://{upstream}"), &SHORT);
    let listen = address(&process.listen);
    for version in ["HTTP/1", "HTTP/2, window shut", "HTTP/2, window open"] {
        at_each_place(&process, 20_000, version, |place| async move {
            let body = format!("{{\"prompt\": \"{version} {place}\", \"stream\": true}}");
            let request = match version {
                "HTTP/1" => http1(&run(), &body),
                "HTTP/2, window shut" => http2(&run(), &body, 1000),
                _ => http2(&run(), &body, 1 << 30),
            };
            let mut stream = narrow(listen).await;
            let _ = stream.write_all(&request).await;
            let mut read = vec![0; place];
            let reading = stream.read_exact(&mut read);
            // With its window shut it may not get so far.
            let _ = tokio::time::timeout(Duration::from_secs(1), reading).await;
            // What is unread stays so until the gate has had enough of it.
            tokio::time::sleep(Duration::from_secs(2)).await;
        })
        .await;
    }
}

#[tokio::test]
async fn one_stream_that_is_not_read_does_not_take_the_connection_with_it() {
    let was_cut = std::sync::Arc::new(tokio::sync::Notify::new());
    let go_on = was_cut.clone();
    let upstream = scripted::upstream(move |mut stream, request| {
        let go_on = go_on.clone();
        async move {
            let _ = stream.write_all(scripted::EVENTS.as_bytes()).await;
            let chunk = scripted::chunk(&format!("data: {{\"response\":\"{}\"}}\n\n", "x".repeat(60_000)));
            if request.contains("without end") {
                while stream.write_all(chunk.as_bytes()).await.is_ok() {}
                return;
            }
            send(&mut stream, &scripted::chunk("data: {\"response\":\"first\"}\n\n")).await;
            go_on.notified().await;
            send(&mut stream, &scripted::chunk("data: [DONE]\n\n")).await;
            send(&mut stream, "0\r\n\r\n").await;
        }
    })
    .await;
    let (sidecar, receipts) = {
        let mut config = crate::support::config(&format!("http://{upstream}"));
        config.timeouts.send = Duration::from_secs(1);
        crate::support::start(config)
    };
    let client = crate::support::client_builder().http2_prior_knowledge().build().unwrap();
    let url = format!("http://{}{}", sidecar.listen(), run());
    let ask = |prompt: &str| {
        crate::support::ask(&client, &url, &serde_json::json!({"prompt": prompt, "stream": true})).send()
    };
    let mut quiet = ask("quiet").await.unwrap();
    assert!(quiet.chunk().await.unwrap().unwrap().ends_with(b"\"first\"}\n\n"));
    let unread = ask("without end").await.unwrap();
    receipts.after(1).await;
    was_cut.notify_one();
    let rest = quiet.bytes().await.unwrap();
    assert_eq!(rest, "data: [DONE]\n\n", "the other stream on the connection goes on");
    let cut = tokio::time::timeout(LONG, unread.bytes()).await.expect("it ends");
    assert!(cut.is_err(), "a stream that was cut must not look whole");
}

#[tokio::test]
async fn a_body_that_trickles_is_cut_though_it_never_pauses() {
    let vendor = vendor();
    let process = Process::serve(&vendor.base_url(), &SHORT);
    for path in [run(), "/client/v4/accounts/acc/ai/finetunes".into()] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer t\r\ncontent-length: 1000000\r\n\r\n{{\"prompt\": \""
        );
        let mut stream = TcpStream::connect(address(&process.listen)).await.unwrap();
        let _ = stream.write_all(head.as_bytes()).await;
        let (mut read, mut write) = stream.split();
        let mut reply = vec![0; 4096];
        let answered = tokio::select! {
            read = read.read(&mut reply) => read.unwrap_or(0),
            () = async { while write.write_all(b"x").await.is_ok() { tokio::time::sleep(Duration::from_millis(20)).await } } => 0,
            () = tokio::time::sleep(LONG) => panic!("{path}: still taken"),
        };
        let reply = String::from_utf8_lossy(&reply[..answered]);
        // What is sent after the end takes back what was told.
        assert!(reply.is_empty() || reply.contains("[timeouts] body"), "{path}: {reply}");
    }
}

#[tokio::test]
async fn a_call_that_no_limit_ends_is_ended_by_its_own() {
    let upstream = scripted::upstream(|mut stream, _| async move {
        let chunk = scripted::chunk("data: {\"response\":\"on and on\"}\n\n");
        let _ = stream.write_all(scripted::EVENTS.as_bytes()).await;
        while stream.write_all(chunk.as_bytes()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let short = SHORT.into_iter().chain([("TOLLGATE_TIMEOUTS_CALL", "1s")]).collect::<Vec<_>>();
    let process = Process::serve(&format!("http://{upstream}"), &short);
    let before = Held::by(&process).await;
    for request in [
        http1(&run(), "{\"prompt\": \"one\", \"stream\": true}"),
        http2(&run(), "{\"prompt\": \"two\", \"stream\": true}", 1 << 30),
    ] {
        let mut stream = TcpStream::connect(address(&process.listen)).await.unwrap();
        stream.write_all(&request).await.unwrap();
        let read = closed(&mut stream, "a stream without end").await;
        assert!(String::from_utf8_lossy(&read).contains("on and on"));
    }
    Held::is_back(&process, before, 2, "a stream without end").await;
}
