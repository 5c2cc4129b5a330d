//! Connections: heads of HTTP/1, the preface and frames of HTTP/2, and junk, through the real listener.

#![no_main]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tollgate::sidecar::Sidecar;
use tollgate::sidecar::config::{Config, Variables};

/// Longer is an answer that does not come.
const PATIENCE: Duration = Duration::from_secs(20);

static GATE: OnceLock<(Sidecar, [SocketAddr; 2])> = OnceLock::new();

/// The clients' port and the admin port of one gate, before an upstream that refuses.
fn ports() -> [SocketAddr; 2] {
    let start = || {
        let text = "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 1\n[retry]\nmax_attempts = 1\n\
            [upstream]\nbase_url = \"http://127.0.0.1:1\"\naccount_id = \"a\"\n";
        let gate = Sidecar::start(Config::parse(text, "fuzz").unwrap(), &Variables::new(), Vec::new()).unwrap();
        let ports = [gate.listen(), gate.admin()];
        (gate, ports)
    };
    GATE.get_or_init(start).1
}

fuzz_target!(|input: &[u8]| {
    let Some((pick, bytes)) = input.split_first() else { return };
    let mut socket = TcpStream::connect(ports()[usize::from(*pick) % 2]).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // A gate that has heard enough may close before all is said.
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(Shutdown::Write);
    let mut reply = Vec::new();
    match socket.read_to_end(&mut reply) {
        Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
            panic!("no end after {PATIENCE:?}, {} bytes came", reply.len());
        }
        _ => {}
    }
});
