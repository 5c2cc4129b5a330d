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

/// Has clients call while one gate after the other serves; `replace` makes the next one from the one that serves.
async fn replace_under_load<F: Future<Output = Process>>(
    mut gate: Process,
    url: String,
    records: &std::path::Path,
    replace: impl Fn(Process) -> F,
) {
    let (calls, mut load) = (Arc::<Calls>::default(), tokio::task::JoinSet::new());
    for number in 0..CLIENTS {
        // Half of them keep their connection, the others have a new one for each call.
        let kept = if number % 2 == 0 { 1 } else { 0 };
        let client = client_builder().pool_max_idle_per_host(kept).build().unwrap();
        load.spawn(call_on(client, url.clone(), calls.clone()));
    }
    for _ in 0..REPLACEMENTS {
        tokio::time::sleep(Duration::from_secs(1)).await;
        gate = replace(gate).await;
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

fn patient_vendor() -> simulator::Running {
    let mut settings = simulator::Settings::default();
    (settings.latency, settings.rate_limits) = (0.05, false);
    simulator::start(settings).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_is_replaced_under_load_without_one_call_that_fails() {
    let place = tempfile::tempdir().unwrap();
    let records = place.path().join("tollgate.db");
    let vendor = patient_vendor();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/run/{LLAMA}", socket.local_addr().unwrap());
    let (base_url, path) = (vendor.base_url(), records.to_str().unwrap().to_owned());
    let serve = Arc::new(move || {
        let variables = [("TOLLGATE_RECORDS_PATH", path.as_str()), ("TOLLGATE_SHUTDOWN_TIMEOUT", "20s")];
        Process::serve_on(&["sh", "-c", ACTIVATE], &socket, &base_url, &variables)
    });
    let replace = |mut gate: Process| {
        // The next one is there and waits, while the first still serves and writes the books.
        let serve = serve.clone();
        async move {
            let next = tokio::task::spawn_blocking(move || serve());
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert!(!next.is_finished(), "two gates write the same books");
            gate.terminate();
            assert!(gate.child.wait().unwrap().success());
            next.await.unwrap()
        }
    };
    replace_under_load(serve(), url, &records, replace).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_gate_takes_the_ports_of_the_one_before_under_load_without_one_call_that_fails() {
    let place = tempfile::tempdir().unwrap();
    let records = place.path().join("tollgate.db");
    let offer = place.path().join("next.sock");
    let vendor = patient_vendor();
    let (base_url, path) = (vendor.base_url(), records.to_str().unwrap().to_owned());
    let path_of_offer = offer.to_str().unwrap().to_owned();
    // Gates with more and with fewer workers than the one before.
    let number = Arc::new(AtomicUsize::new(0));
    let serve = Arc::new(move || {
        let workers = ["2", "3", "1"][number.fetch_add(1, Ordering::Relaxed) % 3];
        let variables = [
            ("TOLLGATE_RECORDS_PATH", path.as_str()),
            ("TOLLGATE_HANDOVER_PATH", path_of_offer.as_str()),
            ("TOLLGATE_WORKERS", workers),
            ("TOLLGATE_SHUTDOWN_TIMEOUT", "20s"),
        ];
        Process::serve(&base_url, &variables)
    });
    let replace = |mut gate: Process| {
        let (serve, offer) = (serve.clone(), offer.clone());
        async move {
            let (listen, admin) = (gate.listen.clone(), gate.admin.clone());
            // One that asks and leaves takes nothing.
            drop(std::os::unix::net::UnixStream::connect(offer).unwrap());
            let next = tokio::task::spawn_blocking(move || serve());
            let ended = tokio::task::spawn_blocking(move || gate.child.wait().unwrap()).await.unwrap();
            assert!(ended.success(), "the gate before: {ended}");
            let next = next.await.unwrap();
            assert_eq!((&next.listen, &next.admin), (&listen, &admin));
            next
        }
    };
    let gate = serve();
    let url = format!("{}/run/{LLAMA}", gate.listen);
    replace_under_load(gate, url, &records, replace).await;
    assert!(!offer.exists(), "a gate that has ended leaves its place behind");
}

#[tokio::test]
async fn a_next_gate_that_cannot_serve_leaves_the_one_before_as_it_is() {
    let place = tempfile::tempdir().unwrap();
    let offer = place.path().join("next.sock").to_str().unwrap().to_owned();
    let vendor = patient_vendor();
    let gate = Process::serve(&vendor.base_url(), &[("TOLLGATE_HANDOVER_PATH", &offer)]);
    let mut next = command();
    next.args(["serve", "--upstream", &vendor.base_url()])
        .env("TOLLGATE_HANDOVER_PATH", &offer)
        .env("TOLLGATE_TLS_CERT", place.path().join("none.pem"))
        .env("TOLLGATE_TLS_KEY", place.path().join("none.pem"))
        .env("TOLLGATE_RECORDS_PATH", "")
        .env("TOLLGATE_LISTEN", "127.0.0.1:0")
        .env("TOLLGATE_ADMIN", "127.0.0.1:0");
    let output = next.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    let ready = crate::support::client().get(format!("{}/readyz", gate.admin)).send().await.unwrap();
    assert_eq!(ready.status(), 200);
}
