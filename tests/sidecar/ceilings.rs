//! A ceiling a call, dry runs and `/estimate`, over real sockets.

use serde_json::{Value, json};
use tollgate::layers::budget::{Period, Rule};
use tollgate::neurons::Neurons;

use crate::support::{Gate, LLAMA};

const CHAT: &str = "/v1/chat/completions";

fn chat() -> Value {
    json!({"model": LLAMA, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 64})
}

async fn json_of(reply: reqwest::Response) -> Value {
    serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_call_over_its_ceiling_is_refused_in_its_route_s_form_and_one_under_it_is_answered() {
    let gate = Gate::start();
    let refused = gate.post(CHAT, &chat()).header("x-tollgate-max-neurons", "0.000001").send().await.unwrap();
    assert_eq!(refused.status(), 402);
    let bound = refused.headers()["x-tollgate-bound-neurons"].to_str().unwrap().to_owned();
    let told = json_of(refused).await;
    assert_eq!(
        (&told["error"]["code"], &told["error"]["type"]),
        (&json!("over_ceiling"), &json!("insufficient_quota"))
    );
    assert!(told["error"]["message"].as_str().unwrap().contains(&bound), "{told}");
    let native = gate.post(&format!("/run/{LLAMA}"), &json!({"prompt": "Hello"}));
    let native = json_of(native.header("x-tollgate-max-usd", "0").send().await.unwrap()).await;
    assert_eq!((&native["success"], &native["errors"][0]["type"]), (&json!(false), &json!("over_ceiling")));
    let messages = gate.post("/v1/messages", &chat()).header("x-tollgate-max-usd", "0").send().await.unwrap();
    assert_eq!(json_of(messages).await["error"]["type"], "billing_error");
    assert_eq!(gate.vendor.seen().len(), 0);
    // What was told as the bound is a ceiling under which the call is made.
    let made = gate.post(CHAT, &chat()).header("x-tollgate-max-neurons", &bound).send().await.unwrap();
    assert_eq!(made.status(), 200);
    let receipts = gate.receipts.after(4).await;
    assert_eq!(receipts.iter().filter(|facts| facts.refused == Some("over_ceiling")).count(), 3);
}

#[tokio::test]
async fn a_ceiling_that_cannot_be_read_is_told_and_nothing_is_sent() {
    let gate = Gate::start();
    for value in ["-1", "NaN", "1e999", "", "5 USD", "Infinity", "1,000"] {
        let reply = gate.post(CHAT, &chat()).header("x-tollgate-max-neurons", value).send().await.unwrap();
        assert_eq!(reply.status(), 400, "{value}");
        assert_eq!(json_of(reply).await["error"]["code"], "invalid_header");
    }
    let twice = gate.post(CHAT, &chat()).header("x-tollgate-max-usd", "1").header("x-tollgate-max-usd", "1");
    assert_eq!(twice.send().await.unwrap().status(), 400);
    let slip = gate.post(CHAT, &chat()).header("x-tollgate-max-cost", "1").send().await.unwrap();
    assert_eq!(slip.status(), 400);
    // What is no call has no bound, so it does not pass as if it had one.
    let other = gate.client.get(gate.url("/client/v4/accounts/acc/ai/models/search")).bearer_auth("t");
    let other = other.header("x-tollgate-dry-run", "true").send().await.unwrap();
    assert_eq!(other.status(), 400);
    // A step of the universal endpoint whose header is no text.
    let step = json!({"provider": "workers-ai", "endpoint": LLAMA, "query": {"prompt": "x"},
        "headers": {"X-Tollgate-Max-Neurons": [1]}});
    let universal = gate.post("/v1/acc/gw", &json!([step])).send().await.unwrap();
    assert_eq!(universal.status(), 400);
    assert_eq!(gate.vendor.seen().len(), 0);
}

#[tokio::test]
async fn a_dry_run_tells_what_the_call_would_meet_and_makes_no_call() {
    let gate = Gate::with(crate::support::vendor(), |config| {
        config.budgets = vec![Rule::new("team", Neurons::from_whole(100), Period::Day)];
    });
    let seeded =
        json!({"model": LLAMA, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 64, "seed": 7});
    let dry = async |path: &str, body: &Value| {
        let reply = gate.post(path, body).header("x-tollgate-dry-run", "true").send().await.unwrap();
        assert_eq!((reply.status().as_u16(), &reply.headers()["x-tollgate-dry-run"]), (200, &"true".parse().unwrap()));
        json_of(reply).await
    };
    let team = |told: &Value| {
        let budgets = told["budgets"].as_array().unwrap();
        budgets.iter().find(|budget| budget["name"] == "team").unwrap().clone()
    };
    let told = dry(CHAT, &seeded).await;
    assert_eq!((&told["would"], &told["cache"]["status"]), (&json!("send"), &json!("MISS")));
    assert_eq!(team(&told)["left"]["neurons"], 100.0);
    assert_eq!(team(&told)["needs"], told["at_most"]);
    assert_eq!(told["limit"]["remaining"], told["limit"]["requests"]);
    assert!(told["likely"]["neurons"].as_f64().unwrap() > 0.0);
    assert_eq!(gate.vendor.seen().len(), 0);
    // The same call, made: then the cache has it, and the budget has less.
    gate.post(CHAT, &seeded).send().await.unwrap().bytes().await.unwrap();
    let spent = gate.receipts.after(1).await[0].cost.neurons;
    let told = dry(CHAT, &seeded).await;
    assert_eq!((&told["would"], &told["cache"]["status"]), (&json!("hit"), &json!("HIT")));
    let left = Neurons::from_whole(100).saturating_sub(spent);
    assert_eq!(team(&told)["left"]["neurons"], left.as_f64());
    assert!(told["limit"]["remaining"].as_u64() < told["limit"]["requests"].as_u64());
    // It is in no metric and no record.
    assert_eq!((gate.vendor.seen().len(), gate.receipts.all().len()), (1, 1));
    let dear = json!({"model": LLAMA, "messages": [], "max_tokens": 60_000});
    let told = dry(CHAT, &dear).await;
    assert_eq!((&told["would"], &team(&told)["would"]), (&json!("refuse"), &json!("refuse")));
    let reply = gate.post(CHAT, &seeded).header("x-tollgate-dry-run", "1").header("x-tollgate-max-neurons", "0").send();
    assert_eq!(json_of(reply.await.unwrap()).await["ceiling"]["would"], "refuse");
}

#[tokio::test]
async fn estimate_is_a_dry_run_of_the_route_below_it() {
    let gate = Gate::start();
    for (path, body, endpoint) in [
        ("/estimate", json!({"model": LLAMA, "input": {"prompt": "Hello"}}), "run"),
        ("/estimate/run/@cf/meta/llama-3.2-1b-instruct", json!({"prompt": "Hello"}), "run"),
        ("/estimate/v1/chat/completions", chat(), "chat/completions"),
        ("/estimate/v1/completions", json!({"model": LLAMA, "prompt": "Hello"}), "chat/completions"),
        (
            "/estimate/client/v4/accounts/acc/ai/v1/responses",
            json!({"model": LLAMA, "input": "Hello", "max_output_tokens": 9}),
            "responses",
        ),
    ] {
        let reply = gate.post(path, &body).send().await.unwrap();
        assert_eq!(reply.status(), 200, "{path}");
        let told = json_of(reply).await;
        assert_eq!((&told["endpoint"], &told["model"]), (&json!(endpoint), &json!(LLAMA)), "{path}");
        assert!(told["at_most"]["neurons"].as_f64() >= told["likely"]["neurons"].as_f64(), "{told}");
    }
    for (path, status) in [("/estimate/nothing", 404), ("/estimates", 404), ("/estimate/estimate", 404)] {
        assert_eq!(gate.post(path, &chat()).send().await.unwrap().status(), status, "{path}");
    }
    let nameless = gate.post("/estimate", &json!({"prompt": "x"})).send().await.unwrap();
    assert_eq!(nameless.status(), 400);
    assert_eq!(gate.client.get(gate.url("/estimate")).bearer_auth("t").send().await.unwrap().status(), 405);
    assert_eq!(gate.vendor.seen().len(), 0);
}
