//! The asynchronous batch form: `?queueRequest=true` takes a list of requests and gives a `request_id` to poll with.
//!
//! `x-simulate-batch: polls=2;shape=results` has it answer at the third poll, in one of the shapes that users have seen.

use std::collections::HashMap;
use std::str::FromStr;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::envelope::envelope;
use super::usage::usage_json;
use crate::usage::Usage;

/// Answers that wait to be fetched, by their `request_id`.
#[derive(Debug, Default)]
pub(super) struct Batches(Mutex<HashMap<String, Queued>>);

#[derive(Debug)]
struct Queued {
    reply: Value,
    /// So many polls come too early.
    polls: u32,
}

/// The answer to one request of a batch.
pub(super) struct Item {
    pub(super) result: Value,
    pub(super) reference: Value,
    pub(super) usage: Usage,
}

/// How a batch is answered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BatchSettings {
    polls: u32,
    shape: BatchShape,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum BatchShape {
    /// `responses`, and the sum of their usage beside them.
    #[default]
    Responses,
    /// `results`.
    Results,
    /// With `"status": "completed"`.
    Completed,
    /// Each answer in a `result` within its `result`.
    Nested,
    /// The last one first.
    Shuffled,
    /// Usage stands in each answer alone.
    Items,
    /// In the words of `/v1/responses`.
    Words,
    /// No usage at all.
    Silent,
    /// Without Cloudflare's envelope.
    Bare,
}

/// More are not kept; what is queued then is lost, as the vendor's is after a day.
const MAX_BATCHES: usize = 10_000;

impl FromStr for BatchSettings {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut telling = Self::default();
        for part in text.split(';').map(str::trim) {
            let unknown = || format!("{part:?} is no way to answer a batch");
            match part.split_once('=') {
                Some(("polls", polls)) => telling.polls = polls.parse().map_err(|_| unknown())?,
                Some(("shape", shape)) => telling.shape = shape.parse().map_err(|()| unknown())?,
                _ => return Err(unknown()),
            }
        }
        Ok(telling)
    }
}

impl FromStr for BatchShape {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "responses" => Self::Responses,
            "results" => Self::Results,
            "completed" => Self::Completed,
            "nested" => Self::Nested,
            "shuffled" => Self::Shuffled,
            "items" => Self::Items,
            "words" => Self::Words,
            "silent" => Self::Silent,
            "bare" => Self::Bare,
            _ => return Err(()),
        })
    }
}

impl Batches {
    /// Keeps answers until they are polled, and tells what to poll with.
    pub(super) fn queue(&self, items: Vec<Item>, model: &str, id: &str, telling: BatchSettings) -> Value {
        let mut batches = self.0.lock();
        // The same batch may be sent twice, and runs twice.
        let id = match batches.contains_key(id) {
            true => format!("{id}-{}", batches.len()),
            false => id.to_owned(),
        };
        if batches.len() < MAX_BATCHES {
            batches.insert(id.clone(), Queued { reply: telling.shape.reply(items), polls: telling.polls });
        }
        let told = json!({"status": "queued", "request_id": id, "model": model});
        if telling.shape == BatchShape::Bare { told } else { envelope(told) }
    }

    /// What was answered, or that it is not yet; `None` for an id that is none.
    pub(super) fn poll(&self, id: &str) -> Option<Value> {
        let mut batches = self.0.lock();
        let batch = batches.get_mut(id)?;
        if batch.polls == 0 {
            return Some(batch.reply.clone());
        }
        batch.polls -= 1;
        Some(envelope(match batch.polls % 3 {
            0 => json!({"status": "running", "request_id": id}),
            1 => json!({"status": "queued", "request_id": id}),
            _ => json!({}),
        }))
    }
}

impl BatchShape {
    fn reply(self, items: Vec<Item>) -> Value {
        let mut told = responses(items);
        let sum = told["usage"].clone();
        match self {
            Self::Responses | Self::Bare => {}
            Self::Results => {
                let items = told["responses"].take();
                told = json!({"results": items, "usage": sum});
            }
            Self::Completed => told["status"] = json!("completed"),
            Self::Nested => each(&mut told, |item| item["result"] = json!({"result": item["result"].take()})),
            Self::Shuffled => {
                if let Some(items) = told["responses"].as_array_mut() {
                    items.reverse();
                }
            }
            Self::Items => told["usage"] = Value::Null,
            Self::Words => {
                let words = |usage: &Value| json!({"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]});
                told["usage"] = Value::Null;
                each(&mut told, |item| item["result"]["usage"] = words(&item["result"]["usage"].take()));
            }
            Self::Silent => {
                told["usage"] = Value::Null;
                each(&mut told, |item| item["result"]["usage"] = Value::Null);
            }
        }
        if self == Self::Bare { told } else { envelope(told) }
    }
}

fn each(told: &mut Value, mut change: impl FnMut(&mut Value)) {
    told["responses"].as_array_mut().into_iter().flatten().for_each(&mut change);
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
