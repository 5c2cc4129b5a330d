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
    /// The call has one text that is in no list: its reply is kept as a whole.
    pub(super) is_single: bool,
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
    /// How many vectors of how many numbers.
    shape: Option<(usize, usize)>,
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
/// What else a call may say whose vectors depend on its texts one by one. With any other field, such as a second list of texts,
/// it is not certain which text a vector is of.
const COMMON_FIELDS: [&str; 8] =
    ["model", "pooling", "encoding_format", "dimensions", "user", "truncate_inputs", "instruction", "options"];

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
    /// Whether the call may be for texts to embed, as far as that is told without a look into its body.
    pub(super) fn may_be_in(call: &Call) -> bool {
        call.model.task == Task::TextEmbeddings && call.options.cache_key.is_none() && !call.stream
    }

    /// `None` where the call is no list of texts to embed.
    pub(super) fn of(call: &'a Call, scope: &Scope) -> Option<Self> {
        if !Self::may_be_in(call) {
            return None;
        }
        let field = match call.endpoint {
            Endpoint::Embeddings => "input",
            Endpoint::Run => "text",
            _ => return None,
        };
        // Neither a name that is written with escapes nor one that comes twice is read here.
        let Object(fields) = serde_json::from_slice(call.plain_body()).ok()?;
        let count = |wanted: &str| fields.iter().filter(|(name, _)| *name == wanted).count();
        let are_common = fields.iter().all(|(name, _)| *name == field || COMMON_FIELDS.contains(name));
        let are_distinct = fields.iter().all(|(name, _)| count(name) == 1);
        if !are_common || !are_distinct {
            return None;
        }
        let (_, asked) = fields.iter().find(|(name, _)| *name == field)?;
        let is_single = asked.get().starts_with('"');
        let texts: Vec<&RawValue> = if is_single { vec![asked] } else { serde_json::from_str(asked.get()).ok()? };
        let are_texts = texts.iter().all(|text| text.get().starts_with('"'));
        if texts.is_empty() || texts.len() > MAX_ITEMS || !are_texts {
            return None;
        }
        let others: Vec<_> = fields.iter().filter(|(name, _)| *name != field).copied().collect();
        let rest = canonical::fields(&others)?;
        let keys = texts.iter().map(|text| scope.item(&rest, text)).collect();
        Some(Self { fields, field, texts, keys, is_native: call.endpoint.is_native(), is_single })
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

    /// Takes a reply apart; `None` where it does not have one vector for each of so many texts and no other, each at a place
    /// that is its own, all of one length and none of them empty.
    pub(super) fn read<'r>(&self, reply: &'r [u8], count: usize) -> Option<Vectors<'r>> {
        let read = if self.is_native {
            let NativeReply { result } = serde_json::from_slice(reply).ok()?;
            let NativeResult { shape, data, usage, pooling } = result;
            if shape.is_some_and(|(vectors, _)| vectors != data.len()) {
                return None;
            }
            Vectors { vectors: data, usage, pooling, model: None }
        } else {
            let OpenAiReply { mut data, usage, model } = serde_json::from_slice(reply).ok()?;
            data.sort_by_key(|item| item.index);
            if data.iter().enumerate().any(|(place, item)| item.index != place) {
                return None;
            }
            let vectors = data.into_iter().map(|item| item.embedding).collect();
            Vectors { vectors, usage, pooling: None, model }
        };
        let widths: Option<Vec<usize>> = read.vectors.iter().map(|vector| width(vector)).collect();
        let are_alike = widths?.windows(2).all(|pair| pair[0] == pair[1]);
        (read.vectors.len() == count && are_alike).then_some(read)
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

/// How long a vector is: in numbers, or in characters of base64. `None` where it is none, or empty.
fn width(vector: &RawValue) -> Option<usize> {
    let text = vector.get().as_bytes();
    match text {
        [b'[', .., b']'] if text.iter().any(u8::is_ascii_digit) => Some(memchr::memchr_iter(b',', text).count() + 1),
        [b'"', .., b'"'] if text.len() > 2 => Some(text.len()),
        _ => None,
    }
}

impl Vectors<'_> {
    pub(super) fn pooling(&self) -> Option<Bytes> {
        self.pooling.map(|pooling| Bytes::copy_from_slice(pooling.get().as_bytes()))
    }
}
