//! A reply with embeddings in OpenAI's form, and in base64 where the request asks for that.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::chunks::Stamp;
use super::unwrapped;
use crate::openai::object::{Object, array, count, items, quoted};

/// The reply in OpenAI's form; `None` where this is no reply with embeddings.
pub(super) fn mend(body: &[u8], stamp: &Stamp, is_base64: bool) -> Option<String> {
    let body = unwrapped(body);
    let mut reply = Object::read(&body)?;
    let data = reply.get("data").map(str::to_owned)?;
    let data = items(&data)?.into_iter().zip(0..).map(|(item, index)| embedding(item, index, is_base64));
    let data = array(data.collect::<Option<Vec<_>>>()?);
    reply.set("object", "\"list\"");
    reply.set("data", data);
    reply.remove("shape");
    reply.remove("pooling");
    if reply.get("model").is_none() {
        reply.set_text("model", &stamp.model.id);
    }
    match tokens(&reply) {
        Some(_) if is_whole(&reply) => {}
        Some(tokens) => reply.set("usage", usage(tokens)),
        None => {
            reply.set("usage", usage(stamp.model.tokens.input_tokens(&stamp.read)));
            reply.set("x_tollgate", r#"{"usage":"estimated"}"#);
        }
    }
    Some(reply.json())
}

fn usage(tokens: u64) -> String {
    format!(r#"{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}"#)
}

fn tokens(reply: &Object<'_>) -> Option<u64> {
    let usage = reply.object("usage")?;
    ["prompt_tokens", "input_tokens", "total_tokens"].iter().find_map(|name| count(usage.get(name)?))
}

fn is_whole(reply: &Object<'_>) -> bool {
    let is_count = |json: &str| json.bytes().all(|byte| byte.is_ascii_digit());
    reply
        .object("usage")
        .is_some_and(|usage| ["prompt_tokens", "total_tokens"].iter().all(|name| usage.get(name).is_some_and(is_count)))
}

/// OpenAI's item of the vendor's: an item, or a vector alone.
fn embedding(item: &str, index: u64, is_base64: bool) -> Option<String> {
    let mut item = match Object::read(item.as_bytes()) {
        Some(item) => item,
        None => {
            let mut bare = Object::default();
            bare.set("embedding", item);
            bare
        }
    };
    item.set("object", "\"embedding\"");
    if item.get("index").is_none() {
        item.set("index", index.to_string());
    }
    if is_base64 {
        let vector = item.get("embedding")?;
        if vector.starts_with('[') {
            let encoded = base64(vector)?;
            item.set("embedding", encoded);
        }
    }
    Some(item.json())
}

/// A vector as OpenAI's clients decode it: 32-bit floats, little-endian, in base64.
fn base64(vector: &str) -> Option<String> {
    let numbers: Vec<f32> = serde_json::from_str(vector).ok()?;
    let bytes: Vec<u8> = numbers.into_iter().flat_map(f32::to_le_bytes).collect();
    Some(quoted(&STANDARD.encode(bytes)))
}
