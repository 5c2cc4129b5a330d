//! The script on a real server, held to [`Memory`]'s answers step by step.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::local::Memory;
use super::{Exchange, Link};
use crate::layers::budget::{Register, RegisterSlot};
use crate::layers::rate_limit::{PARTS, Word};

/// A server of the test's own; it ends with it.
struct Server {
    child: Child,
    _place: tempfile::TempDir,
    url: String,
}

impl Server {
    /// `None` where no server is installed; `tests/all` sees to that.
    fn start() -> Option<Self> {
        let Some(at) = std::env::var_os("TOLLGATE_TEST_REDIS") else {
            assert!(std::env::var_os("TOLLGATE_TEST_ALL").is_none(), "TOLLGATE_TEST_REDIS is not set");
            eprintln!("left out: the script on a real server (tests/all installs what it needs)");
            return None;
        };
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("socket");
        let named = std::env::var_os("TOLLGATE_TEST_STORE_SERVER").map(std::path::PathBuf::from);
        let child = Command::new(named.unwrap_or_else(|| Path::new(&at).join("redis-server")))
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(&socket)
            .env("LD_LIBRARY_PATH", Path::new(&at).join("../lib/x86_64-linux-gnu"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let url = format!("redis+unix://{}", socket.display());
        let server = Self { child, _place: place, url };
        let is_up = |_: &u32| {
            std::thread::sleep(Duration::from_millis(10));
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        };
        (0..1000).find(is_up).unwrap();
        Some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn word(rng: &mut Rng, name: &str, number: u64) -> Word {
    let limit = [1, 5, 20, 300, 3000][rng.usize(..5)];
    let mut parts = [0; PARTS];
    for part in &mut parts {
        *part = rng.u32(0..=limit / 8 + 1);
    }
    Word {
        name: name.into(),
        limit,
        window_ms: [1000, 60_000][rng.usize(..2)],
        // Now and then one that comes too late.
        number: number.saturating_sub(if rng.u8(..20) == 0 { 3 } else { 0 }),
        held: parts.iter().sum(),
        parts,
        ask: if rng.u8(..10) == 0 { rng.u32(..2000) } else { rng.u32(..30) },
        first: if rng.u8(..10) == 0 { rng.u32(1..limit + 2) } else { 1 },
        waiting: rng.u32(..40),
        had: rng.u64(..40_000),
        refused: rng.u8(..40) == 0,
        hold_ms: if rng.u8(..40) == 0 { rng.u64(..3000) } else { 0 },
        is_unpaced: rng.u8(..10) == 0,
    }
}

fn register(rng: &mut Rng, bucket: &str, now: u64) -> Register {
    let limit = 1_000_000_000;
    let slot = |rng: &mut Rng, n: u64| {
        let spent = rng.u64(..limit / 8);
        let used = spent + rng.u64(..limit / 16);
        let upto = used + rng.u64(..limit / 8);
        let [spent, used, held, upto] = [spent, used, rng.u64(..=upto), upto].map(crate::neurons::Neurons::from_micro);
        let start_ms = now / 60_000 * 60_000 + n;
        RegisterSlot { start_ms, expires_ms: start_ms + 60_000, spent, used, upto, held }
    };
    Register {
        budget: "b".into(),
        bucket: bucket.into(),
        limit: crate::neurons::Neurons::from_micro(limit),
        now_ms: now - rng.u64(..3000),
        is_restored: rng.u8(..10) == 0,
        slots: (0..rng.u64(1..3)).map(|n| slot(rng, n)).collect(),
    }
}

#[tokio::test]
async fn the_script_answers_as_the_model_does_step_by_step() {
    let Some(server) = Server::start() else { return };
    let rounds: u64 = std::env::var("TOLLGATE_SCRIPT_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(20);
    for seed in 0..rounds {
        let mut rng = Rng::with_seed(seed);
        let link = Link::new(&server.url, &format!("fleet-{seed}"), Duration::from_secs(20)).unwrap();
        let (mut memory, mut fleets) = (Memory::default(), vec![Arc::<str>::from(""); 5]);
        let (mut now, mut run) = (1_700_000_000_000, 1);
        for step in 1..200 {
            let longest = [10, 2000, 40_000][rng.usize(..3)];
            now += rng.u64(..longest);
            // The clock is set back, and the server is another.
            now -= if rng.u8(..40) == 0 { rng.u64(..20_000) } else { 0 };
            run += u64::from(rng.u8(..60) == 0);
            let who = rng.usize(..5);
            let words = (0..rng.usize(..3)).map(|n| word(&mut rng, ["a/b", "a/c", "k"][n], step));
            let words = words.collect();
            let exchange = Exchange {
                id: format!("gate-{who}#{}", rng.u8(..2)).into(),
                who: format!("gate-{who}").into(),
                keep_ms: 30_000,
                fleet: fleets[who].clone(),
                since_ms: [0, rng.u64(1..3000)][rng.usize(..2)],
                is_leaving: rng.u8(..30) == 0,
                words,
                registers: (0..rng.usize(..3)).map(|n| (step, register(&mut rng, ["", "a"][n], now))).collect(),
            };
            let run = format!("{run:012}");
            let expected = memory.step(&exchange, now, &run);
            let answered = link.exchange_at(&exchange, now, &run).await.unwrap();
            assert_eq!(answered, expected, "seed {seed}, step {step}: {exchange:#?}");
            fleets[who] = answered.fleet;
        }
    }
}
