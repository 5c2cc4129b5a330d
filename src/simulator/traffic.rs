//! What a small company's services might ask: chats of all lengths, in OpenAI's form and in Anthropic's, embeddings, a batch or a
//! picture now and then, speech.
//!
//! `tollgate demo` sends it, and so do the tests of the dashboards.

use std::time::Duration;

use base64::Engine;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// One of [`CLIENTS`] clients: asks, reads the answer to its end, pauses, asks again, until it is told to stop.
pub async fn run(client: reqwest::Client, base_url: String, number: usize, stop: CancellationToken) {
    let mut turn = 0;
    while !stop.is_cancelled() {
        let asker = Asker { client: &client, base_url: &base_url, team: TEAMS[number % TEAMS.len()], stop: &stop };
        asker.send(ask(number + turn * CLIENTS)).await;
        turn += 1;
        let _ = stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
    }
}

/// How many ask at once.
pub const CLIENTS: usize = 12;
const PAUSE: Duration = Duration::from_millis(40);
const BETWEEN_POLLS: Duration = Duration::from_millis(250);
const MOST_POLLS: usize = 20;
/// Who the clients are, as `cf-aig-metadata` has it.
const TEAMS: [&str; 3] = [r#"{"team":"search"}"#, r#"{"team":"support"}"#, r#"{"team":"growth"}"#];

struct Question {
    path: String,
    body: Body,
}

enum Body {
    Json(Value),
    Sound(Vec<u8>),
    /// Queued, and fetched when it is done.
    Batch(Value),
}

struct Asker<'a> {
    client: &'a reqwest::Client,
    base_url: &'a str,
    team: &'static str,
    stop: &'a CancellationToken,
}

impl Asker<'_> {
    /// A refused or failed call is counted by the gate; the demo's clients go on.
    async fn send(&self, ask: Question) {
        match ask.body {
            Body::Json(body) => drop(self.post(&ask.path, "application/json", body.to_string().into()).await),
            Body::Sound(bytes) => drop(self.post(&ask.path, "audio/wav", bytes).await),
            Body::Batch(body) => self.queue(&ask.path, &body).await,
        }
    }

    /// The reply, read to its end; `None` where it broke off.
    async fn post(&self, path: &str, kind: &'static str, body: Vec<u8>) -> Option<Vec<u8>> {
        let request = self.client.post(format!("{}{path}", self.base_url)).header(AUTHORIZATION, "Bearer demo");
        let request = request.header("cf-aig-metadata", self.team).header(CONTENT_TYPE, kind).body(body);
        let (mut reply, mut whole) = (request.send().await.ok()?, Vec::new());
        while let Some(piece) = reply.chunk().await.ok()? {
            whole.extend(piece);
        }
        Some(whole)
    }

    async fn queue(&self, path: &str, body: &Value) {
        let path = format!("{path}?queueRequest=true");
        let told = async |body: &Value| -> Option<Value> {
            let reply = self.post(&path, "application/json", body.to_string().into()).await?;
            serde_json::from_slice::<Value>(&reply).ok()?.get_mut("result").map(Value::take)
        };
        let Some(id) = told(body).await.and_then(|ack| Some(ack["request_id"].as_str()?.to_owned())) else { return };
        for _ in 0..MOST_POLLS {
            let _ = self.stop.run_until_cancelled(tokio::time::sleep(BETWEEN_POLLS)).await;
            let answer = told(&json!({ "request_id": id })).await;
            if self.stop.is_cancelled() || answer.is_none_or(|answer| answer.get("responses").is_some()) {
                return;
            }
        }
    }
}

const TOPICS: [&str; 8] = [
    "our refund policy for annual plans",
    "the incident of last Tuesday night",
    "how tokens differ from words",
    "moving a Postgres cluster without downtime",
    "a birthday poem for a colleague who likes trains",
    "the difference between latency and throughput",
    "this quarter's numbers, in three sentences",
    "why the sky is blue, for a child of five",
];
const STYLES: [&str; 5] = ["briefly", "in detail", "as a list", "for an engineer", "for a customer"];

/// The n-th question. Every ninth or so has been asked before.
fn ask(n: usize) -> Question {
    match n % 16 {
        0..=4 => chat("@cf/meta/llama-3.1-8b-instruct-fp8-fast", n, true),
        5 | 6 => chat("@cf/meta/llama-3.3-70b-instruct-fp8-fast", n, true),
        7 | 8 if n % 32 == 8 => messages("@cf/meta/llama-3.3-70b-instruct-fp8-fast", n),
        7 | 8 => chat("@cf/meta/llama-3.2-1b-instruct", n, false),
        9 => chat("@cf/qwen/qwen3-30b-a3b-fp8", n, false),
        10 => chat("@cf/google/gemma-4-26b-a4b-it", n, true),
        11 => native("@cf/mistralai/mistral-small-3.1-24b-instruct", json!({"prompt": question(n), "stream": true})),
        13 if n % 32 == 13 => {
            let items: Vec<_> =
                (0..3).map(|i| json!({"text": [question(n + i)], "external_reference": format!("{i}")})).collect();
            Question { path: "/run/@cf/baai/bge-m3".into(), body: Body::Batch(json!({ "requests": items })) }
        }
        12 | 13 => {
            let texts: Vec<_> = (0..8).map(|i| question(n + i)).collect();
            native("@cf/baai/bge-m3", json!({ "text": texts }))
        }
        14 if n % 32 == 14 => {
            native("@cf/black-forest-labs/flux-1-schnell", json!({"prompt": question(n), "steps": 4}))
        }
        14 => native("@cf/deepgram/aura-1", json!({ "text": question(n) })),
        _ if n % 32 == 15 => {
            let path = "/run/@cf/deepgram/nova-3".to_owned();
            Question { path, body: Body::Sound(silence(1 + n as u32 % 9)) }
        }
        _ => {
            let audio = base64::engine::general_purpose::STANDARD.encode(silence(2 + n as u32 % 30));
            native("@cf/openai/whisper-large-v3-turbo", json!({ "audio": audio }))
        }
    }
}

fn chat(model: &str, n: usize, stream: bool) -> Question {
    let mut messages =
        vec![json!({"role": "system", "content": "You are the assistant of a small company. Be kind and exact."})];
    // Some conversations have a history.
    for turn in 0..n / 3 % 4 {
        messages.push(json!({"role": "user", "content": question(n + turn * 7)}));
        messages.push(json!({"role": "assistant", "content": format!("As for {}: it depends.", topic(n + turn))}));
    }
    messages.push(json!({"role": "user", "content": question(n)}));
    let mut body = json!({"model": model, "messages": messages, "max_tokens": 64 + n % 5 * 48, "stream": stream});
    // Some want another answer each time, which is not kept for them.
    if !n.is_multiple_of(4) {
        body["temperature"] = json!(0);
    }
    Question { path: "/v1/chat/completions".into(), body: Body::Json(body) }
}

/// Anthropic's form.
fn messages(model: &str, n: usize) -> Question {
    let said = json!([{"role": "user", "content": question(n)}]);
    let body = json!({"model": model, "max_tokens": 96, "system": "Be kind and exact.", "messages": said, "stream": n.is_multiple_of(64)});
    Question { path: "/v1/messages".into(), body: Body::Json(body) }
}

fn native(model: &str, body: Value) -> Question {
    Question { path: format!("/run/{model}"), body: Body::Json(body) }
}

fn topic(n: usize) -> &'static str {
    TOPICS[n % TOPICS.len()]
}

fn question(n: usize) -> String {
    // Customers differ, and some ask what others asked.
    let customer = if n.is_multiple_of(9) { 0 } else { n };
    format!("Tell me {} about {}. Customer {customer} asks.", STYLES[n / 3 % STYLES.len()], topic(n / 5))
}

/// A WAV file of so many seconds: 8 kHz, mono, 8 bits.
fn silence(seconds: u32) -> Vec<u8> {
    let samples = seconds * 8000;
    let mut wav = Vec::with_capacity(44 + samples as usize);
    wav.extend(b"RIFF");
    wav.extend((36 + samples).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16u32.to_le_bytes());
    // PCM, one channel; samples and bytes a second; bytes and bits a sample.
    [1u16, 1].iter().for_each(|field| wav.extend(field.to_le_bytes()));
    [8000u32, 8000].iter().for_each(|field| wav.extend(field.to_le_bytes()));
    [1u16, 8].iter().for_each(|field| wav.extend(field.to_le_bytes()));
    wav.extend(b"data");
    wav.extend(samples.to_le_bytes());
    wav.resize(44 + samples as usize, 128);
    wav
}
