//! moondream's own stream: figures that replace each other, the answer in one piece, and a close that disagrees with them.

use serde_json::{Value, json};

use super::answer::Answer;
use super::event::Event;
use super::usage::usage_json;
use crate::catalogue::Model;
use crate::neurons::Neurons;
use crate::usage::Usage;

/// The neurons that its close tells: the sum of its running figures, so that the input counts twice.
pub(super) fn told_neurons(model: &Model, usage: &Usage) -> Neurons {
    let input = Usage { output_tokens: 0, ..usage.clone() };
    model.prices.cost(&input) + model.prices.cost(usage)
}

/// The events of a native run.
pub(super) fn events(model: &Model, id: &str, answer: &Answer) -> Vec<Event> {
    let usage = &answer.usage;
    let running = |usage: &Usage| usage_json(usage, Some(model.prices.cost(usage)));
    let nothing = running(&Usage::default());
    let read = Usage { output_tokens: 0, ..usage.clone() };
    let with = |mut event: Value, usage: Value| {
        event["usage"] = usage;
        Event::Data(event)
    };
    let metric = |name: &str, value: u64| json!({"mode": "replace", "name": name, "value": value});
    let output = json!([{"answer": answer.written.text()}]);
    let metrics = json!({"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens});
    let close = usage_json(&Usage::default(), Some(told_neurons(model, usage)));
    vec![
        with(json!({"id": id, "status": "processing"}), nothing.clone()),
        with(metric("input_tokens", usage.input_tokens), running(&read)),
        with(metric("output_tokens", usage.output_tokens), running(usage)),
        with(json!({"chunk": output[0], "index": 0}), nothing.clone()),
        with(json!({"id": id, "status": "succeeded", "metrics": metrics, "output": output}), nothing),
        with(json!({"response": ""}), close),
        Event::Done,
    ]
}
