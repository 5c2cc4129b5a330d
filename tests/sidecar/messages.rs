//! Anthropic's form, on the short route, the vendor's path and the AI Gateway's.

use serde_json::{Value, json};
use tollgate::call::Endpoint;
use tollgate::receipt::Source;

use crate::support::{Gate, LLAMA, ask};

const PATHS: [&str; 3] =
    ["/v1/messages", "/client/v4/accounts/acc/ai/v1/messages", "/v1/acc/gw/workers-ai/v1/messages"];

fn question(stream: bool) -> Value {
    json!({"model": LLAMA, "max_tokens": 64, "stream": stream, "messages": [{"role": "user", "content": "Why is the sky blue?"}]})
}

#[tokio::test]
async fn a_message_is_charged_as_the_vendor_charges_it_on_each_path_whole_and_streamed() {
    let gate = Gate::start();
    let mut calls = 0;
    for path in PATHS {
        for stream in [false, true] {
            for telling in ["end", "running"] {
                let reply =
                    gate.post(path, &question(stream)).header("x-simulate-usage", telling).send().await.unwrap();
                assert_eq!(reply.status(), 200, "{path}");
                let text = reply.text().await.unwrap();
                assert_eq!(text.contains("message_stop"), stream, "{text}");
                calls += 1;
            }
        }
    }
    let receipts = gate.receipts.after(calls).await;
    assert!(receipts.iter().all(|facts| facts.endpoint == Some(Endpoint::Messages)));
    assert!(receipts.iter().all(|facts| facts.cost.source >= Source::Computed && !facts.cost.is_partial));
    let ours: u64 = receipts.iter().map(|facts| facts.cost.neurons.micro()).sum();
    assert_eq!(ours, gate.vendor.spent("acc").micro());
}

#[tokio::test]
async fn what_is_read_from_the_vendors_cache_is_charged_as_such() {
    let gate = Gate::start();
    let model = "@cf/zai-org/glm-5.2";
    let mut body = question(false);
    (body["model"], body["messages"][0]["content"]) = (json!(model), json!("Why is the sky blue? ".repeat(200)));
    for _ in 0..2 {
        let asked =
            gate.post("/v1/messages", &body).header("x-session-affinity", "one").header("cf-aig-skip-cache", "true");
        assert_eq!(asked.send().await.unwrap().status(), 200);
    }
    let receipts = gate.receipts.after(2).await;
    assert!(
        receipts[1].usage.cached_input_tokens > 0 && receipts[1].usage.input_tokens == receipts[0].usage.input_tokens
    );
    let ours: u64 = receipts.iter().map(|facts| facts.cost.neurons.micro()).sum();
    assert_eq!(ours, gate.vendor.spent("acc").micro());
}

#[tokio::test]
async fn refusals_are_in_anthropics_envelope_on_every_path() {
    let gate = Gate::start();
    let told = |reply: reqwest::Response| async {
        let (status, body) = (reply.status().as_u16(), reply.json::<Value>().await.unwrap());
        assert_eq!(body["type"], "error", "{body}");
        (status, body["error"]["type"].as_str().unwrap().to_owned())
    };
    for path in PATHS {
        let broken = ask(&gate.client, &gate.url(path), &json!({})).body("{").send().await.unwrap();
        assert_eq!(told(broken).await, (400, "invalid_request_error".into()), "{path}");
        let no_token = gate.client.post(gate.url(path)).body(question(false).to_string()).send().await.unwrap();
        assert_eq!(told(no_token).await, (401, "authentication_error".into()), "{path}");
        let keyed = gate.client.post(gate.url(path)).header("x-api-key", "t").body(question(false).to_string());
        assert_eq!(keyed.send().await.unwrap().status(), 200, "{path}");
    }
    // The vendor's words pass as they came on the vendor's paths, and are told in Anthropic's envelope on the gate's own.
    let refused = |path: &str| gate.post(path, &question(true)).header("x-simulate", "3021").send();
    assert_eq!(told(refused(PATHS[0]).await.unwrap()).await, (429, "rate_limit_error".into()));
    let vendors: Value = refused(PATHS[1]).await.unwrap().json().await.unwrap();
    assert_eq!(vendors["errors"][0]["code"], 3021);
}

#[tokio::test]
async fn a_stream_that_breaks_off_has_cost_what_flowed() {
    let gate = Gate::start();
    let reply = gate.post("/v1/messages", &question(true)).header("x-simulate", "die-mid;at=20").send().await.unwrap();
    assert!(reply.text().await.is_err());
    let facts = gate.receipts.after(1).await.remove(0);
    assert!(facts.cost.is_partial && facts.usage.output_tokens > 5, "{:?}", facts.usage);
}
