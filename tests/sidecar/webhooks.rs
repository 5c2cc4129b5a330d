//! Webhooks on real sockets: what is told, signed how, and what a bad server costs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tollgate::layers::budget::{Period, Rule, Share, Split};
use tollgate::neurons::Neurons;
use tollgate::sidecar::config::Config;
use tollgate::simulator;

use crate::support::{
    GEMMA, Gate, LLAMA, Process, TOKEN, ask, client, command, config, keep_of_the_past, start_with, until, vendor,
};

const SECRET: &str = "a secret of the operator's";

/// What a webhook's server was sent.
#[derive(Clone, Debug)]
struct Sent {
    headers: http::HeaderMap,
    body: String,
}

type Inbox = Arc<Mutex<Vec<Sent>>>;

/// A server that answers with these statuses, one after the other, and then with the last of them.
async fn server(statuses: &'static [u16]) -> (SocketAddr, Inbox) {
    let (inbox, next) = (Inbox::default(), Arc::new(AtomicUsize::new(0)));
    let kept = inbox.clone();
    let take = move |headers: http::HeaderMap, body: String| {
        kept.lock().unwrap().push(Sent { headers, body });
        let status = statuses[next.fetch_add(1, Ordering::SeqCst).min(statuses.len() - 1)];
        async move { http::StatusCode::from_u16(status).unwrap() }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().route("/hook", axum::routing::post(take));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, inbox)
}

async fn arrived(inbox: &Inbox, count: usize) -> Vec<Sent> {
    arrived_within(inbox, count, Duration::from_secs(15)).await
}

async fn arrived_within(inbox: &Inbox, count: usize, patience: Duration) -> Vec<Sent> {
    let began = std::time::Instant::now();
    while began.elapsed() < patience {
        let sent = inbox.lock().unwrap().clone();
        if sent.len() >= count {
            return sent;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{count} events did not arrive in {patience:?}: {:?}", inbox.lock().unwrap());
}

fn webhooks(config: &mut Config, text: &str) {
    config.webhooks = Config::parse(text, "test").unwrap().webhooks;
}

fn body() -> Value {
    json!({"prompt": "hello", "max_tokens": 100})
}

#[tokio::test]
async fn a_warning_is_told_once_signed_and_again_until_it_is_taken() {
    let (address, inbox) = server(&[500, 200]).await;
    let gate = Gate::with(vendor(), |config| {
        let mut rule = Rule::new("everyone", Neurons::from_whole(6), Period::Month);
        rule.warn_at = vec![Share::try_from(0.1).unwrap()];
        config.budgets.push(rule);
        webhooks(
            config,
            &format!("[[webhooks]]\nurl = \"http://{address}/hook\"\nname = \"ops\"\nsecret = \"{SECRET}\"\n"),
        );
    });
    while gate.run(LLAMA, &body()).await.status() == 200 {}
    let sent = arrived(&inbox, 3).await;
    let types: Vec<Value> =
        sent.iter().map(|sent| serde_json::from_str::<Value>(&sent.body).unwrap()["type"].clone()).collect();
    assert_eq!(types, ["budget.warned", "budget.warned", "budget.exceeded"], "the first one was not taken at first");
    let event: Value = serde_json::from_str(&sent[1].body).unwrap();
    assert_eq!(
        (&event["data"]["budget"], &event["data"]["limit_neurons"]),
        (&json!("everyone"), &json!(6.0)),
        "{event}"
    );
    assert!(event["text"].as_str().unwrap().contains("10% of the budget"), "{event}");
    assert_eq!(sent[0].headers["webhook-id"], sent[1].headers["webhook-id"], "the same event has the same name");
    for Sent { headers, body } in &sent {
        let text = |name: &str| headers[name].to_str().unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(format!("{}.{}.{body}", text("webhook-id"), text("webhook-timestamp")).as_bytes());
        assert_eq!(text("webhook-signature"), format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())));
    }
    // The second one is counted when its answer is here.
    let delivered = "tollgate_webhook_events_total{result=\"delivered\",webhook=\"ops\"} 2";
    let mut metrics = gate.metrics().await;
    for _ in 0..2000 {
        if metrics.contains(delivered) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        metrics = gate.metrics().await;
    }
    for line in [
        "tollgate_events_total{event=\"budget.warned\"} 1",
        "tollgate_events_total{event=\"upstream.down\"} 0",
        delivered,
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    assert!(!metrics.contains(SECRET) && !metrics.contains("/hook"));
}

/// A server of raw sockets: `serve` has each connection to itself.
fn raw(serve: impl Fn(std::net::TcpStream) + Send + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

#[tokio::test]
async fn servers_that_hang_refuse_or_take_a_byte_a_second_cost_calls_nothing() {
    let held = Arc::new(AtomicUsize::new(0));
    let counted = held.clone();
    let hangs = raw(move |mut stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        let _ = stream.read(&mut [0; 1]);
        std::thread::sleep(Duration::from_secs(60));
    });
    let drips = raw(|mut stream| {
        for byte in b"HTTP/1.1 200 OK\r\n\r\n" {
            let _ = stream.read(&mut [0; 1]);
            std::thread::sleep(Duration::from_secs(1));
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
        }
    });
    let refuses = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (address, inbox) = server(&[204]).await;
    let gate = Gate::with(vendor(), |config| {
        // Each caller has a bucket, which two calls use up: more events than all queues hold.
        let mut rule = Rule::new("each", Neurons::from_whole(3), Period::Month);
        (rule.split_by, rule.warn_at) = (vec![Split::Metadata("n".into())], vec![Share::try_from(0.01).unwrap()]);
        config.budgets.push(rule);
        let each = [hangs, drips, refuses, address]
            .map(|address| format!("[[webhooks]]\nurl = \"http://{address}/hook\"\nname = \"{}\"\n", address.port()));
        webhooks(config, &each.concat());
    });
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..700 {
        let asked = gate.post(&format!("/run/{LLAMA}"), &body()).header("cf-aig-metadata", json!({"n": n}).to_string());
        calls.spawn(async move { asked.send().await.unwrap().status().as_u16() });
        if n % 50 == 49 {
            while let Some(status) = calls.join_next().await {
                assert_eq!(status.unwrap(), 200);
            }
        }
    }
    // The good server heard it while the others held their connections.
    arrived(&inbox, 256).await;
    assert_eq!(held.load(Ordering::SeqCst), 1, "one event at a time, and it is still held");
    let metrics = gate.metrics().await;
    let value = |line: &str| {
        let found = metrics.lines().find_map(|found| found.strip_prefix(line));
        found.unwrap_or_else(|| panic!("no {line}")).trim().parse::<u64>().unwrap()
    };
    assert_eq!(value("tollgate_events_total{event=\"budget.warned\"}"), 700);
    let lost = value(&format!("tollgate_webhook_events_total{{result=\"dropped\",webhook=\"{}\"}}", hangs.port()));
    assert!((700 - 2 * 256 - 2..=700).contains(&lost), "{lost} of 700 were lost, of which 256 wait");
    let began = std::time::Instant::now();
    gate.sidecar.join().unwrap();
    assert!(began.elapsed() < Duration::from_secs(20), "the gate ends all the same");
}

#[tokio::test]
async fn a_reply_tells_what_the_tightest_budget_has_left_where_that_is_asked() {
    let gate = Gate::with(vendor(), |config| {
        config.budgets.push(Rule::new("wide", Neurons::from_whole(1_000), Period::Month));
        config.budgets.push(Rule::new("tight", Neurons::from_whole(5), Period::Day));
        config.reservations.headers = true;
    });
    let mut last = 5.0;
    let refused = loop {
        let reply = gate.run(LLAMA, &body()).await;
        let number = |name: &str| reply.headers()[name].to_str().unwrap().parse::<f64>().unwrap();
        let (left, reset) = (number("x-tollgate-budget-remaining"), number("x-tollgate-budget-reset"));
        assert!(left <= last && (1.0..=86_400.0).contains(&reset), "{left} left after {last}, for {reset} s");
        if reply.status() != 200 {
            break reply.status().as_u16();
        }
        last = left + 2.0;
    };
    assert_eq!(refused, 429);
    let silent = Gate::start();
    assert!(!silent.run(LLAMA, &body()).await.headers().contains_key("x-tollgate-budget-remaining"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_tries_each_webhook_and_shows_no_secret() {
    let (address, inbox) = server(&[200]).await;
    let refuses = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!(
        "[[webhooks]]\nurl = \"http://{address}/hook\"\nname = \"good\"\nevents = [\"budget.exceeded\"]\nsecret_env = \"HOOK\"\n\
         [[webhooks]]\nurl = \"http://{refuses}/s3cret-path\"\nname = \"bad\"\nsecret = \"{SECRET}\"\n"
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let run = |args: &[&str], hook: Option<&str>| {
        let mut command = command();
        command.args(args).arg("--config").arg(file.path()).env_remove("HOOK");
        hook.map(|secret| command.env("HOOK", secret));
        let output = command.output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        for secret in [SECRET, "s3cret-path", "/hook", "another-long-secret"] {
            assert!(!said.contains(secret), "{said}");
        }
        (output.status.code().unwrap(), said)
    };
    let hook = Some("another-long-secret");
    let (code, said) = tokio::task::block_in_place(|| run(&["webhooks", "test"], hook));
    assert!(code == 1 && said.contains("good: took it") && said.contains("bad: "), "{code} {said}");
    assert!(arrived(&inbox, 1).await[0].body.contains("\"type\":\"test\""));
    let (code, said) = run(&["check"], None);
    assert!(code == 2 && said.contains("HOOK"), "{code} {said}");
    assert_eq!(run(&["check"], hook).0, 0);
    assert_eq!(run(&["check"], Some("short")).0, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_price_that_the_vendor_lists_anew_and_a_model_that_goes_are_told() {
    let (address, inbox) = server(&[200]).await;
    let mut settings = simulator::Settings::default();
    (settings.latency, settings.rate_limits) = (0.0, false);
    let soon = std::time::SystemTime::now() + Duration::from_secs(5 * 86400);
    let soon = humantime::format_rfc3339_seconds(soon).to_string();
    let models = json!({
        LLAMA: {"prices": {"input_token": 4000, "output_token": 40_000}},
        GEMMA: {"deprecated": &soon[..10]},
    });
    settings.models = serde_json::from_value(models).unwrap();
    let vendor = simulator::start(settings).unwrap();
    let mut config = config(&vendor.base_url());
    config.catalogue.refresh = Duration::from_secs(3600);
    let events = r#"events = ["price.drift", "model.leaving"]"#;
    webhooks(&mut config, &format!("[[webhooks]]\nurl = \"http://{address}/hook\"\n{events}\n"));
    let (sidecar, _) = start_with(config, &vec![("CLOUDFLARE_API_TOKEN".into(), TOKEN.into())]);
    // A model that is in use is told of with the days that are left.
    let url = format!("http://{}/run/{GEMMA}", sidecar.listen());
    client().post(url).json(&body()).send().await.unwrap().bytes().await.unwrap();
    let mut told = Vec::new();
    for _ in 0..12_000 {
        told = inbox.lock().unwrap().iter().map(|sent| serde_json::from_str::<Value>(&sent.body).unwrap()).collect();
        let has = |kind: &str, name: &str| {
            let is_of = |event: &Value| event["type"] == kind && event["text"].as_str().unwrap().contains(name);
            told.iter().any(is_of)
        };
        if has("price.drift", LLAMA) && has("model.leaving", GEMMA) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not all was told in two minutes: {told:?}");
}

#[tokio::test]
async fn webhooks_follow_a_reload_and_a_wrong_one_changes_nothing() {
    let (first, told_first) = server(&[200]).await;
    let (second, told_second) = server(&[200]).await;
    let delivered = |count| format!("tollgate_webhook_events_total{{result=\"delivered\",webhook=\"ops\"}} {count}");
    let to = |address: SocketAddr| format!("[[webhooks]]\nurl = \"http://{address}/hook\"\nname = \"ops\"\n");
    let gate = Gate::with(vendor(), |config| {
        let mut rule = Rule::new("everyone", Neurons::from_whole(6), Period::Month);
        rule.warn_at = vec![Share::try_from(0.1).unwrap()];
        config.budgets.push(rule);
        webhooks(config, &to(first));
    });
    while !gate.metrics().await.contains("tollgate_events_total{event=\"budget.warned\"} 1") {
        assert_eq!(gate.run(LLAMA, &body()).await.status(), 200);
    }
    until(async || gate.metrics().await.contains(&delivered(1))).await;
    let mut config = gate.sidecar.config();
    webhooks(&mut config, &(to(second) + &to(first)));
    assert!(gate.sidecar.put(config.clone()).unwrap_err().to_string().contains("is there twice"));
    webhooks(&mut config, &to(second));
    let reloaded = gate.sidecar.put(config).unwrap();
    assert_eq!((reloaded.changed, reloaded.needs_restart), (vec!["webhooks".to_owned()], vec![]));
    while gate.run(LLAMA, &body()).await.status() == 200 {}
    let told = arrived(&told_second, 1).await;
    assert!(told[0].body.contains("budget.exceeded"), "{told:?}");
    assert_eq!(told_first.lock().unwrap().len(), 1);
    // The counts of one that has kept its name go on.
    until(async || gate.metrics().await.contains(&delivered(2))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_spends_far_over_a_habit_is_told_once_by_log_metric_and_webhook() {
    let (address, inbox) = server(&[200]).await;
    let directory = tempfile::tempdir().unwrap();
    let records = directory.path().join("records.db");
    keep_of_the_past(&records, LLAMA, (1..=10).map(|day| (day, Neurons::from_micro(1000 + day))));
    let hooks = format!("[{{url = \"http://{address}/hook\", events = [\"spending.unusual\"]}}]");
    let vendor = vendor();
    let variables = [("TOLLGATE_RECORDS_PATH", records.to_str().unwrap()), ("TOLLGATE_WEBHOOKS", &*hooks)];
    let mut process = Process::serve(&vendor.base_url(), &variables);
    let call = || async {
        let url = format!("{}/run/{LLAMA}", process.listen);
        assert_eq!(ask(&client(), &url, &body()).send().await.unwrap().status(), 200);
    };
    call().await;
    let told = arrived_within(&inbox, 2, Duration::from_secs(120)).await;
    let told: Vec<Value> = told.iter().map(|sent| serde_json::from_str(&sent.body).unwrap()).collect();
    let names: Vec<_> =
        told.iter().map(|event| (event["data"]["what"].as_str(), event["data"]["name"].as_str())).collect();
    assert_eq!(
        names,
        [(Some("model"), Some(LLAMA)), (Some("key"), Some(""))],
        "calls without a key are told of as one"
    );
    for event in &told {
        assert_eq!(event["type"], "spending.unusual", "{event}");
        assert!(event["data"]["today_neurons"].as_f64() > event["data"]["usual_neurons"].as_f64(), "{event}");
    }
    let metrics = client().get(format!("{}/metrics", process.admin)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("tollgate_events_total{event=\"spending.unusual\"} 2"), "{metrics}");
    assert!(metrics.contains("tollgate_month_forecast_high_neurons "), "{metrics}");
    // It goes on, is looked at again, and is not told again.
    call().await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(inbox.lock().unwrap().len(), 2);
    process.terminate();
    assert!(process.child.wait().unwrap().success());
    let mut log = String::new();
    process.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(log.matches("spending is unusual: ").count(), 2, "{log}");
}
