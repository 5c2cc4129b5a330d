//! The connections to upstream: those that upstream has closed, and how many are kept.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http::Request;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tollgate::body::Body;
use tollgate::upstream::pool::Pool;
use tower::ServiceExt;

use crate::support::{LLAMA, ask, client, config, start};

const ANSWER: &str = r#"{"result":{"response":"Hi"},"success":true,"errors":[],"messages":[]}"#;
const LONG: Duration = Duration::from_secs(60);

/// What an upstream of raw sockets has seen.
#[derive(Clone, Default)]
struct Seen {
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

/// How it treats a connection after each answer.
#[derive(Clone)]
enum After {
    /// It closes it without having said so.
    Close,
    /// It keeps it. So many requests are answered together.
    Keep(Arc<Barrier>),
}

async fn upstream(after: After) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Seen::default());
    let counts = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (after, counts) = (after.clone(), counts.clone());
            counts.connections.fetch_add(1, Ordering::SeqCst);
            counts.open.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let _ = serve(stream, after, &counts).await;
                counts.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    (address, seen)
}

async fn serve(mut stream: TcpStream, after: After, counts: &Seen) -> std::io::Result<()> {
    loop {
        let mut request = Vec::new();
        let mut piece = [0; 4096];
        // These requests have a length, and are short.
        let whole = |request: &[u8]| {
            let text = String::from_utf8_lossy(request).to_ascii_lowercase();
            let (head, body) = text.split_once("\r\n\r\n")?;
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            (body.len() >= length.unwrap_or(0)).then_some(())
        };
        while whole(&request).is_none() {
            match stream.read(&mut piece).await? {
                0 => return Ok(()),
                read => request.extend_from_slice(&piece[..read]),
            }
        }
        counts.requests.fetch_add(1, Ordering::SeqCst);
        if let After::Keep(together) = &after {
            tokio::select! {
                _ = together.wait() => {}
                // Who asked has gone.
                _ = stream.read(&mut piece) => return Ok(()),
            }
        }
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", ANSWER.len());
        stream.write_all(format!("{head}{ANSWER}").as_bytes()).await?;
        if let After::Close = after {
            return stream.shutdown().await;
        }
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, waited).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn a_connection_that_upstream_has_closed_meanwhile_costs_no_call() {
    let (address, seen) = upstream(After::Close).await;
    let mut config = config(&format!("http://{address}"));
    config.workers = 1;
    let (gate, receipts) = start(config);
    let url = format!("http://{}/run/{LLAMA}", gate.listen());
    let client = client();
    for n in 1..=20 {
        let reply = ask(&client, &url, &json!({"prompt": format!("{n}")})).send().await.unwrap();
        assert_eq!(reply.status(), 200, "call {n}");
        assert_eq!(reply.text().await.unwrap(), ANSWER, "call {n}");
        until("upstream has closed it", || seen.open.load(Ordering::SeqCst) == 0).await;
    }
    let receipts = receipts.after(20).await;
    assert!(receipts.iter().all(|receipt| receipt.attempts.len() == 1), "none was tried again");
    let (connections, requests) = (seen.connections.load(Ordering::SeqCst), seen.requests.load(Ordering::SeqCst));
    assert_eq!((connections, requests), (20, 20), "each is sent once");
}

#[tokio::test]
async fn a_connection_is_used_again_and_no_more_are_kept_after_a_burst_than_are_needed() {
    const BURST: usize = 300;
    const KEPT: usize = 256;
    let together = Arc::new(Barrier::new(BURST));
    let (address, seen) = upstream(After::Keep(together)).await;
    let pool = Pool::new(LONG);
    let burst = || {
        join_all((0..BURST).map(|_| {
            let request = Request::post(format!("http://{address}/")).body(Body::from("{}")).unwrap();
            let pool = pool.clone();
            async move {
                let reply = pool.oneshot(request).await.unwrap();
                assert_eq!(reply.into_body().collect().await.unwrap().to_bytes(), ANSWER);
            }
        }))
    };
    tokio::time::timeout(LONG, burst()).await.expect("the burst is answered");
    assert_eq!(seen.connections.load(Ordering::SeqCst), BURST);
    until("those beyond are closed", || seen.open.load(Ordering::SeqCst) == KEPT).await;
    tokio::time::timeout(LONG, burst()).await.expect("the second burst is answered");
    assert_eq!(seen.connections.load(Ordering::SeqCst), BURST + (BURST - KEPT), "those that were kept are used again");
    assert_eq!(seen.requests.load(Ordering::SeqCst), 2 * BURST);
}

#[tokio::test]
async fn a_call_beyond_the_most_connections_is_told_so_after_the_time_for_a_connection() {
    let (address, seen) = upstream(After::Keep(Arc::new(Barrier::new(3)))).await;
    let pool = Pool::new(Duration::from_millis(300)).with_max_connections(2);
    let request = || Request::post(format!("http://{address}/")).body(Body::from("{}")).unwrap();
    let mut busy: Vec<_> = (0..2).map(|_| tokio::spawn(pool.clone().oneshot(request()))).collect();
    until("both are there", || seen.requests.load(Ordering::SeqCst) == 2).await;
    let Err(refused) = pool.clone().oneshot(request()).await else { panic!("there was no room") };
    assert_eq!(refused.status(), 503, "{refused}");
    assert!(refused.to_string().contains("connections to upstream"), "{refused}");
    assert_eq!(seen.connections.load(Ordering::SeqCst), 2);
    busy.drain(..).for_each(|call| call.abort());
    // What was given up gives its place back.
    until("they are gone", || seen.open.load(Ordering::SeqCst) == 0).await;
    let again = tokio::spawn(pool.oneshot(request()));
    until("there is room again", || seen.requests.load(Ordering::SeqCst) == 3).await;
    again.abort();
}
