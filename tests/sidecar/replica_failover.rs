//! Stores of more than one server: Sentinels that name the primary, and a cluster whose nodes name each other.

use std::time::{Duration, Instant};

use serde_json::json;
use tollgate::sidecar::Sidecar;
use tollgate::sidecar::config::Config;
use tollgate::simulator::{self, Running};

use crate::proxy::{Proxy, Way};
use crate::redis::Redis;
use crate::support::{LLAMA, ask, client, config, start, until};

/// A stand-in that enforces the vendor's limit of 300 a minute, as the vendor does.
fn vendor() -> Running {
    let mut settings = simulator::Settings::default();
    settings.latency = 0.0;
    simulator::start(settings).unwrap()
}

fn gate(vendor: &Running, store: &str, name: &str) -> Sidecar {
    let mut config = config(&vendor.base_url());
    let text =
        format!("[limits]\nmax_wait = \"0s\"\n[replicas]\nstore = \"{store}\"\nname = \"{name}\"\ntimeout = \"2s\"\n");
    let own = Config::parse(&text, "test").unwrap();
    (config.limits, config.replicas) = (own.limits, own.replicas);
    start(config).0
}

/// How many calls pass in a while at all of these gates.
async fn flood(gates: &[Sidecar], lasts: Duration) -> usize {
    let (until, client, mut passed) = (Instant::now() + lasts, client(), 0);
    while Instant::now() < until {
        for gate in gates {
            let url = format!("http://{}/run/{LLAMA}", gate.listen());
            let reply = ask(&client, &url, &json!({"prompt": "x", "max_tokens": 1})).send().await.unwrap();
            passed += usize::from(reply.status() == 200);
        }
    }
    passed
}

async fn is_shared(gate: &Sidecar) -> bool {
    let ready = client().get(format!("http://{}/readyz", gate.admin())).send().await.unwrap().text().await.unwrap();
    ready.contains("shared through the store")
}

async fn lost_memory(gate: &Sidecar) -> bool {
    let url = format!("http://{}/metrics", gate.admin());
    let metrics = client().get(url).send().await.unwrap().text().await.unwrap();
    metrics.lines().any(|line| line == "tollgate_store_lost_total{why=\"memory\"} 1")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_lacks_the_last_seconds_takes_over_and_no_limit_is_passed() {
    let Some(mut primary) = Redis::start() else { return };
    // What the copy is told passes here, so that it can be held up.
    let way = Proxy::before(primary.port);
    let Some(copy) = Redis::start_with(&["--replicaof", "127.0.0.1", &way.port.to_string()]) else { return };
    let Some(sentinel) = Redis::sentinel(primary.port) else { return };
    until(async || copy.ask(&["INFO", "replication"]).contains("master_link_status:up")).await;
    until(async || sentinel.ask(&["SENTINEL", "replicas", "primary"]).contains(&copy.port.to_string())).await;
    let vendor = vendor();
    let store = format!("redis+sentinel://127.0.0.1:{}/primary", sentinel.port);
    let gates = ["a", "b"].map(|name| gate(&vendor, &store, name));
    let first = flood(&gates, Duration::from_millis(2500)).await;
    way.set(Way::Stop);
    let second = flood(&gates, Duration::from_secs(2)).await;
    way.set(Way::Cut);
    primary.kill();
    let third = flood(&gates, Duration::from_secs(2)).await;
    for gate in &gates {
        until(async || is_shared(gate).await && lost_memory(gate).await).await;
    }
    let fourth = flood(&gates, Duration::from_secs(3)).await;
    assert!(copy.ask(&["INFO", "replication"]).contains("role:master"));
    let passed = [first, second, third, fourth];
    println!("passed {passed:?}");
    assert_eq!(vendor.counts().rate_limited, 0, "{passed:?}");
    assert!(first + second > 50, "{passed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gates_that_know_any_node_of_a_cluster_share_a_limit() {
    let more = ["--cluster-enabled", "yes"];
    let (Some(one), Some(other)) = (Redis::start_with(&more), Redis::start_with(&more)) else { return };
    other.ask(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    one.ask(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string()]);
    let knows = async || one.ask(&["CLUSTER", "INFO"]).contains("cluster_slots_ok:16384");
    until(knows).await;
    until(async || one.ask(&["GET", "x"]).contains("MOVED")).await;
    let vendor = vendor();
    let gates = ["a", "b"].map(|name| gate(&vendor, &one.url(), name));
    for gate in &gates {
        until(async || is_shared(gate).await).await;
    }
    let passed = flood(&gates, Duration::from_secs(5)).await;
    assert_eq!(vendor.counts().rate_limited, 0, "{passed} passed");
    assert!((100..=300).contains(&passed), "{passed}");
    assert!(other.ask(&["KEYS", "*fleet"]).contains("fleet"));
}
