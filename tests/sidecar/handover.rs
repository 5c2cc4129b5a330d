//! One gate after the other on the same socket, under load.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tollgate::simulator;

use crate::support::{LLAMA, Process, TOKEN, client_builder, command};

/// What the gate is started by: the socket is handed over as systemd hands it over.
const ACTIVATE: &str = "export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=listen; exec \"$0\" \"$@\" 3<&0 0</dev/null";

/// So many clients at a time, each with so long from call to call at least: some 200 calls a second.
const CLIENTS: usize = 40;
const EVERY: Duration = Duration::from_millis(100);
const REPLACEMENTS: usize = 4;

/// What became of the calls.
#[derive(Default)]
struct Calls {
    stop: AtomicBool,
    made: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

/// Calls again and again, every tenth time for a stream.
async fn call_on(client: reqwest::Client, url: String, calls: Arc<Calls>) {
    let mut clock = tokio::time::interval(EVERY);
    while !calls.stop.load(Ordering::Relaxed) {
        clock.tick().await;
        let number = calls.made.fetch_add(1, Ordering::Relaxed);
        let is_stream = number.is_multiple_of(10);
        let body = json!({"prompt": format!("call {number}"), "max_tokens": 20, "stream": is_stream});
        let answer = async {
            let reply = client.post(&url).bearer_auth(TOKEN).json(&body).send().await?;
            let status = reply.status();
            Ok::<_, reqwest::Error>((status, reply.text().await?))
        };
        match answer.await {
            Ok((status, said)) if status == 200 && (!is_stream || said.contains("[DONE]")) => {}
            other => calls.failures.lock().unwrap().push(format!("{number}: {other:?}")),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_is_replaced_under_load_without_one_call_that_fails() {
    let place = tempfile::tempdir().unwrap();
    let records = place.path().join("tollgate.db");
    let mut settings = simulator::Settings::default();
    (settings.latency, settings.rate_limits) = (0.05, false);
    let vendor = simulator::start(settings).unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/run/{LLAMA}", socket.local_addr().unwrap());
    let (base_url, path) = (vendor.base_url(), records.to_str().unwrap().to_owned());
    let serve = Arc::new(move || {
        let variables = [("TOLLGATE_RECORDS_PATH", path.as_str()), ("TOLLGATE_SHUTDOWN_TIMEOUT", "20s")];
        Process::serve_on(&["sh", "-c", ACTIVATE], &socket, &base_url, &variables)
    });
    let mut gate = serve();
    let (calls, mut load) = (Arc::<Calls>::default(), tokio::task::JoinSet::new());
    for number in 0..CLIENTS {
        // Half of them keep their connection, the others have a new one for each call.
        let kept = if number % 2 == 0 { 1 } else { 0 };
        let client = client_builder().pool_max_idle_per_host(kept).build().unwrap();
        load.spawn(call_on(client, url.clone(), calls.clone()));
    }
    for _ in 0..REPLACEMENTS {
        tokio::time::sleep(Duration::from_secs(1)).await;
        // The next one is there and waits, while the first still serves and writes the books.
        let serve = serve.clone();
        let next = tokio::task::spawn_blocking(move || serve());
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!next.is_finished(), "two gates write the same books");
        gate.terminate();
        assert!(gate.child.wait().unwrap().success());
        gate = next.await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    calls.stop.store(true, Ordering::Relaxed);
    load.join_all().await;
    gate.terminate();
    assert!(gate.child.wait().unwrap().success());
    let (made, failures) = (calls.made.load(Ordering::Relaxed), calls.failures.lock().unwrap().clone());
    println!("{made} calls, {} failures, over {REPLACEMENTS} replacements", failures.len());
    assert!(failures.is_empty(), "{} of {made} calls failed: {failures:?}", failures.len());
    // And the books have each of them once.
    let usage = command().args(["usage", "--json"]).env("TOLLGATE_RECORDS_PATH", records).output().unwrap();
    let rows: Vec<Value> = serde_json::from_slice(&usage.stdout).unwrap();
    assert_eq!(rows.iter().map(|row| row["calls"].as_u64().unwrap()).sum::<u64>(), made as u64);
}
