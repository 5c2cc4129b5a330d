//! Limits besides the models' own, which several gates share through a real Redis.

use std::num::NonZeroU32;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tollgate::layers::identify::keys::{Key, sha256};
use tollgate::receipt::Facts;
use tollgate::sidecar::Sidecar;
use tollgate::sidecar::config::Config;
use tollgate::simulator::Running;

use crate::redis::Redis;
use crate::support::{LLAMA, Receipts, client, command, config, start_with, tool, vendor};

const KEYS: [&str; 3] = ["door", "slow", "free"];

fn gate(vendor: &Running, redis: &Redis, name: &str, limits: &str) -> (Sidecar, Receipts) {
    let mut config = config(&vendor.base_url());
    let text = format!(
        "[limits]\nmax_wait = \"0s\"\n{limits}[replicas]\nstore = \"{}\"\nname = \"{name}\"\ntimeout = \"2s\"\n",
        redis.url()
    );
    let own = Config::parse(&text, "test").unwrap();
    (config.replicas, config.limits.max_wait, config.limits.keys) =
        (own.replicas, own.limits.max_wait, own.limits.keys);
    config.limits.models.extend(own.limits.models);
    config.keys = KEYS.map(|name| Key::new(name, sha256(name))).into();
    config.keys[0].requests_per_minute = NonZeroU32::new(20);
    start_with(config, &vec![("CLOUDFLARE_API_TOKEN".to_owned(), "t".to_owned())])
}

/// How many of so many calls with this key pass, which go to the gates in turn.
async fn passed(gates: &[(Sidecar, Receipts)], key: &'static str, calls: usize) -> usize {
    let mut all = JoinSet::new();
    let mut passed = 0;
    for n in 0..calls {
        let url = format!("http://{}/run/{LLAMA}", gates[n % gates.len()].0.listen());
        all.spawn(async move {
            let body = json!({"prompt": format!("call {n}"), "max_tokens": 20});
            let call = client().post(&url).bearer_auth(key).json(&body);
            let reply = call.send().await.unwrap();
            let status = reply.status().as_u16();
            assert!(status == 200 || status == 429 && reply.headers().contains_key("retry-after"), "{status}");
            status == 200
        });
        if all.len() == 10 || n + 1 == calls {
            while let Some(did_pass) = all.join_next().await {
                passed += usize::from(did_pass.unwrap());
            }
        }
    }
    passed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_keys_are_held_by_all_gates_together() {
    let Some(redis) = Redis::start() else { return };
    let vendor = vendor();
    let gates: Vec<_> = ["a", "b", "c"]
        .map(|name| gate(&vendor, &redis, name, "[limits.keys.slow]\nrequests = 40\nper = \"1h\"\n"))
        .into();
    // A store that was never used grants nothing for two seconds.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    // All of a key's own requests may come at once, and those of a limit by half.
    let door = passed(&gates, "door", 90).await;
    assert!((18..=20).contains(&door), "{door} of 20 passed");
    let slow = passed(&gates, "slow", 90).await;
    assert!((18..=22).contains(&slow), "{slow} of 20 passed");
    assert_eq!(passed(&gates, "free", 30).await, 30);
    assert_eq!(vendor.counts().attempts, (door + slow + 30) as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_models_tokens_are_held_by_all_gates_together_and_put_right() {
    let Some(redis) = Redis::start() else { return };
    let vendor = vendor();
    let limits = format!("[limits.models.{LLAMA:?}]\nrequests = 1000000\ntokens = 2000\nper = \"1h\"\n");
    let gates: Vec<_> = ["a", "b", "c"].map(|name| gate(&vendor, &redis, name, &limits)).into();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let mut all = 0;
    for _ in 0..4 {
        all += passed(&gates, "free", 60).await;
    }
    let of = |facts: &Facts| facts.usage.input_tokens + facts.usage.output_tokens;
    let used: u64 = gates.iter().flat_map(|(_, receipts)| receipts.all()).map(|facts| of(&facts)).sum();
    // Half of them may go at once. A call is held to what it may use, and then to what it did.
    assert!(used <= 1100, "{used} tokens in {all} calls");
    assert!(used >= 700, "{used} tokens in {all} calls");
}

#[test]
fn the_demo_of_several_gates_passes_no_limit_and_no_budget() {
    let mut none = command();
    none.args(["demo", "--replicas", "3", "--for", "1s"]);
    let output = none.env("PATH", "/nowhere").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("https://valkey.io/download"), "{said}");
    let Some(bin) = tool("TOLLGATE_TEST_REDIS", "the demo of several gates") else { return };
    let temporary = tempfile::tempdir().unwrap();
    let mut command = command();
    command.args(["demo", "--replicas", "3", "--for", "20s"]).env("PATH", &bin).env("TMPDIR", temporary.path());
    let output = command.env("LD_LIBRARY_PATH", format!("{bin}/../lib/x86_64-linux-gnu")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(!said.contains(" 0 used in the fullest minute") && !said.contains("0.000 spent"), "{said}");
    for line in ["429s        0 from upstream", "overspent   0 neurons", "killed      1 gate"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "the demo left something behind");
}
