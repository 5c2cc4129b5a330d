//! What a JSON body asks for: read in one pass, without building a tree.

use std::ops::Range;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::media::{self, MediaKind};
use crate::call::Ask;
use crate::catalogue::Text;

/// What was read of a body.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) ask: Ask,
    pub(super) stream: bool,
    /// The model's name and where it stands, quotes included.
    pub(super) model: Option<(String, Range<usize>)>,
}

impl Reading {
    /// Reads a JSON object. Fields it does not know, or that have a type it does not expect, are the vendor's business.
    pub(super) fn json(body: &[u8]) -> Result<Self, serde_json::Error> {
        let mut reading = Self::default();
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        Fields { reading: &mut reading, body }.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(reading)
    }
}

/// The fields of the outermost object, or of `input` within it.
struct Fields<'r, 'b> {
    reading: &'r mut Reading,
    body: &'b [u8],
}

impl<'de> DeserializeSeed<'de> for Fields<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

/// What a field of the body is about.
enum Field {
    Model,
    Stream,
    MaxTokens,
    Temperature,
    Seed,
    Width,
    Height,
    Steps,
    Messages,
    Text,
    Schema,
    Input,
    Answers,
    Requests,
    RequestId,
    Media(MediaKind),
    /// Of a message: no prompt.
    Label,
    Other,
}

impl Field {
    fn of(name: &str) -> Self {
        match name {
            "model" => Self::Model,
            "stream" => Self::Stream,
            "max_tokens" | "max_completion_tokens" | "max_output_tokens" => Self::MaxTokens,
            "temperature" => Self::Temperature,
            "seed" => Self::Seed,
            "width" => Self::Width,
            "height" => Self::Height,
            "steps" | "num_steps" => Self::Steps,
            "messages" => Self::Messages,
            "prompt" | "text" | "input_text" | "instructions" | "system" | "query" | "contexts" | "context"
            | "question" | "questions" | "state" | "documents" | "queries" => Self::Text,
            "tools" | "functions" | "response_format" | "guided_json" => Self::Schema,
            "input" => Self::Input,
            "n" | "best_of" => Self::Answers,
            "requests" => Self::Requests,
            "request_id" => Self::RequestId,
            "image" | "images" | "image_b64" | "mask" => Self::Media(MediaKind::Picture),
            "audio" => Self::Media(MediaKind::Sound),
            "role" | "type" | "id" | "tool_call_id" | "detail" | "format" => Self::Label,
            _ => Self::Other,
        }
    }
}

impl<'de> serde::Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Field;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a field's name")
            }
            fn visit_str<E>(self, name: &str) -> Result<Field, E> {
                Ok(Field::of(name))
            }
        }
        deserializer.deserialize_identifier(Name)
    }
}

impl<'de> Visitor<'de> for Fields<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key::<Field>()? {
            self.visit_field(field, &mut map)?;
        }
        Ok(())
    }
}

impl Fields<'_, '_> {
    fn visit_field<'de, A: MapAccess<'de>>(&mut self, field: Field, map: &mut A) -> Result<(), A::Error> {
        let ask = &mut self.reading.ask;
        match field {
            Field::Model => {
                let raw: &'de RawValue = map.next_value()?;
                self.reading.model = serde_json::from_str(raw.get()).ok().map(|name| (name, self.place(raw.get())));
            }
            Field::Stream => self.reading.stream = scalar(map)? == Scalar::Bool(true),
            // Of several the largest, for nobody knows which of them counts; and nothing is as good as none.
            Field::MaxTokens => ask.max_tokens = scalar(map)?.whole().filter(|n| *n > 0).max(ask.max_tokens),
            Field::Answers => ask.answers = scalar(map)?.whole().map(|n| n.max(1)).max(ask.answers),
            Field::Temperature => ask.temperature = scalar(map)?.number(),
            Field::Seed => ask.seeded = scalar(map)?.number().is_some(),
            Field::Width => ask.image.width = scalar(map)?.whole(),
            Field::Height => ask.image.height = scalar(map)?.whole(),
            Field::Steps => ask.image.steps = scalar(map)?.whole(),
            Field::Messages | Field::Text => map.next_value_seed(Words { ask, depth: 0 })?,
            Field::Schema => ask.text.add(map.next_value::<&'de RawValue>()?.get()),
            Field::Input => map.next_value_seed(Input { reading: self.reading, body: self.body })?,
            Field::Requests => {
                ask.batch = true;
                map.next_value_seed(Requests { reading: self.reading, body: self.body })?;
            }
            Field::RequestId => ask.names_batch = map.next_value::<&'de RawValue>()?.get() != "null",
            Field::Media(kind) => map.next_value_seed(media::Media { ask, kind })?,
            Field::Label | Field::Other => {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    /// Where a piece of the body stands in it.
    fn place(&self, piece: &str) -> Range<usize> {
        let start = (piece.as_ptr() as usize).saturating_sub(self.body.as_ptr() as usize);
        start..start + piece.len()
    }
}

/// `requests`: a batch, each of which is as a body of its own.
struct Requests<'r, 'b> {
    reading: &'r mut Reading,
    body: &'b [u8],
}

impl<'de> DeserializeSeed<'de> for Requests<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Requests<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of requests")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut requests: u32 = 0;
        while seq.next_element_seed(Input { reading: self.reading, body: self.body })?.is_some() {
            requests = requests.saturating_add(1);
        }
        let each = self.reading.ask.answers.unwrap_or(1);
        self.reading.ask.answers = Some(requests.saturating_mul(each));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// `input`: the model's inputs on `…/ai/run`, texts on `/v1/embeddings`, messages on `/v1/responses`.
struct Input<'r, 'b> {
    reading: &'r mut Reading,
    body: &'b [u8],
}

impl<'de> DeserializeSeed<'de> for Input<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Input<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a model's input")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        // The model is named outside; a field of that name in here is the model's own.
        let model = self.reading.model.take();
        Fields { reading: self.reading, body: self.body }.visit_map(map)?;
        self.reading.model = model;
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        Words { ask: &mut self.reading.ask, depth: 0 }.visit_seq(seq)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        Words { ask: &mut self.reading.ask, depth: 0 }.visit_str(text)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
}

/// Measures the text in any value. Each element of the outermost array, or the value itself, is a part.
pub(super) struct Words<'a> {
    pub(super) ask: &'a mut Ask,
    pub(super) depth: u8,
}

impl<'de> DeserializeSeed<'de> for Words<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Words<'_> {
    fn begin_part(&mut self) {
        if self.depth == 0 {
            self.ask.text.parts += 1;
        }
    }
}

impl<'de> Visitor<'de> for Words<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(mut self, text: &str) -> Result<(), E> {
        self.begin_part();
        if text.starts_with("data:") {
            media::add_data_url(self.ask, text);
        } else {
            self.ask.text.add(text);
            if self.depth == 0 {
                self.ask.characters += text.chars().count() as u64;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        if self.depth > 0 {
            while seq.next_element_seed(Words { ask: self.ask, depth: self.depth })?.is_some() {}
            return Ok(());
        }
        loop {
            let before = self.ask.text.parts;
            // An element that is a text begins its part itself.
            if seq.next_element_seed(Words { ask: self.ask, depth: 0 })?.is_none() {
                return Ok(());
            }
            self.ask.text.parts = before + 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.begin_part();
        while let Some(field) = map.next_key::<Field>()? {
            match field {
                Field::Label => {
                    map.next_value::<IgnoredAny>()?;
                }
                Field::Media(kind) => map.next_value_seed(media::Media { ask: self.ask, kind })?,
                _ => map.next_value_seed(Words { ask: self.ask, depth: self.depth + 1 })?,
            }
        }
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.ask.text.marks += 1 + u64::from(number.checked_ilog10().unwrap_or(0));
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.ask.text.marks += 8;
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.ask.text.marks += 8;
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.ask.text.letters += 5;
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A field that should be a number or a flag. Anything else is none.
#[derive(Debug, PartialEq)]
enum Scalar {
    Bool(bool),
    Number(f64),
    None,
}

fn scalar<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Scalar, A::Error> {
    let raw: &'de RawValue = map.next_value()?;
    Ok(match raw.get() {
        "true" => Scalar::Bool(true),
        "false" => Scalar::Bool(false),
        other => other.trim_matches('"').parse().map_or(Scalar::None, Scalar::Number),
    })
}

impl Scalar {
    fn number(&self) -> Option<f64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    fn whole(&self) -> Option<u32> {
        self.number().filter(|n| *n >= 0.0).map(|n| n.min(f64::from(u32::MAX)) as u32)
    }
}

impl Ask {
    /// Measures a bare text, such as a form's `prompt`.
    pub(super) fn add_text(&mut self, text: &str) {
        self.text.join(&Text::of(text));
        self.characters += text.chars().count() as u64;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::catalogue::Catalogue;
    use crate::catalogue::Task;
    use crate::neurons::Neurons;
    use crate::receipt::Estimate;

    fn upper(body: &str) -> Neurons {
        let model = Catalogue::default().find("@cf/meta/llama-3.2-1b-instruct", Task::TextGeneration);
        Estimate::new(&Reading::json(body.as_bytes()).unwrap().ask, &model).upper
    }

    #[test]
    fn no_form_of_asking_for_more_makes_the_bound_smaller() {
        // A token written costs 18,252 micro-neurons.
        let thousand = Neurons::from_micro(18_252_000);
        for (body, tokens) in [
            (r#"{"prompt":"x","max_tokens":1000,"max_completion_tokens":1}"#, 1),
            (r#"{"prompt":"x","max_tokens":1000,"max_tokens":1}"#, 1),
            (r#"{"prompt":"x","max_tokens":"1e3"}"#, 1),
            (r#"{"prompt":"x","max_tokens":1000,"n":5}"#, 5),
            (r#"{"requests":[{"prompt":"x","max_tokens":1000},{"prompt":"y","max_tokens":9},{"prompt":"z"}]}"#, 3),
            (r#"{"requests":[{"prompt":"x","n":2},{"prompt":"y","max_tokens":1000}]}"#, 4),
        ] {
            let bound = upper(body);
            assert!(bound.micro() > thousand.micro() * tokens, "{bound} for {body}");
        }
        assert_eq!(upper(r#"{"prompt":"x","max_tokens":0}"#), upper(r#"{"prompt":"x"}"#));
        assert!(Reading::json(br#"{"requests":7}"#).is_err());
    }

    const NAMES: [&str; 18] = [
        "model",
        "stream",
        "max_tokens",
        "temperature",
        "seed",
        "width",
        "steps",
        "messages",
        "text",
        "tools",
        "input",
        "requests",
        "image",
        "audio",
        "role",
        "content",
        "other",
        "mod\\u0065l",
    ];

    /// JSON of the fields that are read, with any kind of value in each, as text.
    fn bodies() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            "-?[0-9]{1,25}(\\.[0-9]{1,3})?(e[+-]?[0-9]{1,3})?",
            "[a-z ]{0,8}|data:[a-z/;,]{0,12}|NaN|-1|1e999|é\u{10ffff}"
                .prop_map(|text| format!("{text:?}").replace("\\u{10ffff}", "\u{10ffff}")),
            Just("true".to_owned()),
            Just("null".to_owned()),
            Just(r#""\ud83d\ude00 \" \\""#.to_owned()),
        ];
        let field = |value: String, name: &str| format!("\"{name}\":{value}");
        leaf.prop_recursive(6, 60, 5, move |inner| {
            let named =
                (inner.clone(), prop::sample::select(&NAMES[..])).prop_map(move |(value, name)| field(value, name));
            prop_oneof![
                prop::collection::vec(inner, 0..5).prop_map(|items| format!("[{}]", items.join(","))),
                prop::collection::vec(named, 0..6).prop_map(|fields| format!("{{{}}}", fields.join(" , "))),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_body_breaks_it_and_a_model_stands_where_it_says(body in bodies(), cut in 0usize..400) {
            let _ = Reading::json(&body.as_bytes()[..cut.min(body.len())]);
            if let Ok(Reading { model: Some((name, place)), .. }) = Reading::json(body.as_bytes()) {
                prop_assert_eq!(serde_json::from_str::<String>(&body[place]).unwrap(), name);
            }
        }

        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Reading::json(&bytes);
        }
    }
}
