//! What it costs to share: exchanges with the store a call, and the store's time for each, on a real Redis. Asked for by
//! `TOLLGATE_REPLICA_COSTS=1`, for the figures depend on how fast the machine is.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tollgate::sidecar::Sidecar;
use tollgate::sidecar::config::Config;

use crate::redis::Redis;
use crate::support::{LLAMA, client, config, start, until, vendor};

/// What the store says of its script: how often it ran.
fn runs(redis: &Redis) -> f64 {
    let stats = redis.ask(&["INFO", "commandstats"]);
    let line = stats.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap_or_default();
    let calls = line.split([':', ',']).find_map(|part| part.strip_prefix("calls="));
    calls.and_then(|calls| calls.parse().ok()).unwrap_or_default()
}

/// How long it took, in microseconds: half of them, and all but one of a hundred.
fn times(redis: &Redis) -> String {
    let stats = redis.ask(&["INFO", "latencystats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix("latency_percentiles_usec_evalsha:"));
    line.unwrap_or("not told by this store").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_costs_no_more_exchanges_with_the_store_than_is_told() {
    if std::env::var_os("TOLLGATE_REPLICA_COSTS").is_none() {
        return;
    }
    let Some(redis) = Redis::start() else { return };
    let vendor = vendor();
    let gate = |name: &str| -> Sidecar {
        let mut config = config(&vendor.base_url());
        let text = format!(
            "[limits.models.{LLAMA:?}]\nrequests = 30000\n[replicas]\nstore = \"{}\"\nname = \"{name}\"\ntimeout = \"2s\"\n",
            redis.url()
        );
        let own = Config::parse(&text, "test").unwrap();
        config.limits.models.extend(own.limits.models);
        config.replicas = own.replicas;
        start(config).0
    };
    let gates = ["a", "b", "c"].map(gate);
    let client = client();
    let call = |gate: usize, n: usize| {
        let (client, url) = (client.clone(), format!("http://{}/run/{LLAMA}", gates[gate].listen()));
        async move {
            let body = json!({"prompt": format!("call {gate} {n}"), "max_tokens": 1});
            client.post(url).bearer_auth("t").json(&body).send().await.unwrap().status().as_u16()
        }
    };
    for gate in 0..gates.len() {
        until(async || call(gate, 0).await == 200).await;
    }
    // Everything is said once a second by who holds anything: without calls, that is what is left.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, began) = (runs(&redis), Instant::now());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let beats = (runs(&redis) - before) / began.elapsed().as_secs_f64();
    println!("without calls: {beats:.1} exchanges a second of three gates");

    let (before, began) = (runs(&redis), Instant::now());
    for n in 1..=300 {
        assert_eq!(call(0, n).await, 200);
    }
    let (after, took) = (runs(&redis), began.elapsed().as_secs_f64());
    let one = (after - before - beats * took) / 300.0;
    println!("one call at a time at one gate: {one:.2} a call beside those, in {took:.1} s");

    let (before, began, mut calls) = (runs(&redis), Instant::now(), JoinSet::new());
    for n in 1..=1000 {
        tokio::time::sleep_until((began + Duration::from_millis(5) * n).into()).await;
        calls.spawn(call(1, n as usize));
    }
    let passed = calls.join_all().await.into_iter().filter(|status| *status == 200).count();
    let (after, took) = (runs(&redis), began.elapsed().as_secs_f64());
    let many = (after - before - beats * took) / 1000.0;
    println!("{:.0} calls a second at one gate: {many:.3} a call beside those, {passed} of 1000 passed", 1000.0 / took);
    println!("microseconds of the script: {}", times(&redis));
    assert_eq!(passed, 1000);
    assert!(one <= 1.1 && many < 0.5, "{one} and {many} exchanges a call");
}
