//! The short routes as OpenAI documents them, and the vendor's own paths as the vendor has them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tollgate::openai::Form;
use tollgate::receipt::Outcome;

use crate::scripted::{self, EVENTS, chunk, send};
use crate::support::{GEMMA, Gate, LLAMA, ask, client, config, start, vendor};

const FLUX_2: &str = "@cf/black-forest-labs/flux-2-klein-4b";
const WHISPER: &str = "@cf/openai/whisper-large-v3-turbo";

fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "Why is the sky blue?"}]})
}

fn stream(model: &str, usage_asked: bool) -> Value {
    let mut body = chat(model);
    (body["stream"], body["stream_options"]) = (json!(true), json!({ "include_usage": usage_asked }));
    body
}

fn chunks(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}

#[tokio::test]
async fn each_model_streams_one_usage_and_only_where_it_is_asked_for() {
    let gate = Gate::start();
    let llama_4 = "@cf/meta/llama-4-scout-17b-16e-instruct";
    for model in [LLAMA, GEMMA, llama_4, "@cf/zai-org/glm-5.3-flash", "@cf/openai/gpt-oss-20b"] {
        for usage_asked in [false, true] {
            let reply = gate.post("/v1/chat/completions", &stream(model, usage_asked)).send().await.unwrap();
            let text = reply.text().await.unwrap();
            assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
            let chunks = chunks(&text);
            for (place, chunk) in chunks.iter().enumerate() {
                let is_usage = usage_asked && place + 1 == chunks.len();
                assert_eq!(chunk["usage"].is_object(), is_usage, "{model} {chunk}");
                assert_eq!(chunk["choices"].as_array().unwrap().is_empty(), is_usage, "{model} {chunk}");
                assert_eq!(chunk["object"], "chat.completion.chunk", "{model} {chunk}");
                assert!(
                    !chunk["choices"][0]["delta"]["content"].is_null()
                        || is_usage
                        || chunk["choices"][0]["delta"].get("content").is_none()
                );
            }
            let ends = chunks.iter().filter(|chunk| chunk["choices"][0]["finish_reason"].is_string());
            assert_eq!(ends.count(), 1, "{model}");
        }
    }
}

#[tokio::test]
async fn the_vendors_paths_and_a_v1_that_is_the_vendors_stay_as_they_are() {
    let gate = Gate::with(vendor(), |config| config.compat.v1 = Form::Vendor);
    let direct = ask(
        &gate.client,
        &format!("{}/client/v4/accounts/acc/ai/v1/chat/completions", gate.vendor.base_url()),
        &stream(GEMMA, false),
    );
    let direct = direct.send().await.unwrap().text().await.unwrap();
    for path in
        ["/v1/chat/completions", "/client/v4/accounts/acc/ai/v1/chat/completions", "/v1/acc/gw/compat/chat/completions"]
    {
        let through = gate.post(path, &stream(GEMMA, false)).send().await.unwrap().text().await.unwrap();
        assert_eq!(through, direct, "{path}");
    }
}

#[tokio::test]
async fn an_event_is_mended_and_passed_on_before_the_next_one_comes() {
    let next = std::sync::Arc::new(tokio::sync::Notify::new());
    let go_on = next.clone();
    let address = scripted::upstream(move |mut stream, _| {
        let go_on = go_on.clone();
        async move {
            send(&mut stream, EVENTS).await;
            send(&mut stream, &chunk("data: {\"response\":\"one\"}\n\ndata: {\"resp")).await;
            go_on.notified().await;
            send(&mut stream, &chunk("onse\":\"two\"}\n\ndata: [DONE]\n\n")).await;
            send(&mut stream, "0\r\n\r\n").await;
        }
    })
    .await;
    let (sidecar, _) = start(config(&format!("http://{address}")));
    let url = format!("http://{}/v1/chat/completions", sidecar.listen());
    let mut reply = ask(&client(), &url, &stream(LLAMA, false)).send().await.unwrap();
    let first = String::from_utf8(reply.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    assert_eq!(chunks(&first)[0]["choices"][0]["delta"], json!({"content": "one", "role": "assistant"}));
    next.notify_one();
    let rest = reply.text().await.unwrap();
    assert!(rest.contains("\"two\"") && rest.ends_with("data: [DONE]\n\n"), "{rest}");
}

#[tokio::test]
async fn embeddings_come_in_either_encoding_with_the_same_numbers_and_token_numbers_are_refused() {
    let gate = Gate::start();
    for model in ["@cf/baai/bge-m3", "@cf/qwen/qwen3-embedding-0.6b"] {
        let ask = |format: &str| {
            gate.post("/v1/embeddings", &json!({"model": model, "input": ["a", "b"], "encoding_format": format}))
        };
        let floats: Value = ask("float").send().await.unwrap().json().await.unwrap();
        let reply = ask("base64").send().await.unwrap();
        let length: usize = reply.headers()["content-length"].to_str().unwrap().parse().unwrap();
        let bytes = reply.bytes().await.unwrap();
        assert_eq!(bytes.len(), length);
        let encoded: Value = serde_json::from_slice(&bytes).unwrap();
        for place in 0..2 {
            let wanted: Vec<f32> = serde_json::from_value(floats["data"][place]["embedding"].clone()).unwrap();
            let bytes = STANDARD.decode(encoded["data"][place]["embedding"].as_str().unwrap()).unwrap();
            let told: Vec<f32> = bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
            assert_eq!(told, wanted, "{model}");
        }
        assert!(floats["usage"]["prompt_tokens"].as_u64() > Some(0), "{model} {}", floats["usage"]);
    }
    let reply =
        gate.post("/v1/embeddings", &json!({"model": "@cf/baai/bge-m3", "input": [[1, 2], [3]]})).send().await.unwrap();
    assert_eq!(reply.status(), 400);
    assert!(reply.text().await.unwrap().contains("token numbers"));
}

#[tokio::test]
async fn the_vendors_refusals_have_openais_form_on_v1_alone() {
    let gate = Gate::start();
    for (simulate, status, kind, code) in [
        ("3021", 429, "rate_limit_exceeded", json!("3021")),
        ("3040;form=openai", 429, "rate_limit_exceeded", json!("3040")),
        ("5035;form=bare", 403, "invalid_request_error", json!("5035")),
        ("10000", 401, "invalid_request_error", json!("10000")),
        ("502;form=html", 502, "server_error", Value::Null),
        ("stream-error=3040", 429, "rate_limit_exceeded", json!("3040")),
    ] {
        let path = |path: &str| gate.post(path, &stream(LLAMA, false)).header("x-simulate", simulate).send();
        let reply = path("/v1/chat/completions").await.unwrap();
        assert_eq!(
            (reply.status(), &reply.headers()["content-type"]),
            (status.try_into().unwrap(), &"application/json".parse().unwrap())
        );
        let error = reply.json::<Value>().await.unwrap()["error"].clone();
        assert_eq!(
            (&error["type"], &error["code"], &error["param"]),
            (&json!(kind), &code, &Value::Null),
            "{simulate}"
        );
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{simulate}");
        let native = path("/client/v4/accounts/acc/ai/v1/chat/completions").await.unwrap();
        assert_eq!(native.status(), if simulate.starts_with("stream") { 200 } else { status }, "{simulate}");
    }
}

#[tokio::test]
async fn what_is_refused_for_money_is_a_402_on_v1_and_a_429_on_the_vendors_paths() {
    let budget = "[[budgets]]\nname = \"all\"\nlimit = \"0.001 neurons\"\nwindow = \"month\"\n";
    let gate = Gate::with(vendor(), |config| {
        config.budgets = tollgate::sidecar::config::Config::parse(budget, "test").unwrap().budgets;
    });
    let reply = gate.post("/v1/chat/completions", &chat(LLAMA)).send().await.unwrap();
    assert_eq!(reply.status(), 402);
    assert_eq!(reply.json::<Value>().await.unwrap()["error"]["type"], "insufficient_quota");
    let native = gate.post("/client/v4/accounts/acc/ai/v1/chat/completions", &chat(LLAMA)).send().await.unwrap();
    assert_eq!(native.status(), 429);
    // The vendor's own word for the same.
    let gate = Gate::start();
    let reply = gate.post("/v1/chat/completions", &chat(LLAMA)).header("x-simulate", "4006").send().await.unwrap();
    assert_eq!((reply.status().as_u16(), reply.headers()["x-should-retry"].to_str().unwrap()), (402, "false"));
}

#[tokio::test]
async fn aliases_stand_for_models_and_receipts_tell_both() {
    let aliases = "[aliases]\n\"gpt-4o-mini\" = \"@cf/meta/llama-3.2-1b-instruct\"\n\"gpt-*\" = \"@cf/google/gemma-4-26b-a4b-it\"\ndefault = \"@cf/meta/llama-3.2-3b-instruct\"\n";
    let gate = Gate::with(vendor(), |config| {
        config.aliases = tollgate::sidecar::config::Config::parse(aliases, "test").unwrap().aliases;
    });
    let names =
        ["gpt-4o-mini", "gpt-5", "llama-3.2-1b-instruct", "workers-ai/@cf/meta/llama-3.2-1b-instruct", "claude"];
    let models = [LLAMA, GEMMA, LLAMA, LLAMA, "@cf/meta/llama-3.2-3b-instruct"];
    for (name, model) in names.iter().zip(models) {
        let reply = gate.post("/v1/chat/completions", &chat(name)).send().await.unwrap();
        assert_eq!(reply.json::<Value>().await.unwrap()["model"], model, "{name}");
    }
    let mut nameless = chat("x");
    nameless.as_object_mut().unwrap().remove("model");
    let reply = gate.post("/v1/chat/completions", &nameless).send().await.unwrap();
    assert_eq!(reply.json::<Value>().await.unwrap()["model"], "@cf/meta/llama-3.2-3b-instruct");
    let facts = gate.receipts.after(6).await;
    assert_eq!((facts[0].asked_name(), &*facts[0].model.id), ("gpt-4o-mini", LLAMA));

    let list: Value = gate.client.get(gate.url("/v1/models")).send().await.unwrap().json().await.unwrap();
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().filter_map(|model| model["id"].as_str()).collect();
    assert!(ids.contains(&LLAMA) && ids.contains(&"gpt-4o-mini"), "{ids:?}");
    let one: Value =
        gate.client.get(gate.url(&format!("/v1/models/{LLAMA}"))).send().await.unwrap().json().await.unwrap();
    assert!(
        one["object"] == "model"
            && one["created"].is_u64()
            && one["owned_by"] == "meta"
            && one["task"] == "Text Generation",
        "{one}"
    );
    let reply = gate.client.get(gate.url("/v1/models/@cf/nobody/knows")).send().await.unwrap();
    assert_eq!(reply.status(), 404);
    assert!(reply.json::<Value>().await.unwrap()["error"]["message"].is_string());
}

#[tokio::test]
async fn pictures_sound_ranks_and_verdicts_are_made_metered_and_kept() {
    let gate = Gate::start();
    let json = |path: &'static str, body: Value| {
        let request = gate.post(path, &body);
        async move { request.send().await.unwrap().json::<Value>().await.unwrap() }
    };
    for model in
        ["@cf/black-forest-labs/flux-1-schnell", "@cf/leonardo/phoenix-1.0", "@cf/black-forest-labs/flux-2-klein-4b"]
    {
        let reply = json(
            "/v1/images/generations",
            json!({"model": model, "prompt": "a bridge", "size": "1024x1024", "n": 1, "seed": 7}),
        )
        .await;
        let picture = STANDARD
            .decode(reply["data"][0]["b64_json"].as_str().unwrap_or_else(|| panic!("{model} {reply}")))
            .unwrap();
        assert!(picture.starts_with(b"\x89PNG") && reply["created"].is_u64(), "{model}");
    }
    for model in ["@cf/deepgram/aura-1", "@cf/myshell-ai/melotts"] {
        let body = json!({"model": model, "input": "mind the gap", "voice": "alloy"});
        let reply = gate.post("/v1/audio/speech", &body).send().await.unwrap();
        assert_eq!(reply.headers()["content-type"], "audio/mpeg");
        assert!(reply.bytes().await.unwrap().len() > 1000, "{model}");
    }
    let sent: Value = serde_json::from_slice(&gate.vendor.seen()[3].body).unwrap();
    assert_eq!(sent, json!({"text": "mind the gap", "speaker": "athena", "encoding": "mp3"}));
    let reranked = json(
        "/v1/rerank",
        json!({"model": "bge-reranker-base", "query": "water", "documents": ["a stone", "a river"], "top_n": 1}),
    )
    .await;
    assert_eq!(reranked["results"].as_array().unwrap().len(), 1, "{reranked}");
    let verdict = json("/v1/moderations", json!({"input": "hello"})).await;
    assert_eq!(verdict["results"][0]["flagged"], false, "{verdict}");
    let completion = json("/v1/completions", json!({"model": LLAMA, "prompt": "hello"})).await;
    assert!(completion["object"] == "text_completion" && completion["choices"][0]["text"].is_string(), "{completion}");
    let facts = gate.receipts.after(8).await;
    assert!(facts.iter().all(|facts| facts.outcome == Outcome::Ok));
    assert!(facts[0].cost.neurons.as_f64() > 100.0 && !facts[5].cost.neurons.is_zero());
    let again = gate.post("/v1/completions", &json!({"model": LLAMA, "prompt": "hello", "temperature": 0}));
    again.send().await.unwrap();
    let again = gate
        .post("/v1/completions", &json!({"model": LLAMA, "prompt": "hello", "temperature": 0}))
        .send()
        .await
        .unwrap();
    assert_eq!(again.headers()["cf-aig-cache-status"], "HIT");
}

/// Two seconds of silence, and the fields of a form around it.
fn recording(fields: &[(&str, &str)]) -> (String, Vec<u8>) {
    let samples = 16_000_u32;
    let mut form = Vec::new();
    for (name, value) in fields {
        form.extend_from_slice(
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").as_bytes(),
        );
    }
    form.extend_from_slice(
        b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\n",
    );
    form.extend_from_slice(b"RIFF");
    form.extend_from_slice(&(36 + samples).to_le_bytes());
    form.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0data");
    form.extend_from_slice(&samples.to_le_bytes());
    form.extend(std::iter::repeat_n(128, samples as usize));
    form.extend_from_slice(b"\r\n--b--\r\n");
    ("multipart/form-data; boundary=b".to_owned(), form)
}

#[tokio::test]
async fn recordings_are_transcribed_in_each_format_by_each_model() {
    let gate = Gate::start();
    let post = |path: &'static str, fields: &[(&str, &str)]| {
        let (kind, form) = recording(fields);
        gate.client.post(gate.url(path)).bearer_auth("t").header("content-type", kind).body(form).send()
    };
    for model in [WHISPER, "@cf/openai/whisper", "@cf/deepgram/nova-3"] {
        let reply: Value = post("/v1/audio/transcriptions", &[("model", model)]).await.unwrap().json().await.unwrap();
        assert!(reply["text"].as_str().is_some_and(|text| text.contains("river")), "{model} {reply}");
        let srt = post("/v1/audio/transcriptions", &[("model", model), ("response_format", "srt")]).await.unwrap();
        assert_eq!(srt.headers()["content-type"], "text/plain; charset=utf-8");
        assert!(srt.text().await.unwrap().starts_with("1\n00:00:00,000 --> 00:00:02,000\n"), "{model}");
    }
    let events = post("/v1/audio/transcriptions", &[("model", WHISPER), ("stream", "true")]).await.unwrap();
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let events = chunks(&events.text().await.unwrap());
    assert_eq!(events[0]["type"], "transcript.text.delta");
    assert!(events[1]["type"] == "transcript.text.done" && events[1]["text"] == events[0]["delta"], "{events:?}");
    let mixed = [("model", WHISPER), ("stream", "true"), ("response_format", "srt")];
    assert_eq!(post("/v1/audio/transcriptions", &mixed).await.unwrap().status(), 400);
    let verbose: Value = post("/v1/audio/translations", &[("model", WHISPER), ("response_format", "verbose_json")])
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert!(verbose["task"] == "translate" && verbose["duration"] == 2.0, "{verbose}");
    let reply = post("/v1/audio/translations", &[("model", "@cf/openai/whisper")]).await.unwrap();
    assert_eq!(reply.status(), 400);
    let facts = gate.receipts.after(10).await;
    let heard: Vec<_> = facts.iter().map(|facts| (facts.usage.audio_ms, facts.outcome)).collect();
    // Another format of the same recording needs no other call.
    let (asked, kept) = ((2000, Outcome::Ok), (0, Outcome::CacheHit));
    assert_eq!(heard[..7], [asked, kept, asked, kept, asked, kept, kept]);
    assert_eq!(heard[8], asked);
}

#[tokio::test]
async fn what_cannot_be_mapped_is_a_400_that_says_what_is_missing() {
    let gate = Gate::start();
    let flux = "@cf/black-forest-labs/flux-1-schnell";
    for (path, body, word) in [
        ("/v1/images/generations", json!({"model": flux, "prompt": "x", "n": 2}), "one picture"),
        ("/v1/images/generations", json!({"model": flux, "prompt": "x", "response_format": "url"}), "b64_json"),
        ("/v1/images/generations", json!({"model": flux, "prompt": "x", "size": "512x512"}), "1024x1024"),
        ("/v1/images/generations", json!({"model": flux}), "prompt"),
        ("/v1/images/generations", json!({"prompt": "x"}), "model"),
        ("/v1/audio/speech", json!({"model": "@cf/deepgram/aura-1", "input": "x", "speed": 2}), "speed"),
        ("/v1/audio/speech", json!({"model": LLAMA, "input": "x"}), "aura-1"),
        ("/v1/completions", json!({"model": LLAMA, "prompt": ["a", "b"]}), "prompt"),
        ("/v1/moderations", json!({"input": ["a", "b"]}), "one text"),
        ("/v1/rerank", json!({"model": "bge-reranker-base", "query": "x"}), "documents"),
        ("/v1/rerank", json!({"model": "bge-reranker-base", "query": "x", "documents": []}), "empty"),
        ("/v1/rerank", json!({"model": "bge-reranker-base", "query": "x", "documents": ["a"], "top_n": -1}), "top_n"),
        ("/v1/rerank", json!({"model": LLAMA, "query": "x", "documents": ["a"]}), "this route"),
        ("/v1/images/generations", json!({"model": LLAMA, "prompt": "x"}), "this route"),
        ("/v1/images/generations", json!({"model": FLUX_2, "prompt": "x", "size": "0x0"}), "no size"),
        ("/v1/embeddings", json!({"model": LLAMA, "input": "x"}), "this route"),
        ("/v1/embeddings", json!({"model": "@cf/baai/bge-m3", "input": []}), "none of them empty"),
        ("/v1/embeddings", json!({"model": "@cf/baai/bge-m3", "input": "x", "encoding_format": "hex"}), "base64"),
        ("/v1/audio/transcriptions", json!({"model": WHISPER}), "form"),
    ] {
        let reply = gate.post(path, &body).send().await.unwrap();
        assert_eq!(reply.status(), 400, "{path} {body}");
        let error = reply.json::<Value>().await.unwrap()["error"].clone();
        assert!(error["message"].as_str().is_some_and(|message| message.contains(word)), "{path} {body}: {error}");
    }
    assert_eq!(gate.vendor.seen().len(), 0);
}
