//! JSON as text, in every spelling: what a client may write, not what a serializer would.

use proptest::prelude::*;

/// A value, as it will stand in the body.
#[derive(Clone, Debug)]
pub enum Json {
    /// Anything, as it is: a number, a word, a text with its quotes.
    Raw(Vec<u8>),
    List(Vec<Json>),
    /// Keys are without their quotes, escapes and all.
    Object(Vec<(String, Json)>),
}

impl Json {
    pub fn raw(text: impl Into<String>) -> Self {
        Self::Raw(text.into().into_bytes())
    }

    /// A text, spelled as usual.
    pub fn text(text: &str) -> Self {
        Self::raw(serde_json::to_string(text).unwrap())
    }

    pub fn object(fields: impl IntoIterator<Item = (&'static str, Json)>) -> Self {
        Self::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        bytes
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Raw(raw) => out.extend(raw),
            Self::List(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    out.extend(if index > 0 { &b", "[..] } else { b"" });
                    item.write(out);
                }
                out.push(b']');
            }
            Self::Object(fields) => {
                out.push(b'{');
                for (index, (key, value)) in fields.iter().enumerate() {
                    out.extend(if index > 0 { &b","[..] } else { b"" });
                    out.extend(format!("\"{key}\":").as_bytes());
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }
}

/// Fields, some of them twice, some with a letter of their name escaped.
pub fn object(fields: Vec<(&'static str, BoxedStrategy<Json>)>) -> BoxedStrategy<Json> {
    let spelled = fields.into_iter().map(|(name, value)| (key(name), value).boxed()).collect::<Vec<_>>();
    let one = |all: Vec<BoxedStrategy<(String, Json)>>| all;
    (one(spelled.clone()), prop::collection::vec(prop::sample::select(spelled), 0..2))
        .prop_flat_map(|(fields, again)| (Just(fields), again))
        .prop_map(|(fields, again)| Json::Object(fields.into_iter().chain(again).collect()))
        .boxed()
}

fn key(name: &'static str) -> BoxedStrategy<String> {
    let escaped = (0..name.len()).prop_map(move |at| {
        let letter = name.as_bytes()[at];
        format!("{}\\u{letter:04x}{}", &name[..at], &name[at + 1..])
    });
    prop_oneof![12 => Just(name.to_owned()), 1 => escaped].boxed()
}

/// Any value at all, for fields that nobody knows and for known ones with the wrong thing in them.
pub fn anything() -> BoxedStrategy<Json> {
    let leaf = prop_oneof![
        Just("null"),
        Just("true"),
        Just("0"),
        Just("-1.5e3"),
        Just("1e20"),
        Just("\"\""),
        Just("\"x\\ud800\""),
        Just("[]"),
        Just("{}")
    ]
    .prop_map(Json::raw);
    let tree = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::List),
            prop::collection::vec((prop::sample::select(NAMES.to_vec()), inner), 0..4)
                .prop_map(|fields| Json::Object(fields.into_iter().map(|(key, value)| (key.into(), value)).collect())),
        ]
    });
    prop_oneof![20 => tree, 1 => (100usize..3_000).prop_map(deep)].boxed()
}

/// So many lists in each other.
pub fn deep(levels: usize) -> Json {
    Json::raw(["[".repeat(levels), "]".repeat(levels)].concat())
}

const NAMES: [&str; 8] = ["text", "content", "a", "type", "usage", "url", "prompt", "max_tokens"];

/// What may stand around a body and in front of it. The vendor takes white space and one byte order mark, and no more.
pub fn dressed(body: BoxedStrategy<Vec<u8>>) -> BoxedStrategy<Vec<u8>> {
    let (before, after) =
        (&["\u{feff}", " \r\n\t", "\u{feff}\u{feff}", "\u{a0}"], &["\n", "  ", "\0", "{}", ",", "\u{feff}"]);
    let dress = (
        prop::option::weighted(0.1, prop::sample::select(&before[..])),
        prop::option::weighted(0.1, prop::sample::select(&after[..])),
    );
    (dress, body)
        .prop_map(|((before, after), body)| {
            [before.unwrap_or("").as_bytes(), &body, after.unwrap_or("").as_bytes()].concat()
        })
        .boxed()
}
