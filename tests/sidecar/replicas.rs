//! Several gates before one account, which share its limits through a real Redis.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tollgate::sidecar::Sidecar;
use tollgate::sidecar::config::Config;
use tollgate::simulator::{self, Running};

use crate::redis::Redis;
use crate::support::{LLAMA, ask, client, command, config, start};

/// A stand-in that enforces the vendor's limit of 300 a minute, as the vendor does.
fn vendor() -> Running {
    let mut settings = simulator::Settings::default();
    settings.latency = 0.0;
    simulator::start(settings).unwrap()
}

fn gate(vendor: &Running, redis: &Redis, name: &str, max_wait: &str, more: &str) -> Sidecar {
    let mut config = config(&vendor.base_url());
    let text = format!(
        "[limits]\nmax_wait = \"{max_wait}\"\n[replicas]\nstore = \"{}\"\nname = \"{name}\"\ntimeout = \"2s\"\n{more}",
        redis.url()
    );
    let own = Config::parse(&text, "test").unwrap();
    (config.limits, config.replicas) = (own.limits, own.replicas);
    start(config).0
}

struct Answers {
    passed: usize,
    refused: usize,
}

/// So many at once at each of these gates, for a while.
async fn flood(gates: &[(&Sidecar, usize)], lasts: Duration) -> Answers {
    let (until, mut calls) = (Instant::now() + lasts, JoinSet::new());
    for (gate, at_once) in gates {
        for _ in 0..*at_once {
            let url = format!("http://{}/run/{LLAMA}", gate.listen());
            calls.spawn(async move {
                let (client, mut answers) = (client(), Answers { passed: 0, refused: 0 });
                while Instant::now() < until {
                    let reply = ask(&client, &url, &json!({"prompt": "x", "max_tokens": 1})).send().await.unwrap();
                    match reply.status().as_u16() {
                        200 => answers.passed += 1,
                        429 => {
                            answers.refused += 1;
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                        other => panic!("{other}: {}", reply.text().await.unwrap()),
                    }
                }
                answers
            });
        }
    }
    let all = calls.join_all().await;
    Answers { passed: all.iter().map(|a| a.passed).sum(), refused: all.iter().map(|a| a.refused).sum() }
}

async fn ready(gate: &Sidecar) -> String {
    client().get(format!("http://{}/readyz", gate.admin())).send().await.unwrap().text().await.unwrap()
}

async fn metrics(gate: &Sidecar) -> String {
    client().get(format!("http://{}/metrics", gate.admin())).send().await.unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_gates_that_are_flooded_hold_to_one_limit() {
    let Some(redis) = Redis::start() else { return };
    let vendor = vendor();
    let gates = ["a", "b", "c"].map(|name| gate(&vendor, &redis, name, "0s", ""));
    // Each alone would let through half of its limit at once, and all three half as much again as there is.
    let at_once = [(&gates[0], 10), (&gates[1], 2), (&gates[2], 1)];
    let answers = flood(&at_once, Duration::from_secs(8)).await;
    let counts = vendor.counts();
    assert_eq!(counts.rate_limited, 0, "of {} attempts", counts.attempts);
    assert_eq!(counts.attempts, answers.passed as u64);
    assert!((150..=300).contains(&answers.passed), "{} passed, {} refused", answers.passed, answers.refused);
    assert!(answers.refused > 0);
    assert!(ready(&gates[0]).await.contains("shared through the store"));
    let metrics = metrics(&gates[0]).await;
    for line in ["tollgate_store_up 1", "tollgate_replicas 3", "tollgate_store_lost_total{why=\"memory\"} 0"] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_store_forgets_or_cannot_say_passes_no_limit() {
    let Some(mut redis) = Redis::start() else { return };
    let vendor = vendor();
    let gates = ["a", "b"].map(|name| gate(&vendor, &redis, name, "0s", ""));
    let at_once = [(&gates[0], 4), (&gates[1], 4)];
    let first = flood(&at_once, Duration::from_secs(4)).await;
    assert!(first.passed >= 150, "{}", first.passed);
    // Forgotten scripts are said again, and a forgotten window is not taken for an empty one.
    redis.ask(&["SCRIPT", "FLUSH"]);
    redis.ask(&["FLUSHALL"]);
    let second = flood(&at_once, Duration::from_secs(4)).await;
    redis.kill();
    let third = flood(&at_once, Duration::from_secs(4)).await;
    assert!(ready(&gates[0]).await.contains("is away"), "{}", ready(&gates[0]).await);
    redis.start_again();
    let fourth = flood(&at_once, Duration::from_secs(4)).await;
    let passed = [first.passed, second.passed, third.passed, fourth.passed];
    assert_eq!(vendor.counts().rate_limited, 0, "{passed:?}");
    assert!(passed.iter().sum::<usize>() <= 300, "{passed:?}");
    assert!(ready(&gates[0]).await.contains("shared through the store"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_without_its_store_does_what_its_rule_says() {
    let Some(mut redis) = Redis::start() else { return };
    redis.kill();
    let vendor = vendor();
    for (rule, may_pass) in [("keep", false), ("closed", false), ("open", true)] {
        let gate = gate(&vendor, &redis, "a", "0s", &format!("on_store_loss = \"{rule}\"\n"));
        let url = format!("http://{}/run/{LLAMA}", gate.listen());
        // The first answer of the store's, or the lack of it, is waited for.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let reply = ask(&client(), &url, &json!({"prompt": "x", "max_tokens": 1})).send().await.unwrap();
        assert_eq!(reply.status() == 200, may_pass, "{rule}: {}", reply.text().await.unwrap());
        assert!(ready(&gate).await.contains("is away"), "{}", ready(&gate).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_that_is_told_to_stop_leaves_what_it_had_to_the_others() {
    let Some(redis) = Redis::start() else { return };
    let vendor = vendor();
    let [one, other] = ["a", "b"].map(|name| gate(&vendor, &redis, name, "10s", ""));
    let answers = flood(&[(&one, 2), (&other, 2)], Duration::from_secs(2)).await;
    assert!(answers.passed > 0);
    one.join().unwrap();
    let list = redis.ask(&["--raw", "GET", "tollgate:{tollgate}:fleet"]);
    assert!(!list.contains("a#") && list.contains("b#"), "{list:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gates_that_share_a_budget_spend_it_once() {
    let Some(redis) = Redis::start() else { return };
    let vendor = crate::support::vendor();
    let rule = "[[budgets]]\nname = \"all\"\nlimit = \"40 neurons\"\nwindow = \"day\"\n";
    let gate = |name: &str| {
        let mut config = config(&vendor.base_url());
        let text = format!("{rule}[replicas]\nstore = \"{}\"\nname = \"{name}\"\ntimeout = \"2s\"\n", redis.url());
        let own = Config::parse(&text, "test").unwrap();
        (config.budgets, config.replicas) = (own.budgets, own.replicas);
        start(config).0
    };
    let gates = ["a", "b", "c"].map(gate);
    let call = |gate: &Sidecar, n: usize| {
        let url = format!("http://{}/run/{LLAMA}", gate.listen());
        async move {
            let body = json!({"prompt": format!("call {n}"), "max_tokens": 20});
            ask(&client(), &url, &body).send().await.unwrap().status().as_u16()
        }
    };
    // Each alone has room for some hundred of them.
    let mut passed = 0;
    let mut calls = JoinSet::new();
    for n in 0..300 {
        calls.spawn(call(&gates[n % 3], n));
        if n % 20 == 19 {
            while let Some(status) = calls.join_next().await {
                passed += usize::from(status.unwrap() == 200);
            }
        }
    }
    for n in 300..360 {
        passed += usize::from(call(&gates[n % 3], n).await == 200);
    }
    let (spent, limit) = (vendor.spent("acc").as_f64(), 40.0);
    println!("{passed} passed, {spent} of {limit} neurons spent");
    assert!(spent <= limit, "{spent} of {limit}");
    assert!(spent >= 0.9 * limit, "{spent} of {limit}, {passed} passed");
    let redis_has = redis.ask(&["KEYS", "*budget*"]);
    assert!(redis_has.contains("budget:all"), "{redis_has}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_and_a_limit_that_a_reload_brings_or_changes_are_shared_from_then_on() {
    const OTHER: &str = "@cf/meta/llama-3.1-8b-instruct-fp8-fast";
    let Some(redis) = Redis::start() else { return };
    let vendor = crate::support::vendor();
    let with = |name: &str, more: &str| {
        let mut config = config(&vendor.base_url());
        let text = format!(
            "{more}[limits]\nmax_wait = \"0s\"\n[replicas]\nstore = \"{}\"\nname = \"{name}\"\ntimeout = \"2s\"\n",
            redis.url()
        );
        let own = Config::parse(&text, "test").unwrap();
        (config.budgets, config.replicas, config.limits.max_wait) = (own.budgets, own.replicas, own.limits.max_wait);
        config.limits.models.extend(own.limits.models);
        config
    };
    let gates = ["a", "b"].map(|name| (name, start(with(name, "")).0));
    let put = |more: &str| {
        for (name, gate) in &gates {
            tokio::task::block_in_place(|| gate.put(with(name, more))).unwrap();
        }
    };
    let passed = |model: &'static str, calls: usize| {
        let urls = [0, 1].map(|n: usize| format!("http://{}/run/{model}", gates[n].1.listen()));
        async move {
            let (client, mut passed) = (client(), 0);
            for n in 0..calls {
                let body = json!({"prompt": format!("call {n}"), "max_tokens": 20});
                passed += usize::from(ask(&client, &urls[n % 2], &body).send().await.unwrap().status() == 200);
            }
            passed
        }
    };
    // A store that was never used grants nothing for two seconds.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(passed(LLAMA, 20).await, 20);
    let budget = |limit: u32| {
        format!("[[budgets]]\nname = \"all\"\nlimit = \"{limit} neurons\"\nwindow = \"day\"\nmodels = [{LLAMA:?}]\n")
    };
    let before = vendor.spent("acc").as_f64();
    for limit in [15, 25] {
        put(&budget(limit));
        passed(LLAMA, 150).await;
        let (mut spent, limit) = (0.0, f64::from(limit));
        for _ in 0..20 {
            // What one gate has ahead it gives back with its next word.
            tokio::time::sleep(Duration::from_millis(1500)).await;
            passed(LLAMA, 20).await;
            spent = vendor.spent("acc").as_f64() - before;
            if spent >= 0.9 * limit {
                break;
            }
        }
        assert!((0.9 * limit..=limit).contains(&spent), "{spent} of {limit}");
    }
    assert_eq!(passed(OTHER, 40).await, 40);
    put(&format!("[limits.models.{OTHER:?}]\nrequests = 60\n"));
    let more = passed(OTHER, 100).await;
    // What was taken before counts, and half of a limit may be taken at once.
    assert!(more <= 60, "{more} passed with a limit of 60");
    put(&format!("[limits.models.{OTHER:?}]\nrequests = 600\n"));
    // One a second came free before, and ten do now, however many calls a second this machine makes.
    let (began, mut more) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(4) {
        more += passed(OTHER, 20).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    assert!(more as f64 > 3.0 * seconds, "{more} passed in {seconds} s with a limit of 600");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_there_and_what_they_hold_is_listed() {
    let Some(redis) = Redis::start() else { return };
    let list = |arguments: &[&str]| {
        let mut command = command();
        command.env("TOLLGATE_REPLICAS_STORE", redis.url()).arg("replicas").args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(list(&[]).contains("no gate has been heard of"));
    let vendor = vendor();
    let gates = ["a", "b"].map(|name| {
        let mut config = config(&vendor.base_url());
        let rule = "[[budgets]]\nname = \"all\"\nlimit = \"40 neurons\"\nwindow = \"day\"\n";
        let text = format!("{rule}[replicas]\nstore = \"{}\"\nname = \"{name}\"\n", redis.url());
        let own = Config::parse(&text, "test").unwrap();
        (config.budgets, config.replicas, config.limits) = (own.budgets, own.replicas, own.limits);
        start(config).0
    });
    // A store that was never used grants nothing for two seconds.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    for gate in &gates {
        let url = format!("http://{}/run/{LLAMA}", gate.listen());
        for n in 0..3 {
            let body = json!({"prompt": format!("call {n}"), "max_tokens": 5});
            assert_eq!(ask(&client(), &url, &body).send().await.unwrap().status(), 200);
        }
    }
    // What was used is told with the next word, a second later at most.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let all: serde_json::Value = serde_json::from_str(&list(&["--json"])).unwrap();
    let names: Vec<_> = all["gates"].as_array().unwrap().iter().map(|gate| gate["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b"], "{all}");
    assert_eq!(all["limits"][0]["limit"], format!("acc/{LLAMA}"), "{all}");
    assert_eq!((&all["limits"][0]["gates"][0]["held"], &all["is_partial"]), (&json!(3), &json!(false)), "{all}");
    let of = |gate: usize| all["budgets"][0]["gates"][gate]["spent_neurons"].as_f64().unwrap();
    assert!((of(0) + of(1) - vendor.spent("acc").as_f64()).abs() < 1e-6, "{all}");
    let text = list(&[]);
    assert!(text.contains("a  heard") && text.contains("6 in its window") && text.contains("budget all/day"), "{text}");
}

#[test]
fn a_store_that_cannot_be_used_is_told_of_with_the_mend() {
    let Some(redis) = Redis::start() else { return };
    redis.ask(&["ACL", "SETUSER", "poor", "on", ">right", "~tollgate:*", "+get", "+set", "+time", "+info"]);
    let (vendor, port) = (vendor(), redis.port);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (url, what) in [
        (format!("redis://poor:s3cret@127.0.0.1:{port}"), "is the password in [replicas] store right?"),
        (format!("redis://poor:right@127.0.0.1:{port}"), "its ACL must allow EVALSHA"),
        (format!("rediss://127.0.0.1:{port}"), "does it speak TLS?"),
        (format!("redis://127.0.0.1:{free}"), "does a Redis or Valkey listen there?"),
        (format!("redis://{}", vendor.address()), "is it a Redis or a Valkey?"),
    ] {
        for arguments in [&["check", "--connect"][..], &["replicas"]] {
            let mut command = command();
            command.env("TOLLGATE_REPLICAS_STORE", &url).env("TOLLGATE_REPLICAS_TIMEOUT", "1s").args(arguments);
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{url}: {said}");
            assert!(said.contains(what) && !said.contains("s3cret"), "{url}: {said}");
        }
    }
}

/// What `check --connect` says of the store at this URL, which it finds unusable.
fn said_of(url: &str) -> String {
    let mut command = command();
    command.env("TOLLGATE_REPLICAS_STORE", url).env("TOLLGATE_REPLICAS_TIMEOUT", "2s").args(["check", "--connect"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{url}: {said}");
    said
}

#[test]
fn a_store_that_is_full_or_cannot_write_is_told_of_with_the_mend() {
    let Some(redis) = Redis::start() else { return };
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    let said = said_of(&redis.url());
    assert!(said.contains("its maxmemory is reached: give it more"), "{said}");
    redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    // It cannot save, as on a full disk, and takes no writes from then on.
    redis.ask(&["CONFIG", "SET", "save", "3600 1"]);
    redis.ask(&["CONFIG", "SET", "appendonly", "no"]);
    redis.forget_place();
    redis.ask(&["BGSAVE"]);
    let has_failed = |_: &u32| {
        std::thread::sleep(Duration::from_millis(20));
        redis.ask(&["INFO", "persistence"]).contains("rdb_last_bgsave_status:err")
    };
    (0..1000).find(has_failed).unwrap();
    let said = said_of(&redis.url());
    assert!(said.contains("it cannot write to its disk"), "{said}");
}

#[test]
fn a_store_whose_certificate_is_nobodys_is_told_of_with_the_mend() {
    if std::env::var_os("TOLLGATE_TEST_STORE_SERVER").is_some() {
        // It may be built without TLS.
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name).display().to_string();
    let own = rcgen::generate_simple_self_signed(vec!["elsewhere.test".to_owned()]).unwrap();
    std::fs::write(at("cert"), own.cert.pem()).unwrap();
    std::fs::write(at("key"), own.signing_key.serialize_pem()).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (cert, key, tls) = (at("cert"), at("key"), port.to_string());
    let words = ["--tls-port", &tls, "--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &cert];
    let Some(redis) = Redis::start_with(&[&words[..], &["--tls-auth-clients", "no"]].concat()) else { return };
    let said = said_of(&format!("rediss://localhost:{port}"));
    assert!(said.contains("its certificate must be for this name"), "{said}");
    drop(redis);
}
