//! The asynchronous batch form: `?queueRequest=true` takes a list of requests and gives a `request_id` to poll with.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::prompt::Prompt;
use super::text::{self, envelope};
use crate::catalogue::Model;
use crate::usage::Usage;

/// Answers that wait to be fetched, by their `request_id`.
#[derive(Debug, Default)]
pub(super) struct Batches(Mutex<HashMap<String, Value>>);

/// More are not kept; what is queued then is lost, as the vendor's is after a day.
const MAX_BATCHES: usize = 1000;

impl Batches {
    /// Answers each of the requests, and tells what to poll with and what they used together.
    pub(super) fn queue(&self, prompt: &Prompt, model: &Model, id: &str) -> (Value, Usage) {
        let mut used = Usage::default();
        let requests = prompt.json["requests"].as_array().into_iter().flatten();
        let responses: Vec<_> = requests
            .enumerate()
            .filter_map(|(index, request)| {
                let prompt = Prompt::read(Bytes::from(request.to_string()), "application/json")?;
                let written = text::write(&prompt, model);
                let usage = text::usage(&prompt, model, 0, &written);
                used.input_tokens += usage.input_tokens;
                used.output_tokens += usage.output_tokens;
                let result = json!({"response": written.text(), "usage": text::usage_json(&usage, None)});
                Some(json!({"id": index, "success": true, "result": result, "external_reference": null}))
            })
            .collect();
        let mut batches = self.0.lock();
        if batches.len() < MAX_BATCHES {
            batches.insert(id.to_owned(), json!({ "responses": responses }));
        }
        (envelope(json!({"status": "queued", "request_id": id, "model": &*model.id})), used)
    }

    /// What was answered; `None` for an id that is none.
    pub(super) fn poll(&self, id: &str) -> Option<Value> {
        self.0.lock().get(id).cloned().map(envelope)
    }
}
