//! A full disk beside a budget: what could not be put on the books is not spent.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tollgate::simulator::Running;

use crate::mounts::Mounted;
use crate::support::{LLAMA, Process, ask, client, command_under, until, vendor};

/// Some 130 neurons a call; a lease runs 1% of this ahead.
const BUDGET: &str = r#"[{ name = "all", limit = "20000 neurons", window = "month" }]"#;
const LEASE: f64 = 200.0;
const CALL: f64 = 140.0;
/// The disk is full long before.
const MOST_CALLS: usize = 140;

struct Disk {
    process: Process,
    vendor: Running,
    client: reqwest::Client,
    asked: usize,
}

impl Disk {
    fn start(starter: &[&str], path: &Path) -> Self {
        let (vendor, path) = (vendor(), path.display().to_string());
        let variables =
            [("TOLLGATE_RECORDS_PATH", &*path), ("TOLLGATE_RECORDS_PAYLOADS", "true"), ("TOLLGATE_BUDGETS", BUDGET)];
        let process = Process::serve_under(starter, &vendor.base_url(), &variables);
        Self { process, vendor, client: client(), asked: 0 }
    }

    async fn ask(&mut self) -> u16 {
        self.asked += 1;
        // Nothing that could be made small.
        let mut state = self.asked as u64 + 1;
        let letters = (0..200_000).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'0' + (state >> 58) as u8)
        });
        let body = json!({"prompt": letters.collect::<String>(), "max_tokens": 2});
        ask(&self.client, &format!("{}/run/{LLAMA}", self.process.listen), &body)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    }

    async fn spent(&self) -> f64 {
        let reply = self.client.get(format!("{}/budgets", self.process.admin)).send().await.unwrap();
        let told: Value = serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap();
        told["budgets"][0]["spent_neurons"].as_f64().unwrap()
    }

    /// Until calls are refused for what the disk does not take.
    async fn fill(&mut self) {
        let mut refused = 0;
        while refused < 3 {
            assert!(self.asked < MOST_CALLS, "no call was refused");
            refused = match self.ask().await {
                200 => 0,
                503 => refused + 1,
                other => panic!("{other}"),
            };
        }
    }

    async fn is_on_the_books(&self) {
        let vendors = self.vendor.counts().neurons().as_f64();
        until(async || (self.spent().await - vendors).abs() < 1e-3).await;
    }

    /// Calls pass again within a while of there being room.
    async fn passes_again(&mut self) {
        for _ in 0..200 {
            if self.ask().await == 200 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("there is room, and no call passes");
    }
}

/// 6 MiB, most of them taken.
const SMALL: &str = "mount -t tmpfs -o size=6m none \"$0\" && head -c 4000000 /dev/zero > \"$0/ballast\"";

#[tokio::test]
async fn a_file_system_that_is_full_holds_the_budget_and_room_on_it_lets_calls_pass() {
    let place = tempfile::tempdir().unwrap();
    let Some(mounted) = Mounted::by(SMALL, place.path()) else { return };
    let starter = mounted.starter();
    let starter: Vec<_> = starter.iter().map(String::as_str).collect();
    let outside = |name: &str| mounted.outside(&place.path().join(name));
    let mut disk = Disk::start(&starter, &place.path().join("t.db"));
    disk.fill().await;
    disk.is_on_the_books().await;
    std::fs::remove_file(outside("ballast")).unwrap();
    disk.passes_again().await;
    disk.is_on_the_books().await;

    disk.process.kill();
    // Where not even the gate's own first lines go in.
    let _ = std::io::copy(&mut std::io::repeat(0), &mut std::fs::File::create(outside("more")).unwrap());
    let config = place.path().join("t.db").display().to_string();
    let mut again = command_under(&starter);
    again.arg("serve").envs([
        ("TOLLGATE_RECORDS_PATH", &*config),
        ("TOLLGATE_LISTEN", "127.0.0.1:0"),
        ("TOLLGATE_ADMIN", "127.0.0.1:0"),
        ("CLOUDFLARE_ACCOUNT_ID", "acc"),
    ]);
    let refused = again.output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("t.db: database or disk is full; make room on its disk"), "{said}");

    std::fs::remove_file(outside("more")).unwrap();
    disk.process.start_again();
    // The connections of the one before are dead.
    disk.client = client();
    disk.passes_again().await;
    // A lease may have run ahead of what was written, and of a call that the kill met.
    let (charged, spent) = (disk.vendor.counts().neurons().as_f64(), disk.spent().await);
    assert!(spent + 1e-3 >= charged && spent <= charged + LEASE + CALL, "{charged} charged, {spent} on the books");
}
