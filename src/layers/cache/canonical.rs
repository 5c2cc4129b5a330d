//! JSON that differs only in key order or white space, made the same.
//!
//! Keys are sorted and white space goes; numbers and strings stay as they were written, so that nothing that might mean
//! something else to the vendor is made equal.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The canonical form; `None` where it is no JSON object.
pub(super) fn json(body: &[u8]) -> Option<String> {
    let object: Object<'_> = serde_json::from_slice(body).ok()?;
    let mut text = String::with_capacity(body.len());
    write_object(object, &mut text, 0)?;
    Some(text)
}

/// The canonical form of these fields.
pub(super) fn fields(fields: &[(&str, &RawValue)]) -> Option<String> {
    let mut text = String::new();
    write_object(Object(fields.to_vec()), &mut text, 0)?;
    Some(text)
}

/// An object's fields, each value as it was written.
pub(super) struct Object<'a>(pub(super) Vec<(&'a str, &'a RawValue)>);

/// serde_json's own bound.
const MAX_DEPTH: usize = 128;

fn write(value: &RawValue, text: &mut String, depth: usize) -> Option<()> {
    let raw = value.get();
    match raw.as_bytes().first()? {
        b'{' if depth < MAX_DEPTH => write_object(serde_json::from_str(raw).ok()?, text, depth + 1),
        b'[' if depth < MAX_DEPTH => {
            let items: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
            text.push('[');
            for (index, item) in items.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(item, text, depth + 1)?;
            }
            text.push(']');
            Some(())
        }
        _ => {
            text.push_str(raw);
            Some(())
        }
    }
}

fn write_object(Object(mut fields): Object<'_>, text: &mut String, depth: usize) -> Option<()> {
    // Stable: where a key comes twice, which comes last may matter.
    fields.sort_by_key(|(key, _)| *key);
    text.push('{');
    for (index, (key, value)) in fields.into_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&serde_json::to_string(key).ok()?);
        text.push(':');
        write(value, text, depth)?;
    }
    text.push('}');
    Some(())
}

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
            fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Object<'de>, A::Error> {
                Err(serde::de::Error::custom("an array"))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> Option<String> {
        json(text.as_bytes())
    }

    #[test]
    fn order_and_space_do_not_matter_and_all_else_does() {
        let one = canonical(r#"{"b": [1, {"y":2,"x":1.0}], "a":"s p"}"#);
        assert_eq!(one, canonical("{\"a\":\"s p\",\n\"b\":[1,{\"x\":1.0,\"y\":2}]}"));
        assert_eq!(one.unwrap(), r#"{"a":"s p","b":[1,{"x":1.0,"y":2}]}"#);
        for other in [r#"{"a":"sp"}"#, r#"{"a":"s p","b":[{"x":1.0,"y":2},1]}"#, r#"{"a":"s p","b":[1,{"x":1,"y":2}]}"#]
        {
            assert_ne!(canonical(other).unwrap(), r#"{"a":"s p","b":[1,{"x":1.0,"y":2}]}"#);
        }
        assert_eq!(canonical("[1]"), None);
        assert_eq!(canonical("{\"a\":"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = json(&bytes);
        }

        #[test]
        fn what_is_equal_after_is_equal_to_a_parser(a in "[{}\\[\\]\",:0-9a-c ]{0,24}", b in "[{}\\[\\]\",:0-9a-c ]{0,24}") {
            if let (Some(x), Some(y)) = (canonical(&a), canonical(&b)) {
                let (va, vb): (serde_json::Value, serde_json::Value) =
                    (serde_json::from_str(&a).unwrap(), serde_json::from_str(&b).unwrap());
                if x == y { proptest::prop_assert_eq!(va, vb); }
            }
        }
    }
}
