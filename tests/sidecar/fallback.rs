//! The next model of a chain, over real sockets: who is asked, who is paid, and what the client is told.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate::layers::budget::{OnExceeded, Period, Rule};
use tollgate::neurons::Neurons;
use tollgate::receipt::Outcome;
use tollgate::sidecar::config::Config;
use tollgate::simulator::{Fault, FaultRule, Trouble};

use crate::support::{Gate, LLAMA, vendor};

const NEXT: &str = "@cf/meta/llama-3.2-3b-instruct";
const LAST: &str = "@cf/meta/llama-3.1-8b-instruct-fp8-fast";

fn gate(change: impl FnOnce(&mut Config)) -> Gate {
    Gate::with(vendor(), |config| {
        let chain = format!("[models.\"{LLAMA}\"]\nfallback = [\"{NEXT}\", \"{LAST}\"]\n");
        config.models = Config::parse(&chain, "t").unwrap().models;
        change(config);
    })
}

fn body(stream: bool) -> Value {
    json!({"prompt": "Hello", "max_tokens": 20, "stream": stream})
}

/// The models that upstream was asked for, in order.
fn asked(gate: &Gate) -> Vec<String> {
    let name = |path: &str| path.rsplit_once("/run/").map_or("", |(_, name)| name).to_owned();
    gate.vendor.seen().iter().map(|seen| name(&seen.path)).collect()
}

#[tokio::test]
async fn the_next_model_answers_where_one_has_no_capacity_or_is_gone_and_is_the_one_that_is_paid() {
    for stream in [false, true] {
        let gate = gate(|_| {});
        gate.vendor.fault(FaultRule::always(Fault::new(Trouble::Error(3040))).on(LLAMA));
        gate.vendor.fault(FaultRule::always(Fault::new(Trouble::Error(410))).on(NEXT));
        let reply = gate.run(LLAMA, &body(stream)).await;
        assert_eq!((reply.status().as_u16(), &reply.headers()["cf-aig-step"]), (200, &"2".parse().unwrap()));
        let text = reply.text().await.unwrap();
        assert!(text.contains("response"), "{text}");
        assert_eq!(asked(&gate), [LLAMA, NEXT, LAST]);
        let receipt = gate.receipts.after(1).await.remove(0);
        assert_eq!((&*receipt.model.id, receipt.step, receipt.outcome), (LAST, 2, Outcome::Ok));
        let statuses: Vec<_> = receipt.attempts.iter().map(|attempt| attempt.status.unwrap().as_u16()).collect();
        assert_eq!(statuses, [429, 410, 200]);
        let charged: Neurons = gate.vendor.counts().models.values().map(|model| model.neurons).sum();
        assert_eq!((receipt.cost.neurons, charged.is_zero()), (charged, false), "only the one that answered costs");
    }
}

#[tokio::test]
async fn a_stream_whose_first_event_is_an_error_goes_to_the_next_model_and_one_that_has_begun_does_not() {
    for (trouble, answered_by) in [(Trouble::ErrorIn200(3040), NEXT), (Trouble::DieMid, LLAMA)] {
        let gate = gate(|_| {});
        gate.vendor.fault(FaultRule::always(Fault::new(trouble)).on(LLAMA));
        let reply = gate.run(LLAMA, &body(true)).await;
        assert_eq!(reply.status(), 200);
        let _ = reply.bytes().await;
        let receipt = gate.receipts.after(1).await.remove(0);
        assert_eq!(&*receipt.model.id, answered_by, "{trouble:?}");
        assert_eq!(asked(&gate).last().map(String::as_str), Some(answered_by), "{trouble:?}");
    }
}

#[tokio::test]
async fn the_last_of_the_chain_has_the_last_word_and_what_no_model_mends_asks_no_other() {
    for (code, status, models) in [(3040, 429, 3), (5004, 400, 1), (3036, 429, 1)] {
        let gate = gate(|_| {});
        gate.vendor.fault(FaultRule::always(Fault::new(Trouble::Error(code))));
        let reply = gate.run(LLAMA, &body(false)).await;
        assert_eq!(reply.status().as_u16(), status, "{code}");
        assert_eq!(asked(&gate).len(), models, "{code}");
        let receipt = gate.receipts.after(1).await.remove(0);
        assert_eq!(receipt.cost.neurons, Neurons::ZERO, "{code}");
    }
}

#[tokio::test]
async fn a_model_that_is_too_slow_is_left_for_the_next_one() {
    let gate = gate(|config| config.upstream.first_byte_timeout = Duration::from_millis(300));
    gate.vendor.fault(FaultRule::always(Fault::new(Trouble::Stall)).on(LLAMA));
    let reply = gate.run(LLAMA, &body(false)).await;
    assert_eq!((reply.status().as_u16(), &reply.headers()["cf-aig-step"]), (200, &"1".parse().unwrap()));
    let receipt = gate.receipts.after(1).await.remove(0);
    assert_eq!((&*receipt.model.id, receipt.attempts.len()), (NEXT, 2));
}

#[tokio::test]
async fn a_budget_without_room_sends_its_calls_to_the_model_that_it_names() {
    let gate = gate(|config| {
        let mut rule = Rule::new("dear", Neurons::from_micro(1), Period::Month);
        rule.models = vec![LLAMA.into()];
        rule.on_exceeded = OnExceeded::Model(LAST.into());
        config.budgets.push(rule);
    });
    let reply = gate.run(LLAMA, &body(false)).await;
    assert_eq!((reply.status().as_u16(), &reply.headers()["cf-aig-step"]), (200, &"1".parse().unwrap()));
    assert_eq!(asked(&gate), [LAST], "the dear one is not asked at all");
    let budgets = gate.budgets().await;
    let dear = budgets["budgets"].as_array().unwrap().iter().find(|budget| budget["name"] == "dear").unwrap();
    assert_eq!((&dear["diverted"], &dear["spent_neurons"]), (&json!(1), &json!(0.0)), "{dear}");
}
