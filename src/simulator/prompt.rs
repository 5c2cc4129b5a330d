//! What a request says: read for itself, so that a mistake of the gate's is not made twice.

use bytes::Bytes;
use serde_json::Value;

use super::dice;
use super::tokenizer::Tokenizer;
use crate::usage::Size;

/// A request's body.
#[derive(Debug, Default)]
pub(super) struct Prompt {
    /// The whole, where it is JSON.
    pub(super) json: Value,
    /// Raw bytes: audio, a picture, a form.
    pub(super) bytes: Bytes,
    /// Each text to be read: a message, a prompt, an item to embed.
    pub(super) texts: Vec<String>,
}

/// What is generated where `max_tokens` is absent.
const DEFAULT_MAX_TOKENS: u64 = 256;

impl Prompt {
    /// `None` where the body should be JSON and is not.
    pub(super) fn read(body: Bytes, content_type: &str) -> Option<Self> {
        let looks_json = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        if content_type.contains("json") || looks_json {
            let mut json: Value = serde_json::from_slice(&body).ok()?;
            // `{"model":…,"input":{…}}` wraps the model's own inputs.
            if let Some(input) = json.get_mut("input").filter(|input| input.is_object()) {
                let (input, model) = (input.take(), json.get("model").cloned());
                json = input;
                if let (Some(model), Some(fields)) = (model, json.as_object_mut()) {
                    fields.insert("model".into(), model);
                }
            }
            return Some(Self { texts: texts(&json), json, bytes: body });
        }
        let text = if content_type.starts_with("multipart/") { form_field(&body, "prompt") } else { None };
        Some(Self { json: Value::Null, texts: text.into_iter().collect(), bytes: body })
    }

    pub(super) fn model(&self) -> Option<&str> {
        let name = self.json.get("model")?.as_str()?;
        Some(name.strip_prefix("workers-ai/").unwrap_or(name))
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.json.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.json.get(name).and_then(Value::as_u64).or_else(|| form_field(&self.bytes, name)?.parse().ok())
    }

    pub(super) fn max_tokens(&self) -> u64 {
        let names = ["max_tokens", "max_completion_tokens", "max_output_tokens"];
        names.iter().find_map(|name| self.json.get(*name)?.as_u64()).unwrap_or(DEFAULT_MAX_TOKENS)
    }

    pub(super) fn tokens(&self, tokenizer: Tokenizer) -> u64 {
        let text: u64 = self.texts.iter().map(|text| tokenizer.message + tokenizer.count(text)).sum();
        tokenizer.call + text
    }

    /// The picture that is asked for, where the request says.
    pub(super) fn size(&self, default: Size) -> Size {
        let side = |name, default| self.number(name).and_then(|n| u32::try_from(n).ok()).unwrap_or(default);
        Size { width: side("width", default.width), height: side("height", default.height) }
    }

    /// The same for the same words, however they are asked for.
    pub(super) fn seed(&self, model: &str) -> u64 {
        let words: Vec<&str> = self.texts.iter().map(String::as_str).chain([model]).collect();
        dice::seed(&words)
    }
}

const TEXT_FIELDS: [&str; 12] = [
    "prompt",
    "text",
    "input",
    "input_text",
    "instructions",
    "system",
    "query",
    "question",
    "state",
    "contexts",
    "documents",
    "questions",
];

fn texts(json: &Value) -> Vec<String> {
    let mut texts = Vec::new();
    for message in json.get("messages").and_then(Value::as_array).into_iter().flatten() {
        texts.push(content(&message["content"]));
    }
    for field in TEXT_FIELDS {
        collect(json.get(field).unwrap_or(&Value::Null), &mut texts);
    }
    for field in ["tools", "functions"] {
        if let Some(tools) = json.get(field) {
            texts.push(tools.to_string());
        }
    }
    texts
}

/// A message's content: a text, or parts of which some are texts.
fn content(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part.get("text")?.as_str()).collect(),
        _ => String::new(),
    }
}

fn collect(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect(item, texts)),
        Value::Object(fields) => {
            let texts_of = ["text", "content"].iter().filter_map(|name| fields.get(*name));
            texts_of.for_each(|field| texts.push(content(field)));
        }
        _ => {}
    }
}

/// A short field of a multipart form.
fn form_field(body: &[u8], name: &str) -> Option<String> {
    let head = format!("name=\"{name}\"");
    let start = memchr::memmem::find(body, head.as_bytes())? + head.len();
    let start = start + memchr::memmem::find(&body[start..], b"\r\n\r\n")? + 4;
    let length = memchr::memmem::find(&body[start..], b"\r\n--")?;
    String::from_utf8(body[start..start + length].to_vec()).ok()
}
