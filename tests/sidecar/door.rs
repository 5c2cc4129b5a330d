//! The front door stays open: places, memory, descriptors, signals and starts.

use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tollgate::simulator::{Fault, FaultRule, Trouble};

use crate::scripted::{self, send};
use crate::support::{Gate, LLAMA, Process, ask, client, client_builder, vendor};
use crate::wire::{Held, LONG, address, closed, count, resident_kib, run};

#[tokio::test]
async fn a_preface_and_silence_hold_no_connection() {
    let gate = Gate::with(vendor(), |config| {
        config.timeouts.handshake = Duration::from_millis(200);
        config.timeouts.idle = Duration::from_millis(200);
    });
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [&preface[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    for port in [gate.sidecar.listen(), gate.sidecar.admin()] {
        for begun in [&b""[..], b"P", b"PRI ", &preface[..10], preface, &settings] {
            let mut stream = TcpStream::connect(port).await.unwrap();
            stream.write_all(begun).await.unwrap();
            closed(&mut stream, &format!("{begun:?}")).await;
        }
    }
}

#[tokio::test]
async fn silent_connections_keep_nobody_out() {
    let gate = Gate::with(vendor(), |config| (config.workers, config.max_connections) = (1, 8));
    let mut silent = Vec::new();
    for n in 0..40 {
        let mut stream = TcpStream::connect(gate.sidecar.listen()).await.unwrap();
        let _ = stream.write_all([&b"POST /run/x HTTP/1.1\r\n"[..], b"PRI ", b""][n % 3]).await;
        silent.push(stream);
    }
    let apart = || client_builder().pool_max_idle_per_host(0).build().unwrap();
    for n in 0..5 {
        let asked = ask(&apart(), &gate.url(&run()), &json!({"prompt": format!("still here {n}")})).send();
        assert_eq!(asked.await.unwrap().status(), 200);
    }
    let health = client().get(format!("http://{}/healthz", gate.sidecar.admin())).send().await.unwrap();
    assert_eq!(health.status(), 200);
}

#[tokio::test]
async fn where_every_place_has_a_call_a_newcomer_is_told() {
    let gate = Gate::with(vendor(), |config| (config.workers, config.max_connections) = (1, 2));
    gate.vendor.fault(FaultRule::always(Fault::new(Trouble::StallMid)));
    let mut open = Vec::new();
    for n in 0..2 {
        let client = client();
        let body = json!({"prompt": format!("{n}"), "stream": true});
        let mut reply = ask(&client, &gate.url(&run()), &body).send().await.unwrap();
        reply.chunk().await.unwrap().unwrap();
        open.push(reply);
    }
    let told = ask(&client(), &gate.url(&run()), &json!({"prompt": "me too"})).send().await.unwrap();
    assert_eq!((told.status().as_u16(), &told.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    let health = client().get(format!("http://{}/healthz", gate.sidecar.admin())).send().await.unwrap();
    assert_eq!(health.status(), 200);
    drop(open);
    gate.receipts.after(2).await;
    gate.vendor.clear_faults();
    let begun = std::time::Instant::now();
    while ask(&client(), &gate.url(&run()), &json!({"prompt": "and now"})).send().await.unwrap().status() != 200 {
        assert!(begun.elapsed() < LONG);
    }
}

#[tokio::test]
async fn one_address_has_no_more_than_its_connections() {
    let gate = Gate::with(vendor(), |config| config.max_connections_per_address = 3);
    let mut held = Vec::new();
    for n in 0..3 {
        let client = client();
        assert_eq!(
            ask(&client, &gate.url(&run()), &json!({"prompt": format!("{n}")})).send().await.unwrap().status(),
            200
        );
        held.push(client);
    }
    let told = ask(&client(), &gate.url(&run()), &json!({"prompt": "one more"})).send().await.unwrap();
    assert_eq!(told.status(), 503);
    let other = client_builder().local_address(std::net::IpAddr::from([127, 0, 0, 9])).build().unwrap();
    assert_eq!(ask(&other, &gate.url(&run()), &json!({"prompt": "other"})).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn few_descriptors_are_shared_out_and_the_admin_port_has_its_own() {
    let vendor = vendor();
    let mut process = Process::serve_under(&["sh", "-c", "ulimit -n 200; exec \"$0\" \"$@\""], &vendor.base_url(), &[]);
    let mut crowd = Vec::new();
    for _ in 0..400 {
        let Ok(mut stream) = TcpStream::connect(address(&process.listen)).await else { continue };
        let _ = stream.write_all(b"POST /run/x HTTP/1.1\r\n").await;
        crowd.push(stream);
    }
    let url = format!("{}{}", process.listen, run());
    for n in 0..10 {
        let asked = ask(&client(), &url, &json!({"prompt": format!("{n}")})).send().await.unwrap();
        assert_eq!(asked.status(), 200, "upstream has descriptors too");
        let health = client().get(format!("{}/healthz", process.admin)).send().await.unwrap();
        assert_eq!(health.status(), 200);
    }
    let descriptors = Held::by(&process).await.descriptors;
    assert!(descriptors < 200, "{descriptors}");
    process.terminate();
    drop(crowd);
    process.child.wait().unwrap();
    let mut log = String::new();
    std::io::Read::read_to_string(&mut process.child.stderr.take().unwrap(), &mut log).unwrap();
    assert!(log.contains("max_connections is held to"), "{log}");
}

/// An upstream that takes its time, so that bodies pile up.
async fn slow() -> String {
    let address = scripted::upstream(|mut stream, _| async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let body = r#"{"result":{"response":"ok"},"success":true}"#;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n", body.len());
        send(&mut stream, &format!("{head}connection: close\r\n\r\n{body}")).await;
    })
    .await;
    format!("http://{address}")
}

#[tokio::test]
async fn bodies_together_stay_within_their_memory() {
    let vendor = vendor();
    let bound_mib = count("TOLLGATE_BODY_BOUND_MIB", 32) as u64;
    let bound = format!("{bound_mib}MiB");
    let variables = [("TOLLGATE_MAX_BODY_MEMORY", bound.as_str()), ("TOLLGATE_TIMEOUTS_BODY_QUEUE", "1h")];
    let process = Process::serve(&vendor.base_url(), &variables);
    let before = Held::by(&process).await;
    let url = format!("{}{}", process.listen, run());
    // Each its own, or they would share one call.
    let (bodies, body_mib) = (count("TOLLGATE_BODIES", 24), count("TOLLGATE_BODY_MIB", 8));
    let filler = "x".repeat(body_mib << 20);
    let mut crowd = tokio::task::JoinSet::new();
    for n in 0..bodies {
        let (url, body) = (url.clone(), format!("{{\"prompt\": \"{n}\", \"padding\": \"{filler}\"}}"));
        crowd.spawn(async move {
            // A client that gives up where nothing is read of it for 30 s is right to, and is not what this is about.
            let client = client_builder().tcp_user_timeout(None).build().unwrap();
            let reply = client.post(url).bearer_auth("t").header("content-type", "application/json").body(body).send();
            reply.await.unwrap().status().as_u16()
        });
    }
    let (mut most, mut answered) = (0, 0);
    while answered < bodies {
        most = most.max(resident_kib(process.child.id()));
        match tokio::time::timeout(Duration::from_millis(10), crowd.join_next()).await {
            Ok(Some(status)) => {
                assert_eq!(status.unwrap(), 200, "everybody's turn comes");
                answered += 1;
            }
            Ok(None) => break,
            Err(_) => assert!(Held::by(&process).await.body_bytes <= bound_mib << 20),
        }
    }
    let grown_mib = (most - before.resident_kib) / 1024;
    println!("{answered} bodies: {grown_mib} MiB more at most, {bound_mib} MiB allowed");
    // Besides the bodies, each of two workers reads one at a time, and an allocator gives back late.
    let beside_mib = 8 * body_mib as u64;
    assert!(grown_mib < bound_mib + beside_mib, "{grown_mib} MiB");
    Held::is_back(&process, before, 64, "bodies").await;
}

#[tokio::test]
async fn a_body_without_a_turn_is_told_in_the_form_of_the_route() {
    let gate = Gate::with(vendor(), |config| {
        config.max_body = bytesize::ByteSize::mib(1);
        config.max_body_memory = Some(bytesize::ByteSize::mib(1));
        config.timeouts.body_queue = Duration::from_millis(100);
    });
    gate.vendor.fault(FaultRule::always(Fault::new(Trouble::Stall)));
    let large = "x".repeat(600 << 10);
    let first = gate.post(&run(), &json!({"prompt": format!("first {large}")})).send();
    let first = tokio::spawn(first);
    let admin = format!("http://{}/metrics", gate.sidecar.admin());
    let begun = std::time::Instant::now();
    while client().get(&admin).send().await.unwrap().text().await.unwrap().contains("tollgate_body_memory_bytes 0") {
        assert!(begun.elapsed() < LONG);
    }
    let native = gate.post(&run(), &json!({"prompt": large})).send().await.unwrap();
    assert_eq!((native.status().as_u16(), native.headers().contains_key("retry-after")), (503, true));
    let native: serde_json::Value = native.json().await.unwrap();
    assert!(native["errors"][0]["message"].as_str().unwrap().contains("max_body_memory"), "{native}");
    let openai = json!({"model": LLAMA, "messages": [{"role": "user", "content": large}]});
    let openai = gate.post("/v1/chat/completions", &openai).send().await.unwrap();
    assert_eq!(openai.status(), 503);
    let openai: serde_json::Value = openai.json().await.unwrap();
    assert_eq!(openai["error"]["code"], "overloaded", "{openai}");
    gate.vendor.clear_faults();
    assert_eq!(gate.run(LLAMA, &json!({"prompt": "a small one passes"})).await.status(), 200);
    first.abort();
}

#[tokio::test]
async fn a_hangup_ends_nothing_and_has_the_config_read_again() {
    let vendor = vendor();
    let mut process = Process::serve(&vendor.base_url(), &[]);
    let pid = process.child.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    let url = format!("{}{}", process.listen, run());
    assert_eq!(ask(&client(), &url, &json!({"prompt": "x"})).send().await.unwrap().status(), 200);
    let metrics = format!("{}/metrics", process.admin);
    let has_read = async || {
        let text = client().get(&metrics).send().await.unwrap().text().await.unwrap();
        text.contains("tollgate_config_reloads_total{result=\"ok\"} 1")
    };
    tokio::time::timeout(LONG, async {
        while !has_read().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the config is read again");
    process.terminate();
    assert!(process.child.wait().unwrap().success());
}

#[tokio::test]
async fn a_call_in_the_first_moments_after_a_start_is_answered() {
    let vendor = vendor();
    for n in 0..count("TOLLGATE_STARTS", 12) {
        // A port that was free just now: calls come while it is being opened.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let at = free.to_string();
        let calling = tokio::spawn(async move {
            let asked = |attempt: u32| async move {
                let mut stream = TcpStream::connect(free).await.ok()?;
                // A connection to a port where nobody listens may be a connection to itself.
                if stream.local_addr().ok()? == free {
                    return None;
                }
                let body = format!("{{\"prompt\": \"{n} {attempt}\"}}");
                stream.write_all(&crate::wire::http1(&run(), &body)).await.ok()?;
                let mut reply = vec![0; 64];
                let read = tokio::time::timeout(LONG, stream.read(&mut reply)).await.expect("an answer, or a refusal");
                Some(String::from_utf8_lossy(&reply[..read.ok()?]).starts_with("HTTP/1.1 200"))
            };
            let begun = std::time::Instant::now();
            let mut attempt = 0;
            while asked(attempt).await != Some(true) {
                assert!(begun.elapsed() < LONG, "nothing answers");
                attempt += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let process = Process::serve(&vendor.base_url(), &[("TOLLGATE_LISTEN", &at), ("TOLLGATE_WORKERS", "4")]);
        // From the word on, each is answered, whichever worker it falls to.
        let url = format!("{}{}", process.listen, run());
        for m in 0..8 {
            let asked = ask(&client(), &url, &json!({"prompt": format!("{n} and {m}")})).send();
            assert_eq!(tokio::time::timeout(LONG, asked).await.expect("answered").unwrap().status(), 200);
        }
        calling.await.unwrap();
    }
}

#[tokio::test]
async fn a_clients_deadline_bounds_the_attempts_of_all_models_together() {
    let gate = Gate::with(vendor(), |config| {
        let fallback = format!("[models.\"{LLAMA}\"]\nfallback = [\"@cf/meta/llama-3.1-8b-instruct-fp8-fast\"]\n");
        config.models = tollgate::sidecar::config::Config::parse(&fallback, "t").unwrap().models;
        config.retry.max_attempts = 4.try_into().unwrap();
    });
    gate.vendor.fault(FaultRule::always(Fault::new(Trouble::Stall)));
    let asked = gate.post(&run(), &json!({"prompt": "x"})).header("cf-aig-request-timeout", "300");
    let reply = tokio::time::timeout(LONG, asked.send()).await.expect("within its deadline").unwrap();
    assert_eq!(reply.status(), 504);
    assert!(reply.text().await.unwrap().contains("cf-aig-request-timeout"));
    assert!(gate.vendor.seen().len() <= 2, "{}", gate.vendor.seen().len());
}

#[tokio::test]
async fn a_stream_that_waits_is_kept_alive_and_its_error_is_an_event() {
    let gate = Gate::with(vendor(), |config| {
        config.compat.keepalive = Duration::from_millis(100);
        config.upstream.first_byte_timeout = Duration::from_millis(450);
    });
    gate.vendor.fault(FaultRule::always(Fault::new(Trouble::Stall)));
    for (path, body, begins) in [
        (run(), json!({"prompt": "x", "stream": true}), "data: {"),
        ("/v1/responses".into(), json!({"model": LLAMA, "input": "x", "stream": true}), "event: error\ndata: {"),
    ] {
        let reply = gate.post(&path, &body).send().await.unwrap();
        assert_eq!(
            (reply.status().as_u16(), &reply.headers()["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        assert!(reply.headers().contains_key("cf-aig-log-id"));
        let text = reply.text().await.unwrap();
        let event = text.trim_start_matches(": waiting\n\n");
        assert!(text.starts_with(": waiting\n\n") && event.starts_with(begins), "{text}");
        assert!(event.contains("first_byte_timeout"), "{text}");
    }
    // What is no stream keeps its status.
    assert_eq!(gate.run(LLAMA, &json!({"prompt": "x"})).await.status(), 504);
    gate.vendor.clear_faults();
    let answer = gate.run(LLAMA, &json!({"prompt": "x", "stream": true})).await.text().await.unwrap();
    assert!(answer.trim_start_matches(": waiting\n\n").starts_with("data: {"), "{answer}");
    let outcomes: Vec<_> = gate.receipts.after(4).await.iter().map(|facts| facts.outcome.label()).collect();
    assert_eq!(outcomes, ["timeout", "timeout", "timeout", "ok"]);
}

#[tokio::test]
async fn upstream_is_given_up_where_connections_to_it_run_out() {
    let upstream = slow().await;
    let process = Process::serve_under(
        &["sh", "-c", "ulimit -n 120; exec \"$0\" \"$@\""],
        &upstream,
        &[("TOLLGATE_UPSTREAM_CONNECT_TIMEOUT", "100ms"), ("TOLLGATE_WORKERS", "1")],
    );
    let url = format!("{}{}", process.listen, run());
    let client = client_builder().http2_prior_knowledge().build().unwrap();
    let mut crowd = tokio::task::JoinSet::new();
    for n in 0..100 {
        let (client, url) = (client.clone(), url.clone());
        crowd.spawn(async move {
            ask(&client, &url, &json!({"prompt": format!("{n}")})).send().await.unwrap().status().as_u16()
        });
    }
    let statuses = crowd.join_all().await;
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&200));
    let health = client.get(format!("{}/healthz", process.admin)).send().await.unwrap();
    assert_eq!(health.status(), 200);
}
