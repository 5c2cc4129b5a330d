//! Requests as bytes, for peers that stop wherever a test wants them to, and what a gate's process holds.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{LLAMA, Process};

/// No test waits longer for what has to come. It is no promise of speed.
pub const LONG: Duration = Duration::from_secs(120);

/// A call in HTTP/1.1.
pub fn http1(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer t\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// The same in HTTP/2, from its preface on. `window` is what the client takes of a reply before it says more, in bytes.
pub fn http2(path: &str, body: &str, window: u32) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat()));
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("authorization", "Bearer t"),
        ("content-type", "application/json"),
        ("content-length", &body.len().to_string()),
    ];
    let block: Vec<u8> = headers.iter().flat_map(|(name, value)| literal(name, value)).collect();
    bytes.extend(frame(1, 4, 1, &block));
    bytes.extend(frame(0, 1, 1, body.as_bytes()));
    bytes
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header that is not to be indexed, with its name spelled out (RFC 7541, 6.2.2).
fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        assert!(text.len() < 127);
        [&[text.len() as u8][..], text.as_bytes()].concat()
    };
    [vec![0], text(name), text(value)].concat()
}

pub fn address(url: &str) -> SocketAddr {
    url.strip_prefix("http://").unwrap().parse().unwrap()
}

pub fn run() -> String {
    format!("/run/{LLAMA}")
}

/// A connection that takes little before it is read.
pub async fn narrow(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(to).await.unwrap()
}

/// Whatever the other side does, it has to close.
pub async fn closed(stream: &mut TcpStream, what: &str) -> Vec<u8> {
    let mut read = Vec::new();
    // A reset is an end too.
    let reading = async {
        let _ = stream.read_to_end(&mut read).await;
    };
    tokio::time::timeout(LONG, reading).await.unwrap_or_else(|_| panic!("still open: {what}"));
    read
}

/// What a gate holds that it has to give back.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub in_flight: u64,
    pub flights: u64,
    pub tasks: u64,
    pub body_bytes: u64,
    pub reserved: f64,
    pub descriptors: usize,
    pub resident_kib: u64,
}

impl Held {
    pub async fn by(process: &Process) -> Self {
        let metrics = shown(process, "/metrics").await;
        let gauge = |name: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name}")).parse::<f64>().unwrap() as u64
        };
        let budgets: serde_json::Value = serde_json::from_str(&shown(process, "/budgets").await).unwrap();
        let rows = budgets["budgets"].as_array().unwrap().iter();
        let pid = process.child.id();
        Self {
            in_flight: gauge("tollgate_in_flight_requests"),
            flights: gauge("tollgate_cache_flights"),
            tasks: gauge("tollgate_tasks"),
            body_bytes: gauge("tollgate_body_memory_bytes"),
            reserved: rows.map(|row| row["reserved_neurons"].as_f64().unwrap()).sum(),
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            resident_kib: resident_kib(pid),
        }
    }

    /// Waits until all is given back that was taken since `before`. Connections to upstream that lie idle may stay.
    pub async fn is_back(process: &Process, before: Self, idle: usize, what: &str) -> Self {
        let begun = std::time::Instant::now();
        loop {
            let now = Self::by(process).await;
            let is_free = (now.in_flight, now.flights, now.body_bytes) == (0, 0, 0) && now.reserved == 0.0;
            // An idle connection is one descriptor and one task.
            let is_closed = now.descriptors <= before.descriptors + idle && now.tasks <= before.tasks + idle as u64;
            if is_free && is_closed {
                return now;
            }
            assert!(begun.elapsed() < LONG, "{what}: {now:?} is held, {before:?} was before");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What the admin port shows. Where limits are short and the machine is slow, we may be the one who is let go.
async fn shown(process: &Process, path: &str) -> String {
    let client = crate::support::client();
    let begun = std::time::Instant::now();
    loop {
        let asked = async { client.get(format!("{}{path}", process.admin)).send().await?.text().await };
        match asked.await {
            Ok(shown) => return shown,
            Err(error) => assert!(begun.elapsed() < LONG, "{path}: {error:?}"),
        }
    }
}

pub fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A number from the environment.
pub fn count(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().map_or(default, |value| value.parse().unwrap())
}
