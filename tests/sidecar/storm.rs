//! Two thousand calls against a budget for a hundred, a tenth of them made to cost more than they seem to.
//!
//! The vendor takes every figure in the dearest way and writes until it is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tollgate::layers::budget::{Period, Rule};
use tollgate::neurons::Neurons;
use tollgate::simulator::{Coercion, Settings, Writes};

use crate::support::{GEMMA, Gate, LLAMA, TOKEN};

const CALLS: u64 = 2_000;

/// A call: its path, its body, and headers beyond the usual.
struct Hostile {
    path: String,
    body: Vec<u8>,
    headers: Vec<(&'static str, String)>,
}

impl Hostile {
    fn json(model: &str, body: String) -> Self {
        Self { path: format!("/run/{model}"), body: body.into_bytes(), headers: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn asked(mut self, query: &str) -> Self {
        self.path += query;
        self
    }
}

/// One of the ways to spend more than is seen, by number.
fn hostile(n: u64) -> Hostile {
    let prompt = format!("\"prompt\":\"tale {n}\"");
    let limit = |figure: &str| format!("{{{prompt},\"max_tokens\":{figure}}}");
    let troubled = |trouble: &str| {
        let body = format!("{{{prompt},\"max_tokens\":1024,\"stream\":true}}");
        Hostile::json(LLAMA, body).with("x-simulate", trouble)
    };
    match n % 32 {
        // No default for max_tokens, or none that is read.
        0 => Hostile::json(GEMMA, format!("{{{prompt}}}")),
        1 => Hostile::json(GEMMA, format!("{{{prompt},\"max_tokens\":null,\"n\":\"8\"}}")),
        2 => Hostile::json(GEMMA, limit("-1")),
        3 => Hostile::json(LLAMA, limit("\" 4096 \"")),
        4 => Hostile::json(LLAMA, limit("[4096]")),
        5 => Hostile::json(GEMMA, limit("{}")),
        6 => Hostile::json(LLAMA, limit("1e21")),
        7 => Hostile::json("@cf/openai/gpt-oss-20b", format!("{{\"input\":\"tale {n}\"}}")),
        // Lists that are none, and limits that are not the items'.
        8 => Hostile::json(LLAMA, format!("{{{prompt},\"max_tokens\":9000,\"requests\":[]}}")),
        9 => Hostile::json(LLAMA, format!("{{{prompt},\"max_tokens\":9000,\"requests\":null}}")),
        10 => Hostile::json(LLAMA, format!("{{{prompt},\"max_tokens\":9000,\"requests\":7}}")),
        11 => Hostile::json(LLAMA, format!("{{\"request_id\":\"x\",{prompt},\"max_tokens\":9000}}"))
            .asked("?queueRequest=true"),
        12 => {
            let items = vec![format!("{{{prompt},\"max_tokens\":900}}"); 10].join(",");
            Hostile::json(LLAMA, format!("{{\"max_tokens\":1,\"requests\":[{items}]}}")).asked("?queueRequest=true")
        }
        // Spellings.
        13 => Hostile::json(LLAMA, format!("{{{prompt},\"max_tokens\":1,\"max_tokens\":9000}}")),
        14 => Hostile::json(LLAMA, format!("{{{prompt},\"max\\u005ftokens\":9000}}")),
        15 => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, limit("9000").as_bytes()).unwrap();
            let call = Hostile { body: encoder.finish().unwrap(), ..Hostile::json(LLAMA, String::new()) };
            call.with("content-encoding", "gzip")
        }
        16 => {
            let body =
                [format!("{{{prompt},\"max_tokens\":1,\"x\":\"").into_bytes(), vec![0xff; 9], b"\"}".to_vec()].concat();
            Hostile { body, ..Hostile::json(LLAMA, String::new()) }
        }
        // Text that is no text, and pictures that nobody has seen.
        17 => Hostile::json(
            LLAMA,
            format!("{{\"prompt\":\"data:image/png;base64,{}\",\"max_tokens\":1}}", "x ".repeat(20_000)),
        ),
        18 => Hostile::json(
            LLAMA,
            format!("{{\"messages\":[{{\"role\":\"{}\",\"content\":\"\"}}],\"max_tokens\":1}}", "r ".repeat(20_000)),
        ),
        19 => {
            let url = json!({"type": "image_url", "image_url": {"url": format!("https://example.com/{n}.png")}});
            Hostile::json(GEMMA, json!({"messages": [{"role": "user", "content": [url]}], "max_tokens": 1}).to_string())
        }
        // Outputs that nothing bounds.
        20 => Hostile::json("@cf/meta/m2m100-1.2b", format!("{{\"text\":\"tale {n}\",\"target_lang\":\"french\"}}")),
        21 => Hostile::json("@cf/myshell-ai/melotts", format!("{{{prompt}}}")),
        // Pictures.
        22 => Hostile::json("@cf/leonardo/lucid-origin", format!("{{{prompt},\"width\":0,\"height\":\" 2500 \"}}")),
        23 => form(n, "Multipart/Form-Data; Boundary=b", "\r\n"),
        24 => form(n, "multipart/form-data; boundary=b", "\n"),
        // Answers that do not end, or end badly.
        25 => troubled("no-end"),
        26 => troubled("cut;at=3"),
        27 => troubled("stream-error=3040;at=4"),
        28 => troubled("die-mid;at=2"),
        29 => troubled("cut;at=2").with("x-simulate-usage", "absurd"),
        30 => Hostile::json(LLAMA, limit("1024")).with("x-simulate-usage", "strings"),
        _ => Hostile::json(LLAMA, limit("1024")).with("x-simulate", "die-mid"),
    }
}

fn form(n: u64, kind: &str, line: &str) -> Hostile {
    let part = |name: &str, value: &str| {
        format!("--b{line}Content-Disposition: form-data; name=\"{name}\"{line}{line}{value}{line}")
    };
    let parts =
        [part("prompt", &format!("tale {n}")), part("width", "2048"), part("height", "2048"), part("width", "64")];
    let call = Hostile::json("@cf/black-forest-labs/flux-2-klein-4b", format!("{}--b--{line}", parts.concat()));
    call.with("content-type", kind)
}

#[tokio::test]
async fn a_tenth_of_hostile_calls_overspends_nothing() {
    let limit = Neurons::from_whole(1_900);
    let mut settings = Settings::default();
    (settings.latency, settings.rate_limits) = (0.0, false);
    (settings.writes, settings.coercion) = (Writes::ToTheLimit, Coercion::Dear);
    let gate = Arc::new(Gate::with(tollgate::simulator::start(settings).unwrap(), |config| {
        config.budgets.push(Rule::new("everyone", limit, Period::Month));
        config.reservations.max_wait = Duration::from_secs(20);
        config.reservations.max_waiting = 5_000;
    }));
    let (next, polls) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let clients = (0..crate::budgets::from_env("TOLLGATE_CLIENTS", 250)).map(|_| {
        let (gate, next, polls) = (gate.clone(), next.clone(), polls.clone());
        tokio::spawn(async move {
            while let Some(n) = Some(next.fetch_add(1, Ordering::SeqCst)).filter(|n| *n < CALLS) {
                let call = if n.is_multiple_of(10) { hostile(n / 10) } else { usual(n) };
                let path = call.path.clone();
                // What a batch may cost is held until its answers are fetched.
                if let Some(batch) = send(&gate, call).await {
                    let poll = Hostile { path, ..Hostile::json(LLAMA, json!({"request_id": batch}).to_string()) };
                    send(&gate, poll).await;
                    polls.fetch_add(1, Ordering::SeqCst);
                }
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    gate.receipts.after((CALLS + polls.load(Ordering::SeqCst)) as usize).await;
    let admin = format!("http://{}", gate.sidecar.admin());
    let budget = crate::budgets::standing(&gate.client, &admin, "everyone").await;
    let (counted, charged) = (gate.vendor.counts().neurons(), budget["spent_neurons"].as_f64().unwrap());
    println!("counted {counted} of {limit}, charged {charged}");
    assert!(counted <= limit, "{counted} of {limit}");
    assert!(charged >= counted.as_f64(), "{charged} charged, {counted} counted");
    assert!(charged >= 0.95 * limit.as_f64(), "{charged} of {limit}");
    assert_eq!(budget["reserved_neurons"], 0.0);
}

fn usual(n: u64) -> Hostile {
    Hostile::json(
        LLAMA,
        json!({"prompt": format!("tale {n}"), "max_tokens": 64, "stream": n.is_multiple_of(2)}).to_string(),
    )
}

/// Whatever comes of it; says what a batch is called that was queued.
async fn send(gate: &Gate, call: Hostile) -> Option<String> {
    let mut request = gate.client.post(gate.url(&call.path)).bearer_auth(TOKEN);
    if !call.headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in &call.headers {
        request = request.header(*name, value);
    }
    let reply: Value = request.body(Bytes::from(call.body)).send().await.ok()?.json().await.ok()?;
    reply["result"]["request_id"].as_str().map(str::to_owned)
}
