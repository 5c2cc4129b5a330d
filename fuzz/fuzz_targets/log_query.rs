//! The log API: paths, queries and bodies, on a gate that keeps records.

#![no_main]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tollgate::sidecar::Sidecar;
use tollgate::sidecar::config::{Config, Variables};

static GATE: OnceLock<(Sidecar, tempfile::TempDir, SocketAddr)> = OnceLock::new();

fn admin() -> SocketAddr {
    let start = || {
        let place = tempfile::tempdir().unwrap();
        let text = format!(
            "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 1\n[upstream]\nbase_url = \"http://127.0.0.1:1\"\n\
             account_id = \"a\"\n[records]\npath = {:?}\n",
            place.path().join("records.db")
        );
        let gate = Sidecar::start(Config::parse(&text, "fuzz").unwrap(), &Variables::new(), Vec::new()).unwrap();
        let admin = gate.admin();
        (gate, place, admin)
    };
    GATE.get_or_init(start).2
}

fuzz_target!(|input: &[u8]| {
    let mut lines = input.splitn(2, |byte| *byte == b'\n');
    let (target, body) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let method = ["GET", "PATCH", "DELETE"][target.len() % 3];
    // What is no byte of a target is heads' business.
    let target: String = target.iter().filter(|byte| byte.is_ascii_graphic()).map(|byte| char::from(*byte)).collect();
    let address = admin();
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!(
        "{method} /logs{target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let _ = socket.write_all(&[head.as_bytes(), body].concat());
    let mut reply = Vec::new();
    let _ = socket.read_to_end(&mut reply);
    assert!(reply.starts_with(b"HTTP/1.1 "), "{:?} to {head:?}", String::from_utf8_lossy(&reply));
    assert!(!reply.starts_with(b"HTTP/1.1 5"), "{} to {head:?}", String::from_utf8_lossy(&reply));
});
