//! The slow and plain reading: the whole text at once, as JSON values.

use serde_json::{Deserializer, Value};
use tollgate::call::Endpoint;
use tollgate::receipt::{Ending, Facts, Outcome, Source};
use tollgate::vendor_error::Meaning;

use super::generate::Reply;

/// What is told of a call.
#[derive(Debug, PartialEq)]
pub struct Told {
    pub ending: Ended,
    pub outcome: Outcome,
    /// Read, cached, written, and micro-neurons, where the reply told any.
    pub usage: Option<(u64, u64, u64, u64)>,
    pub is_partial: bool,
    pub is_kept: bool,
}

/// How a reply ended, by what a caller can do with it.
#[derive(Debug, PartialEq, Clone, Copy)]
pub enum Ended {
    Answer,
    Empty,
    Failed,
    CutOff,
}

pub struct Reckoned {
    pub told: Told,
}

/// What the receipt tells.
pub fn told(facts: &Facts, is_kept: bool) -> Told {
    let ending = match facts.ending {
        Ending::Answer => Ended::Answer,
        Ending::Empty => Ended::Empty,
        Ending::Failed(Meaning::CutOff) => Ended::CutOff,
        Ending::Failed(_) => Ended::Failed,
        // The connection broke before anything was handed on.
        _ => Ended::CutOff,
    };
    let (usage, cost) = (&facts.usage, &facts.cost);
    let is_told = cost.source > Source::Estimated;
    let counts = (usage.input_tokens, usage.cached_input_tokens, usage.output_tokens, cost.neurons.micro());
    Told {
        ending,
        outcome: facts.outcome,
        usage: is_told.then_some(counts),
        // Where nothing was handed on, the attempt itself is what may have cost.
        is_partial: cost.is_partial || facts.attempts.iter().any(|attempt| attempt.may_have_cost),
        is_kept,
    }
}

/// What is to be told of these bytes.
pub fn reckon(reply: &Reply, sent: &[u8], resets: bool) -> Reckoned {
    let text = String::from_utf8_lossy(sent);
    let text = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    let mut reading = Plain { responses: reply.endpoint == Endpoint::Responses, ..Plain::default() };
    let is_document = text.starts_with('{');
    if is_document {
        // Before its end a document is none.
        if let (false, Ok(document)) = (resets, serde_json::from_str::<Value>(text)) {
            reading.document(&document, "");
            reading.is_ended = true;
        }
    } else {
        reading.events(text, resets);
    }
    let ending = match reading {
        Plain { failed: true, .. } => Ended::Failed,
        Plain { is_ended: true, is_usable: true, .. } => Ended::Answer,
        Plain { is_ended: true, .. } => Ended::Empty,
        _ => Ended::CutOff,
    };
    // A reset that was heard of before anything was handed on is no reply at all.
    let usage = reading.sum.map(|sum| sum.priced());
    let is_lost = ending == Ended::CutOff && resets && (is_document || !reading.has_told);
    let is_known = usage.is_some();
    let outcome = match ending {
        Ended::Answer | Ended::Empty => Outcome::Ok,
        Ended::Failed => reading.outcome.unwrap_or(Outcome::UpstreamError),
        Ended::CutOff => Outcome::UpstreamError,
    };
    let has_run = reading.has_written || reading.is_usable || usage.is_some_and(|usage| usage.2 > 0);
    let is_partial = match ending {
        Ended::CutOff => true,
        Ended::Failed => has_run && !is_known,
        _ => false,
    };
    let usage = usage.filter(|_| !is_lost);
    Reckoned { told: Told { ending, outcome, usage, is_partial, is_kept: ending == Ended::Answer } }
}

#[derive(Default)]
struct Plain {
    responses: bool,
    sum: Option<Sum>,
    failed: bool,
    outcome: Option<Outcome>,
    is_ended: bool,
    is_usable: bool,
    /// Text was written that could be read.
    has_written: bool,
    /// More was said than that an answer begins.
    has_told: bool,
    ends_as: &'static str,
}

/// Tokens and neurons so far.
#[derive(Clone, Copy, Default)]
struct Sum {
    input: u64,
    cached: u64,
    output: u64,
    neurons: Option<f64>,
    has_tokens: bool,
}

impl Sum {
    fn priced(&self) -> (u64, u64, u64, u64) {
        let table = self.input * 2457 + self.output * 18252;
        let cost = self.neurons.map_or(table, |neurons| (neurons * 1e6).round() as u64);
        (self.input, self.cached, self.output, cost)
    }
}

impl Plain {
    fn events(&mut self, text: &str, resets: bool) {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let mut lines: Vec<&str> = text.split('\n').collect();
        // What stands behind the last line break is a line only where nothing more comes.
        let rest = lines.pop().unwrap_or_default();
        if !resets {
            lines.push(rest);
            lines.push("");
        }
        let (mut name, mut data) = (String::new(), Vec::new());
        for line in lines {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                // Behind a document that goes on it is part of that.
                "data" if value.trim_matches(' ') == "[DONE]" && documents(&data.join("\n")).is_ok() => {
                    self.event(&name, &std::mem::take(&mut data).join("\n"));
                    self.is_ended |= self.ends_as.is_empty();
                }
                "data" => data.push(value),
                "event" => name = value.to_owned(),
                "" if line.is_empty() => {
                    self.event(&name, &std::mem::take(&mut data).join("\n"));
                    name.clear();
                }
                _ => {}
            }
        }
    }

    fn event(&mut self, name: &str, data: &str) {
        if data.trim().is_empty() {
            return;
        }
        match documents(data) {
            Ok(documents) => documents.iter().for_each(|document| self.document(document, name)),
            Err(_) => {
                self.has_told = true;
                self.failed |= name == "error";
            }
        }
    }

    fn document(&mut self, document: &Value, name: &str) {
        let kind = document["type"].as_str().unwrap_or(name);
        self.responses |= name.starts_with("response.");
        let wrap = if self.responses && document["response"].is_object() {
            &document["response"]
        } else {
            &document["result"]
        };
        let choices: Vec<&Value> =
            [wrap, document].iter().find_map(|v| v["choices"].as_array()).into_iter().flatten().collect();
        if kind.starts_with("response.") {
            self.ends_as = "response";
        }
        self.is_ended |=
            matches!(kind, "response.completed" | "response.failed" | "response.incomplete" | "message_stop");
        self.count(
            [wrap, document].map(|v| &v["usage"]).into_iter().chain(choices.first().map(|c| &c["usage"])),
            [&wrap["metrics"], &document["metrics"]],
        );
        let written = self.text(document, kind, !name.is_empty() || self.responses && !self.ends_as.is_empty());
        self.has_written |= written > 0;
        let usable = self.usable(document, wrap, &choices, kind);
        self.is_usable |= usable;
        let is_opening = kind.ends_with("created") || kind.ends_with("in_progress") || kind.ends_with(".added");
        let says_little = is_opening
            || document.get("choices").is_some()
            || document.get("response").is_some()
            || document.get("usage").is_some();
        self.has_told |= written > 0 || usable || !says_little;
        if !self.failed {
            self.failed = self.has_failed(document, wrap, &choices, kind);
        }
    }

    fn count<'a>(&mut self, usages: impl Iterator<Item = &'a Value>, metrics: [&Value; 2]) {
        let read: Vec<Counts> = usages.filter(|usage| usage.is_object()).map(Counts::of).collect();
        let first = read.iter().find(|counts| counts.says_something()).or(read.first()).copied();
        self.add(first);
        if !self.sum.unwrap_or_default().has_tokens {
            self.add(metrics.into_iter().find(|metrics| metrics.is_object()).map(Counts::of));
        }
    }

    fn add(&mut self, counts: Option<Counts>) {
        let Some(counts) = counts.filter(|counts| !counts.absurd) else { return };
        let mut sum = self.sum.unwrap_or_default();
        let (input, output) = (counts.input.unwrap_or(0), counts.output);
        if input == 0 && output == 0 {
            let is_last_word = counts.neurons.is_some_and(|n| n > 0.0 || sum.neurons.is_none() && !sum.has_tokens);
            if is_last_word {
                sum.neurons = counts.neurons;
                self.sum = Some(sum);
            }
            return;
        }
        if input == 0 && sum.input > 0 && (counts.input.is_some() || !counts.running) {
            sum.output += output;
            sum.neurons = match (sum.neurons, counts.neurons) {
                (Some(a), Some(b)) => Some(a + b),
                (a, _) => a,
            };
        } else if input == 0 && sum.input > 0 {
            sum.output = sum.output.max(output);
            sum.neurons = counts.neurons.or(sum.neurons);
        } else {
            (sum.input, sum.cached, sum.output, sum.neurons) = (input, counts.cached, output, counts.neurons);
        }
        sum.has_tokens = true;
        self.sum = Some(sum);
    }

    /// Bytes of text that a model wrote.
    fn text(&self, document: &Value, _: &str, is_response_stream: bool) -> usize {
        if is_response_stream {
            return document["delta"].as_str().map_or(0, str::len);
        }
        fn walk(value: &Value, is_text: bool) -> usize {
            const TEXTS: [&str; 15] = [
                "content",
                "reasoning_content",
                "reasoning",
                "thinking",
                "text",
                "description",
                "delta",
                "arguments",
                "answer",
                "translated_text",
                "summary",
                "generated_text",
                "response",
                "refusal",
                "delta",
            ];
            match value {
                Value::String(text) if is_text => text.len(),
                Value::Array(items) => items.iter().map(|item| walk(item, is_text)).sum(),
                Value::Object(fields) => fields
                    .iter()
                    .filter(|(name, _)| !matches!(name.as_str(), "error" | "errors" | "usage" | "metrics"))
                    .map(|(name, value)| walk(value, TEXTS.contains(&name.as_str())))
                    .sum(),
                _ => 0,
            }
        }
        walk(document, false)
    }

    fn usable(&self, document: &Value, wrap: &Value, choices: &[&Value], kind: &str) -> bool {
        if kind.ends_with("created")
            || kind.ends_with("in_progress")
            || kind.ends_with(".added")
            || kind.contains("reasoning")
        {
            return false;
        }
        if document.get("choices").is_some() || wrap.get("choices").is_some() {
            return choices.iter().any(|choice| {
                let said = |message: &Value| {
                    ["content", "refusal", "tool_calls", "text"].iter().any(|name| has_leaf(&message[*name]))
                };
                said(&choice["message"]) || said(&choice["delta"]) || has_leaf(&choice["text"])
            });
        }
        let items = [wrap, document].into_iter().filter_map(|v| v["output"].as_array()).flatten();
        let has_output = items.into_iter().any(|item| {
            let fields = item.as_object().into_iter().flatten();
            let said = fields.filter(|(name, _)| !matches!(name.as_str(), "id" | "type" | "status" | "role"));
            item["type"] != "reasoning" && said.into_iter().any(|(_, value)| has_leaf(value))
        });
        if has_output {
            return true;
        }
        if self.responses {
            return ["delta", "text", "arguments"].iter().any(|name| has_leaf(&document[*name]));
        }
        const ASIDE: [&str; 17] = [
            "usage", "metrics", "error", "errors", "success", "messages", "id", "model", "object", "created", "p",
            "shape", "pooling", "type", "status", "result", "output",
        ];
        [document, wrap].into_iter().any(|value| match value {
            Value::Object(fields) => {
                fields.iter().any(|(name, value)| !ASIDE.contains(&name.as_str()) && has_leaf(value))
            }
            other => std::ptr::eq(value, wrap) && has_leaf(other),
        })
    }

    fn has_failed(&mut self, document: &Value, wrap: &Value, choices: &[&Value], kind: &str) -> bool {
        let places = [&document["errors"], &document["error"], &wrap["error"]].into_iter();
        let told = places.chain(choices.iter().map(|choice| &choice["error"])).find(|error| !is_nothing(error));
        if let Some(error) = told {
            self.outcome = Some(outcome(error));
            return true;
        }
        let finished =
            [document, wrap].into_iter().chain(choices.iter().copied()).any(|v| v["finish_reason"] == "error");
        let status = [document, wrap].into_iter().any(|v| v["status"] == "failed");
        let incomplete = [document, wrap].into_iter().any(|v| v["object"] == "response" && v["status"] == "incomplete");
        document["success"] == false
            || finished
            || status
            || incomplete
            || matches!(kind, "error" | "response.failed" | "response.incomplete")
    }
}

fn documents(data: &str) -> serde_json::Result<Vec<Value>> {
    Deserializer::from_str(data).into_iter::<Value>().collect()
}

/// A failure is upstream's, unless it says that time or money is up.
fn outcome(error: &Value) -> Outcome {
    let text = error.to_string();
    match text.as_str() {
        text if text.contains("4006") || text.contains("3036") => Outcome::BudgetExceeded,
        text if text.contains("3007") || text.contains("3046") => Outcome::Timeout,
        _ => Outcome::UpstreamError,
    }
}

#[derive(Clone, Copy)]
struct Counts {
    input: Option<u64>,
    cached: u64,
    output: u64,
    neurons: Option<f64>,
    running: bool,
    absurd: bool,
}

impl Counts {
    fn of(usage: &Value) -> Self {
        let figure = |value: &Value| match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let count = |name: &str| figure(&usage[name]).filter(|n| *n >= 0.0);
        let cached = |name: &str| figure(&usage[name]["cached_tokens"]).filter(|n| *n >= 0.0);
        let all = ["prompt_tokens", "input_tokens", "completion_tokens", "output_tokens"].map(count);
        let [prompt, input, completion, output] = all.map(|n| n.map(|n| n.round() as u64));
        let read = prompt.max(input);
        let cached =
            cached("prompt_tokens_details").unwrap_or(0.0).max(cached("input_tokens_details").unwrap_or(0.0)) as u64;
        Self {
            input: read,
            cached: cached.min(read.unwrap_or(0)),
            output: completion.max(output).unwrap_or(0),
            neurons: count("neurons"),
            running: prompt.is_none() && completion.is_none(),
            absurd: all.into_iter().flatten().any(|n| n > 4_294_967_296.0) || count("neurons").is_some_and(|n| n > 1e9),
        }
    }

    fn says_something(&self) -> bool {
        self.absurd || self.input.unwrap_or(0) > 0 || self.output > 0 || self.neurons.is_some_and(|n| n > 0.0)
    }
}

fn has_leaf(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => items.iter().any(has_leaf),
        Value::Object(fields) => fields.values().any(has_leaf),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.iter().all(is_nothing),
        Value::Object(fields) => fields.values().all(is_nothing),
    }
}
