//! A hostile crowd beside honest callers: nobody honest is refused, the gate's memory is bounded, health answers.
//!
//! `TOLLGATE_HOSTILE=10000` for the whole crowd, `TOLLGATE_HOSTILE_SECONDS=30` for as long; both ends are on this machine, so
//! `ulimit -n` must be over the number. The figures are printed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::support::{Process, ask, client_builder, vendor};
use crate::wire::{Held, address, count, http1, http2, resident_kib, run};

/// Calls a second of the honest.
const RATE: u64 = 50;

struct Honest {
    asked: usize,
    /// Why, of each that was refused.
    refused: Vec<String>,
    sorted: Vec<Duration>,
}

impl Honest {
    fn p99(&self) -> Duration {
        self.sorted[self.sorted.len() * 99 / 100]
    }
}

/// Honest calls at an even pace, each on a connection of its own or on a kept one, by turns.
async fn honest(url: &str, lasts: Duration, name: &str) -> Honest {
    let kept = client_builder().build().unwrap();
    let (mut pace, begun) = (tokio::time::interval(Duration::from_millis(1000 / RATE)), Instant::now());
    let mut calls = JoinSet::new();
    let mut asked = 0;
    while begun.elapsed() < lasts {
        pace.tick().await;
        asked += 1;
        let client = if asked % 2 == 0 { kept.clone() } else { client_builder().build().unwrap() };
        let (url, body) = (url.to_owned(), json!({"prompt": format!("{name} {asked}")}));
        calls.spawn(async move {
            let begun = Instant::now();
            let refused = match ask(&client, &url, &body).send().await {
                Ok(reply) if reply.status() == 200 => reply.bytes().await.err().map(|error| format!("{error:?}")),
                Ok(reply) => Some(reply.text().await.unwrap_or_default()),
                Err(error) => Some(format!("{error:?}")),
            };
            (refused, begun.elapsed())
        });
    }
    let ended = calls.join_all().await;
    let mut sorted: Vec<_> = ended.iter().map(|(_, took)| *took).collect();
    sorted.sort();
    Honest { asked, refused: ended.into_iter().filter_map(|(refused, _)| refused).collect(), sorted }
}

/// Opens connections of one kind for as long as the test lasts: each that is closed is opened again.
async fn hostile(number: usize, to: SocketAddr, open: Arc<AtomicUsize>) {
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        let source = SocketAddr::from(([127, 0, 1, (number % 100) as u8 + 1], 0));
        let _ = socket.set_recv_buffer_size(4096);
        if let (Ok(()), Ok(stream)) = (socket.bind(source), socket.connect(to).await) {
            open.fetch_add(1, Ordering::Relaxed);
            // However it ends.
            let _ = misbehave(number, stream).await;
            open.fetch_sub(1, Ordering::Relaxed);
        }
        // A crowd that holds connections, not a flood of new ones: 10,000 of them still make some hundreds a second.
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

async fn misbehave(number: usize, mut stream: TcpStream) -> std::io::Result<()> {
    let question = format!("{{\"prompt\": \"{number}\", \"stream\": true}}");
    let mut rest = [0; 256];
    match number % 8 {
        // Silent, from the first byte or after a preface.
        0 => {}
        1 => stream.write_all(b"PRI ").await?,
        2 => stream.write_all(&http2("/x", "", 0)[..40]).await?,
        // A head, and a body, that trickle.
        3 | 4 => {
            let request = http1(&run(), &"x".repeat(1000));
            let begin = if number % 8 == 3 { 1 } else { request.len() - 990 };
            stream.write_all(&request[..begin]).await?;
            for byte in &request[begin..] {
                tokio::time::sleep(Duration::from_secs(1)).await;
                stream.write_all(&[*byte]).await?;
            }
        }
        // Half of a request, and no more words.
        5 => {
            stream.write_all(&http1(&run(), &question)[..60]).await?;
            stream.shutdown().await?;
        }
        // A reply that is not read.
        6 => {
            let request = if number % 16 == 6 { http1(&run(), &question) } else { http2(&run(), &question, 0) };
            stream.write_all(&request).await?;
            return std::future::pending().await;
        }
        // Junk.
        _ => {
            stream.write_all(&[b"\x16\x03\x01\x02\x00\x01\x00"[..].to_vec(), vec![number as u8; 300]].concat()).await?
        }
    }
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_crowd_costs_the_others_nothing() {
    let crowd = count("TOLLGATE_HOSTILE", 400);
    let lasts = Duration::from_secs(count("TOLLGATE_HOSTILE_SECONDS", 4) as u64);
    let vendor = vendor();
    let process = Process::serve(&vendor.base_url(), &[("TOLLGATE_LOG_LEVEL", "error")]);
    let url = format!("{}{}", process.listen, run());
    let alone = honest(&url, lasts, "alone").await;
    let open = Arc::new(AtomicUsize::new(0));
    let mut hostiles = JoinSet::new();
    for number in 0..crowd {
        hostiles.spawn(hostile(number, address(&process.listen), open.clone()));
    }
    let begun = Instant::now();
    while open.load(Ordering::Relaxed) < crowd * 9 / 10 && begun.elapsed() < Duration::from_secs(30) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let watched = open.load(Ordering::Relaxed);
    let health = async {
        let client = client_builder().build().unwrap();
        let (mut slowest, mut most) = (Duration::ZERO, 0);
        loop {
            let begun = Instant::now();
            let reply = client.get(format!("{}/healthz", process.admin)).send().await.unwrap();
            assert_eq!(reply.status(), 200);
            slowest = slowest.max(begun.elapsed());
            most = most.max(resident_kib(process.child.id()));
            if begun.elapsed() < Duration::from_millis(100) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            HEALTH.store(slowest.as_micros() as usize, Ordering::Relaxed);
            RESIDENT.store(most as usize, Ordering::Relaxed);
        }
    };
    let beside = tokio::select! {
        beside = honest(&url, lasts, "beside") => beside,
        () = health => unreachable!("it goes on"),
    };
    let resident_mib = RESIDENT.load(Ordering::Relaxed) / 1024;
    println!(
        "{crowd} hostile, {watched} open: {} of {} others refused ({} alone), p99 {:?} beside {:?} alone, {resident_mib} MiB, \
         health within {:?}, {} descriptors",
        beside.refused.len(),
        beside.asked,
        alone.refused.len(),
        beside.p99(),
        alone.p99(),
        Duration::from_micros(HEALTH.load(Ordering::Relaxed) as u64),
        Held::by(&process).await.descriptors,
    );
    assert!(alone.refused.is_empty() && beside.refused.is_empty(), "{:#?} {:#?}", alone.refused, beside.refused);
    assert!(resident_mib < 300, "{resident_mib} MiB");
}

static HEALTH: AtomicUsize = AtomicUsize::new(0);
static RESIDENT: AtomicUsize = AtomicUsize::new(0);
