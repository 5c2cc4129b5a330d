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
        let shared = format!("[replicas]\nstore = \"{}\"\nname = \"{name}\"\ntimeout = \"2s\"\n", redis.url());
        let text =
            format!("[limits.models.{LLAMA:?}]\nrequests = 30000\n{}", if name == "alone" { "" } else { &shared });
        let own = Config::parse(&text, "test").unwrap();
        config.limits.models.extend(own.limits.models);
        config.replicas = own.replicas;
        start(config).0
    };
    let gates = ["a", "b", "c", "alone"].map(gate);
    let client = client();
    let call = |gate: usize, n: usize| {
        let (client, url) = (client.clone(), format!("http://{}/run/{LLAMA}", gates[gate].listen()));
        async move {
            let body = json!({"prompt": format!("call {gate} {n}"), "max_tokens": 1});
            let began = Instant::now();
            let status = client.post(url).bearer_auth("t").json(&body).send().await.unwrap().status().as_u16();
            (status, began.elapsed())
        }
    };
    for gate in 0..gates.len() {
        until(async || call(gate, 0).await.0 == 200).await;
    }
    // Everything is said once a second by who holds anything: without calls, that is what is left.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, began) = (runs(&redis), Instant::now());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let beats = (runs(&redis) - before) / began.elapsed().as_secs_f64();
    println!("without calls: {beats:.1} exchanges a second of three gates");

    let (before, began) = (runs(&redis), Instant::now());
    for n in 1..=300 {
        assert_eq!(call(0, n).await.0, 200);
    }
    let (after, took) = (runs(&redis), began.elapsed().as_secs_f64());
    let one = (after - before - beats * took) / 300.0;
    println!("one call at a time at one gate: {one:.2} a call beside those, in {took:.1} s");

    let (before, began) = (runs(&redis), Instant::now());
    let times = at_200_a_second(|n| call(1, n)).await;
    let (after, took) = (runs(&redis), began.elapsed().as_secs_f64());
    let many = (after - before - beats * took) / 1000.0;
    let passed = times.len();
    println!("{:.0} calls a second at one gate: {many:.3} a call beside those, {passed} of 1000 passed", 1000.0 / took);
    println!("microseconds of the script: {}", self::times(&redis));
    println!(
        "a call at 200 a second took {} with the store, {} without",
        told(times),
        told(at_200_a_second(|n| call(3, n)).await)
    );
    let scraped =
        client.get(format!("http://{}/metrics", gates[1].admin())).send().await.unwrap().text().await.unwrap();
    let figure = |name: &str| -> f64 {
        let line = scraped.lines().find_map(|line| line.strip_prefix(name)?.rsplit(' ').next()?.parse().ok());
        line.unwrap_or_default()
    };
    let trip = figure("tollgate_store_round_trip_seconds_total") / figure("tollgate_store_round_trips_total") * 1e6;
    println!("microseconds of an exchange with the store, as the gate sees it: {trip:.0}");
    assert_eq!(passed, 1000);
    assert!(one <= 1.1 && many < 0.5, "{one} and {many} exchanges a call");
}

/// Of a thousand, how long those took that passed.
async fn at_200_a_second<C: Future<Output = (u16, Duration)> + Send + 'static>(
    call: impl Fn(usize) -> C,
) -> Vec<Duration> {
    let (began, mut calls) = (Instant::now(), JoinSet::new());
    for n in 1..=1000 {
        tokio::time::sleep_until((began + Duration::from_millis(5) * n).into()).await;
        calls.spawn(call(n as usize));
    }
    calls.join_all().await.into_iter().filter(|(status, _)| *status == 200).map(|(_, took)| took).collect()
}

fn told(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    format!("{:?} (p50), {:?} (p99)", times[times.len() / 2], times[times.len() * 99 / 100])
}
