//! The asynchronous batch form: `?queueRequest=true` takes a list of requests and gives a `request_id` to poll with.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::answers::Item;
use super::text::envelope;
use super::told::usage_json;
use crate::usage::Usage;

/// Answers that wait to be fetched, by their `request_id`.
#[derive(Debug, Default)]
pub(super) struct Batches(Mutex<HashMap<String, Value>>);

/// More are not kept; what is queued then is lost, as the vendor's is after a day.
const MAX_BATCHES: usize = 1000;

impl Batches {
    /// Keeps answers until they are polled, and tells what to poll with.
    pub(super) fn queue(&self, items: Vec<Item>, model: &str, id: &str) -> Value {
        let mut batches = self.0.lock();
        if batches.len() < MAX_BATCHES {
            batches.insert(id.to_owned(), responses(items));
        }
        envelope(json!({"status": "queued", "request_id": id, "model": model}))
    }

    /// What was answered; `None` for an id that is none.
    pub(super) fn poll(&self, id: &str) -> Option<Value> {
        self.0.lock().get(id).cloned().map(envelope)
    }
}

/// The answers in the order of their requests, and what they used together.
pub(super) fn responses(items: Vec<Item>) -> Value {
    let (read, written) = items
        .iter()
        .fold((0, 0), |(read, written), item| (read + item.usage.input_tokens, written + item.usage.output_tokens));
    let each = items.into_iter().enumerate().map(|(index, item)| {
        json!({"id": index, "success": true, "result": item.result, "external_reference": item.reference})
    });
    json!({"responses": each.collect::<Vec<_>>(), "usage": usage_json(&Usage::tokens(read, 0, written), None)})
}
