//! The AI Gateway's universal endpoint: a list of steps, each of which is a call.

use serde_json::{Value, json};
use tollgate::receipt::{Outcome, Source};
use tollgate::sidecar::config::Config;
use tollgate::simulator;

use crate::support::{GEMMA, Gate, LLAMA, TOKEN};

const PATH: &str = "/v1/acc/gw";
const GPT: &str =
    "[models.'openai/gpt-test']\ntask = 'Text Generation'\nprices = { input_token = 1000, output_token = 4000 }\n";

/// The simulator knows the model of another provider, and the gate's config has this.
fn gate(config: &str) -> Gate {
    let mut settings = simulator::Settings::default();
    (settings.latency, settings.rate_limits) = (0.0, false);
    settings.models = Config::parse(GPT, "test").unwrap().models;
    let parsed = Config::parse(config, "test").unwrap();
    Gate::with(simulator::start(settings).unwrap(), |config| {
        (config.budgets, config.reservations) = (parsed.budgets, parsed.reservations);
        config.models.extend(parsed.models);
    })
}

fn native(model: &str) -> Value {
    json!({"provider": "workers-ai", "endpoint": model, "headers": {"Content-Type": "application/json"},
        "query": {"prompt": "Why is the sky blue?", "max_tokens": 32}})
}

fn chat(provider: &str, endpoint: &str, model: &str) -> Value {
    let query = json!({"model": model, "max_tokens": 32, "messages": [{"role": "user", "content": "Why?"}]});
    json!({"provider": provider, "endpoint": endpoint, "headers": {"Authorization": "Bearer theirs"}, "query": query})
}

async fn ask(gate: &Gate, steps: &Value) -> (u16, Option<String>, Value) {
    let reply = gate.post(PATH, steps).send().await.unwrap();
    let step = reply.headers().get("cf-aig-step").map(|step| step.to_str().unwrap().to_owned());
    (reply.status().as_u16(), step, reply.json().await.unwrap())
}

#[tokio::test]
async fn steps_are_asked_in_their_order_until_one_answers_and_each_has_its_receipt() {
    let gate = gate("");
    let steps = json!([native("@cf/nobody/knows"), chat("workers-ai", "v1/chat/completions", GEMMA), native(LLAMA)]);
    let (status, step, reply) = ask(&gate, &steps).await;
    assert_eq!((status, step.as_deref()), (200, Some("1")), "{reply}");
    assert!(reply["choices"][0]["message"]["content"].is_string());
    let receipts = gate.receipts.after(2).await;
    let told: Vec<_> = receipts.iter().map(|facts| (&*facts.asked.id, facts.outcome)).collect();
    assert_eq!(told, [("@cf/nobody/knows", Outcome::ClientError), (GEMMA, Outcome::Ok)]);
    let ours: u64 = receipts.iter().map(|facts| facts.cost.neurons.micro()).sum();
    assert_eq!(ours, gate.vendor.spent("acc").micro());
}

#[tokio::test]
async fn every_form_of_a_step_is_a_call() {
    let gate = gate("");
    let run = json!({"provider": "workers-ai", "endpoint": format!("run/{LLAMA}"), "query": {"prompt": "Hi"}});
    let compat = chat("compat", "chat/completions", &format!("workers-ai/{LLAMA}"));
    for step in [native(LLAMA), run, compat] {
        assert_eq!(ask(&gate, &json!([step])).await.0, 200);
        assert_eq!(ask(&gate, &step).await.0, 200, "one alone needs no list");
    }
    let mut streamed = chat("workers-ai", "v1/chat/completions", LLAMA);
    streamed["query"]["stream"] = json!(true);
    let text =
        gate.post(PATH, &json!([native("@cf/nobody/knows"), streamed])).send().await.unwrap().text().await.unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
}

#[tokio::test]
async fn the_last_refusal_is_the_clients_and_what_is_no_list_is_told() {
    let gate = gate("");
    let (status, step, reply) = ask(&gate, &json!([native("@cf/nobody/a"), native("@cf/nobody/b")])).await;
    assert_eq!((status, step.as_deref(), &reply["errors"][0]["code"]), (400, Some("1"), &json!(5007)));
    for wrong in [json!([]), json!([7]), json!("x"), json!([{"provider": "workers-ai"}])] {
        let (status, step, reply) = ask(&gate, &wrong).await;
        assert_eq!((status, step), (400, None), "{reply}");
    }
    // A route that is none is no account's.
    assert_eq!(gate.post("/v1/images/edits", &json!([])).send().await.unwrap().status(), 404);
    let read = gate.client.get(gate.url(PATH)).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!((read.status().as_u16(), &read.headers()["allow"]), (405, &"POST".parse().unwrap()));
}

#[tokio::test]
async fn another_providers_step_keeps_its_own_token_and_is_priced_by_the_config() {
    let gate = gate(GPT);
    let (status, step, reply) = ask(&gate, &json!([chat("openai", "chat/completions", "gpt-test")])).await;
    assert_eq!((status, step.as_deref()), (200, Some("0")), "{reply}");
    let seen = gate.vendor.seen().pop().unwrap();
    assert_eq!(
        (seen.path.as_str(), &seen.headers["authorization"]),
        ("/v1/acc/gw/openai/chat/completions", &"Bearer theirs".parse().unwrap())
    );
    let facts = gate.receipts.after(1).await.remove(0);
    assert_eq!((&*facts.model.id, facts.cost.source), ("openai/gpt-test", Source::Computed));
    assert_eq!(facts.cost.neurons, gate.vendor.spent("acc"));
}

#[tokio::test]
async fn where_money_is_held_a_step_without_a_price_is_refused_and_the_next_one_answers() {
    let budget = "[[budgets]]\nname = 'all'\nlimit = '1000 neurons'\nwindow = 'day'\n";
    let gate = gate(budget);
    let steps = json!([chat("openai", "chat/completions", "gpt-test"), native(LLAMA)]);
    let (status, step, reply) = ask(&gate, &steps).await;
    assert_eq!((status, step.as_deref()), (200, Some("1")), "{reply}");
    assert_eq!(gate.receipts.after(2).await[0].refused, Some("cost_unbounded"));
    let (status, _, reply) = ask(&gate, &json!([chat("openai", "chat/completions", "gpt-test")])).await;
    assert_eq!(status, 429, "{reply}");
    assert!(gate.vendor.seen().iter().all(|seen| !seen.path.contains("openai")));
}

#[tokio::test]
async fn a_request_to_another_provider_by_itself_is_priced_where_money_is_held_and_else_passes_unread() {
    let budget = "[[budgets]]\nname = 'all'\nlimit = '1000 neurons'\nwindow = 'day'\n";
    let path = "/v1/acc/gw/openai/chat/completions";
    let ask = async |gate: &Gate, path: &str, query: &Value| {
        let reply = gate.post(path, query).header("authorization", "Bearer theirs").send().await.unwrap();
        reply.status().as_u16()
    };
    let query = |max: u64| {
        let messages = json!([{"role": "user", "content": "Why?"}]);
        json!({"model": "gpt-test", "max_tokens": max, "messages": messages})
    };
    // With a price: a call like any other.
    let priced = gate(&format!("{budget}{GPT}"));
    assert_eq!(ask(&priced, path, &query(32)).await, 200);
    let seen = priced.vendor.seen().pop().unwrap();
    assert_eq!((seen.path.as_str(), seen.headers.get_all("authorization").iter().count()), (path, 2));
    let facts = priced.receipts.after(1).await.remove(0);
    assert_eq!((&*facts.model.id, facts.cost.source), ("openai/gpt-test", Source::Computed));
    assert_eq!(facts.cost.neurons, priced.vendor.spent("acc"));
    // More than there is: 4,000 micro-neurons a token.
    assert_eq!(ask(&priced, path, &query(1_000_000)).await, 429);
    // Without one: refused, in whatever form it comes.
    let unpriced = gate(budget);
    for path in
        [path, "/v1/acc/gw/replicate/predictions", "/v1/acc/gw/google-ai-studio/v1/models/gemini:generateContent"]
    {
        assert_eq!(ask(&unpriced, path, &query(32)).await, 429, "{path}");
    }
    assert!(unpriced.vendor.seen().is_empty());
    // Where no money is held it passes unread, as do readings.
    let open = gate("");
    assert_eq!(ask(&open, path, &query(32)).await, 200);
    assert!(open.receipts.all().is_empty());
    let read = unpriced.client.get(unpriced.url("/v1/acc/gw/openai/models")).bearer_auth("theirs").send();
    assert_ne!(read.await.unwrap().status().as_u16(), 429);
}
