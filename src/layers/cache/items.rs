//! Embeddings by the item: a call with many texts, of which some are known.

use std::collections::HashMap;
use std::fmt::{self, Write};

use bytes::Bytes;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::canonical;
use super::key::{Key, Scope};
use crate::call::{Call, Endpoint};
use crate::catalogue::Task;

/// An embeddings call taken apart.
pub(super) struct Items<'a> {
    fields: Vec<(&'a str, &'a RawValue)>,
    /// The field that holds the texts.
    field: &'static str,
    texts: Vec<&'a RawValue>,
    pub(super) keys: Vec<Key>,
    is_native: bool,
}

/// A reply taken apart: a vector for each text, as it was written, and the rest.
pub(super) struct Vectors<'a> {
    pub(super) vectors: Vec<&'a RawValue>,
    usage: Option<&'a RawValue>,
    pooling: Option<&'a RawValue>,
    model: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct OpenAiReply<'a> {
    #[serde(borrow)]
    data: Vec<OpenAiItem<'a>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    model: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct OpenAiItem<'a> {
    index: usize,
    #[serde(borrow)]
    embedding: &'a RawValue,
}

#[derive(Deserialize)]
struct NativeReply<'a> {
    #[serde(borrow)]
    result: NativeResult<'a>,
}

#[derive(Deserialize)]
struct NativeResult<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    pooling: Option<&'a RawValue>,
}

/// An object's fields, each value as it was written.
struct Object<'a>(Vec<(&'a str, &'a RawValue)>);

/// The vendor takes fewer; more is no call to be taken apart.
const MAX_ITEMS: usize = 100_000;

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry::<&'de str, &'de RawValue>()? {
                    fields.push(field);
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl<'a> Items<'a> {
    /// `None` where the call is no list of texts to embed.
    pub(super) fn of(call: &'a Call, scope: &Scope) -> Option<Self> {
        if call.model.task != Task::TextEmbeddings || call.options.cache_key.is_some() || call.stream {
            return None;
        }
        let field = match call.endpoint {
            Endpoint::Embeddings => "input",
            Endpoint::Run => "text",
            _ => return None,
        };
        let Object(fields) = serde_json::from_slice(call.plain_body()).ok()?;
        if has_twins(&fields) {
            return None;
        }
        let (_, list) = fields.iter().find(|(name, _)| *name == field)?;
        let texts: Vec<&RawValue> = serde_json::from_str(list.get()).ok()?;
        let are_texts = texts.iter().all(|text| text.get().starts_with('"'));
        if texts.is_empty() || texts.len() > MAX_ITEMS || !are_texts {
            return None;
        }
        let others: Vec<_> = fields.iter().filter(|(name, _)| *name != field).copied().collect();
        let rest = canonical::fields(&others)?;
        let keys = texts.iter().map(|text| scope.item(&rest, text)).collect();
        Some(Self { fields, field, texts, keys, is_native: call.endpoint.is_native() })
    }

    /// The places of the texts that are to be asked for: unknown, and each only once.
    pub(super) fn missing(&self, known: &[Option<Bytes>]) -> Vec<usize> {
        let mut first = HashMap::new();
        let unknown = (0..self.texts.len()).filter(|place| known[*place].is_none());
        unknown.filter(|place| *first.entry(self.keys[*place]).or_insert(*place) == *place).collect()
    }

    /// The body that asks for these alone.
    pub(super) fn body(&self, places: &[usize]) -> Option<Bytes> {
        let texts: Vec<&RawValue> = places.iter().map(|place| self.texts[*place]).collect();
        let texts = serde_json::value::to_raw_value(&texts).ok()?;
        let mut body = String::from("{");
        for (index, (name, value)) in self.fields.iter().enumerate() {
            let value = if *name == self.field { texts.get() } else { value.get() };
            let comma = if index > 0 { "," } else { "" };
            // Writing to a String cannot fail.
            let _ = write!(body, "{comma}{}:{value}", serde_json::to_string(name).ok()?);
        }
        body.push('}');
        Some(body.into())
    }

    /// Where the model's name stands in a body that [`body`](Self::body) made.
    pub(super) fn model_in(&self, body: &[u8]) -> Option<std::ops::Range<usize>> {
        let Object(fields) = serde_json::from_slice(body).ok()?;
        let (_, model) = fields.iter().find(|(name, _)| *name == "model")?;
        let start = model.get().as_ptr() as usize - body.as_ptr() as usize;
        Some(start..start + model.get().len())
    }

    /// The bytes of text at a place: by which a call's cost is shared among its items.
    pub(super) fn bytes(&self, place: usize) -> u64 {
        self.texts[place].get().len() as u64
    }

    /// Takes a reply apart; `None` where it does not have a vector for each of so many texts.
    pub(super) fn read<'r>(&self, reply: &'r [u8], count: usize) -> Option<Vectors<'r>> {
        let read = if self.is_native {
            let NativeReply { result: NativeResult { data, usage, pooling } } = serde_json::from_slice(reply).ok()?;
            Vectors { vectors: data, usage, pooling, model: None }
        } else {
            let OpenAiReply { mut data, usage, model } = serde_json::from_slice(reply).ok()?;
            data.sort_by_key(|item| item.index);
            let vectors = data.into_iter().map(|item| item.embedding).collect();
            Vectors { vectors, usage, pooling: None, model }
        };
        (read.vectors.len() == count).then_some(read)
    }

    /// A reply with these vectors, in the form of the route. `read` is what upstream said of the part it was asked for.
    pub(super) fn reply(&self, vectors: &[Bytes], pooling: Option<&Bytes>, read: Option<&Vectors<'_>>) -> Bytes {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let nothing = r#"{"prompt_tokens":0,"total_tokens":0}"#;
        let told = read.and_then(|read| read.usage).map(RawValue::get);
        // A reply that used nothing says so; one whose vendor says nothing of usage says nothing.
        let usage = if read.is_some() { told } else { Some(nothing) };
        let usage = usage.map_or_else(String::new, |usage| format!(",\"usage\":{usage}"));
        if self.is_native {
            let pooling = read.and_then(|read| read.pooling).map(|p| p.get().to_owned()).or(pooling.map(text));
            let pooling = pooling.map_or_else(String::new, |pooling| format!(",\"pooling\":{pooling}"));
            let width = vectors.first().map_or(0, |vector| 1 + memchr::memchr_iter(b',', vector).count());
            let data: Vec<_> = vectors.iter().map(text).collect();
            let shape = vectors.len();
            let result = format!("{{\"shape\":[{shape},{width}],\"data\":[{}]{pooling}{usage}}}", data.join(","));
            return format!("{{\"result\":{result},\"success\":true,\"errors\":[],\"messages\":[]}}").into();
        }
        let item = |(index, vector): (usize, &Bytes)| {
            format!("{{\"object\":\"embedding\",\"index\":{index},\"embedding\":{}}}", text(vector))
        };
        let data: Vec<_> = vectors.iter().enumerate().map(item).collect();
        let asked = self.fields.iter().find(|(name, _)| *name == "model").map(|(_, model)| *model);
        let model = read.and_then(|read| read.model).or(asked).map_or("null", RawValue::get);
        format!("{{\"object\":\"list\",\"data\":[{}],\"model\":{model}{usage}}}", data.join(",")).into()
    }
}

/// Whether a key comes more than once: the vendor reads the last one.
fn has_twins(fields: &[(&str, &RawValue)]) -> bool {
    let mut names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair[0] == pair[1])
}

impl Vectors<'_> {
    pub(super) fn pooling(&self) -> Option<Bytes> {
        self.pooling.map(|pooling| Bytes::copy_from_slice(pooling.get().as_bytes()))
    }
}
