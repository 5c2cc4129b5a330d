//! A full disk beside a budget: what could not be put on the books is not spent.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tollgate::simulator::Running;

use crate::support::{LLAMA, Process, ask, client, until, vendor};

/// Some 130 neurons a call; a lease runs 1% of this ahead.
const BUDGET: &str = r#"[{ name = "all", limit = "20000 neurons", window = "month" }]"#;
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
                return self.is_on_the_books().await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("there is room, and no call passes");
    }
}

/// Whether a file system can be mounted here without being root.
fn can_mount() -> bool {
    Command::new("unshare")
        .args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"])
        .output()
        .is_ok_and(|run| run.status.success())
}

#[tokio::test]
async fn a_file_system_that_is_full_holds_the_budget_and_room_on_it_lets_calls_pass() {
    if !can_mount() {
        println!("left out: no file system can be mounted here");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().display().to_string();
    let script = "mount -t tmpfs -o size=6m none \"$0\" && head -c 4000000 /dev/zero > \"$0/ballast\" && exec \"$@\"";
    let mut disk = Disk::start(&["unshare", "-rm", "bash", "-c", script, &place], &directory.path().join("t.db"));
    disk.fill().await;
    disk.is_on_the_books().await;
    // The process sees the file system, and nobody else does.
    let inside = PathBuf::from(format!("/proc/{}/root{place}/ballast", disk.process.child.id()));
    std::fs::remove_file(inside).unwrap();
    disk.passes_again().await;
}
