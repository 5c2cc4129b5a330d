//! Names that are routes: the vendor runs a model of its choice, and money is held all the same.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tollgate::sidecar::config::Config;

use crate::support::{Gate, LLAMA, vendor};

const LLAMA_70B: &str = "@cf/meta/llama-3.3-70b-instruct-fp8-fast";
const ROUTES: [&str; 3] = ["cloudflare/auto", "dynamic/support", "custom/pool"];

/// A gate with a budget of 100 neurons, and more config.
fn gate(more: &str) -> Gate {
    let text = format!("[[budgets]]\nname = 'all'\nlimit = '100 neurons'\nwindow = 'month'\n{more}");
    let parsed = Config::parse(&text, "test").unwrap();
    Gate::with(vendor(), |config| (config.budgets, config.reservations) = (parsed.budgets, parsed.reservations))
}

fn ask(gate: &Gate, model: &str, n: usize, allowed: Option<&str>) -> reqwest::RequestBuilder {
    let messages = json!([{"role": "user", "content": format!("{n}: why is the sky blue?")}]);
    let body = json!({"model": model, "messages": messages, "max_tokens": 200});
    let asked = gate.post("/v1/chat/completions", &body);
    match allowed {
        Some(models) => asked.header("cf-aig-allowed-models", models),
        None => asked,
    }
}

#[tokio::test]
async fn a_route_of_which_nothing_is_known_is_refused_under_a_budget_with_what_to_add() {
    let gate = gate("");
    for route in ROUTES {
        for n in 0..5 {
            let reply = ask(&gate, route, n, None).send().await.unwrap();
            assert!(!reply.status().is_success(), "{route} passed");
            let error = reply.json::<Value>().await.unwrap()["error"]["message"].as_str().unwrap().to_owned();
            let mend = if route == ROUTES[0] { "cf-aig-allowed-models" } else { "prices" };
            assert!(error.contains(mend) && error.contains("unpriced"), "{route}: {error}");
        }
    }
    // A list with a model in it that is not known is no bound.
    let reply = ask(&gate, ROUTES[0], 0, Some("@cf/meta/llama-3.2-1b-instruct,@cf/nobody/knows")).send().await.unwrap();
    assert!(!reply.status().is_success());
    assert_eq!(gate.vendor.spent("acc").micro(), 0);
}

#[tokio::test]
async fn a_route_takes_what_the_config_says_and_is_charged_what_the_model_that_ran_costs() {
    let gate = gate("[reservations]\nunpriced = '50 neurons'");
    for route in ROUTES {
        let replies = join_all((0..5).map(|n| ask(&gate, route, n, None).send())).await;
        let passed = replies.iter().filter(|reply| reply.as_ref().unwrap().status().is_success()).count();
        assert!(passed >= 1 || route != ROUTES[0], "{route}: none of 5 passed");
        for reply in replies.into_iter().map(Result::unwrap).filter(|reply| reply.status().is_success()) {
            assert_eq!(reply.headers()["cf-aig-routed-model"], LLAMA_70B);
            assert!(reply.json::<Value>().await.unwrap()["usage"]["completion_tokens"].as_u64() > Some(0));
        }
        crate::support::until(async || gate.budgets().await["budgets"][0]["reserved_neurons"] == 0.0).await;
    }
    let receipts = gate.receipts.after(15).await;
    let charged: u64 = receipts.iter().map(|facts| facts.cost.neurons.micro()).sum();
    assert!(charged > 0 && charged <= 100_000_000 && charged == gate.vendor.spent("acc").micro(), "{charged}");
    assert!(receipts.iter().filter(|facts| facts.cost.neurons.micro() > 0).all(|facts| &*facts.model.id == LLAMA_70B));
}

#[tokio::test]
async fn the_dearest_of_the_models_that_a_router_may_choose_is_the_bound() {
    let models = format!("{LLAMA}, {LLAMA_70B}");
    let gate = gate("");
    let replies = join_all((0..100).map(|n| ask(&gate, ROUTES[0], n, Some(&models)).send())).await;
    let passed: Vec<_> = replies.into_iter().map(Result::unwrap).filter(|reply| reply.status().is_success()).collect();
    let ran: std::collections::BTreeSet<_> =
        passed.iter().map(|reply| reply.headers()["cf-aig-routed-model"].to_str().unwrap().to_owned()).collect();
    let receipts = gate.receipts.after(100).await;
    let spent = gate.vendor.spent("acc").as_f64();
    assert!(passed.len() >= 2 && spent > 0.0 && spent <= 100.0, "{} calls for {spent} neurons", passed.len());
    assert_eq!(ran.len(), 2, "{ran:?}");
    // 200 tokens of the dearer one, and the question.
    let bound = receipts.iter().filter_map(|facts| facts.estimate.as_ref()?.upper).map(|upper| upper.as_f64());
    let (least, most) = bound.fold((f64::MAX, 0.0_f64), |(least, most), one| (least.min(one), most.max(one)));
    assert!(least >= 200.0 * 0.204 && most < 60.0, "{least} to {most}");
}
