//! A JSON object whose values stay as they were written.
//!
//! What OpenAI's forms differ in are a few fields; the rest of a reply, numbers above all, must come out with the digits that
//! it came in with. So only the fields of the object at hand are taken apart, and each value is a piece of JSON text.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The fields of an object in their order. Of a name that stands twice the last counts, as for `JSON.parse`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Object<'a> {
    fields: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Object<'a> {
    /// `None` where this is no JSON object.
    pub(crate) fn read(json: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// A value as JSON text; `None` where it is absent or null.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.fields.iter().find(|(field, _)| field == name)?;
        Some(&**value).filter(|value| *value != "null")
    }

    /// The same where the text is the input's own, and not one that was set.
    pub(crate) fn get_borrowed(&self, name: &str) -> Option<&'a str> {
        let (_, value) = self.fields.iter().find(|(field, _)| field == name)?;
        match value {
            Cow::Borrowed(value) => Some(*value).filter(|value| *value != "null"),
            Cow::Owned(_) => None,
        }
    }

    /// All fields, each value as JSON text.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The field is there, and may be null.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(field, _)| field == name)
    }

    /// A value that is a string, without its quotes and escapes.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        text(self.get(name)?)
    }

    /// A value that is an object.
    pub(crate) fn object(&self, name: &str) -> Option<Object<'_>> {
        Object::read(self.get(name)?.as_bytes())
    }

    /// Sets a value, given as JSON text, in its old place or behind all others.
    pub(crate) fn set(&mut self, name: &'static str, json: impl Into<Cow<'a, str>>) {
        match self.fields.iter_mut().find(|(field, _)| field == name) {
            Some((_, value)) => *value = json.into(),
            None => self.fields.push((name.into(), json.into())),
        }
    }

    /// The same for a text.
    pub(crate) fn set_text(&mut self, name: &'static str, text: &str) {
        self.set(name, quoted(text));
    }

    /// Takes a field out; `None` where it was absent or null.
    pub(crate) fn remove(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let at = self.fields.iter().position(|(field, _)| field == name)?;
        Some(self.fields.remove(at).1).filter(|value| value != "null")
    }

    /// As JSON.
    pub(crate) fn json(&self) -> String {
        self.json_marking("").0
    }

    /// As JSON, and at which byte of it the value of this field begins.
    pub(crate) fn json_marking(&self, mark: &str) -> (String, Option<usize>) {
        let length: usize = self.fields.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        let (mut json, mut at) = (String::with_capacity(length + 2), None);
        json.push('{');
        for (index, (name, value)) in self.fields.iter().enumerate() {
            if index > 0 {
                json.push(',');
            }
            json.push_str(&quoted(name));
            json.push(':');
            if name == mark {
                at = Some(json.len());
            }
            json.push_str(value);
        }
        json.push('}');
        (json, at)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields).map(|fields| Self { fields })
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Vec<(Cow<'de, str>, Cow<'de, str>)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields: Self::Value = Vec::with_capacity(8);
        while let Some(name) = map.next_key_seed(Name)? {
            let value = Cow::Borrowed(map.next_value::<&'de RawValue>()?.get());
            match fields.iter_mut().find(|(field, _)| *field == name) {
                Some((_, earlier)) => *earlier = value,
                None => fields.push((name, value)),
            }
        }
        Ok(fields)
    }
}

/// A field's name, copied only where it is written with escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a field's name")
    }
    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }
    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// The items of an array, each as JSON text; `None` where this is no array.
pub(crate) fn items(json: &str) -> Option<Vec<&str>> {
    let items: Vec<&RawValue> = serde_json::from_str(json).ok()?;
    Some(items.into_iter().map(RawValue::get).collect())
}

/// An array of values that are JSON text.
pub(crate) fn array<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let mut json = String::from("[");
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        json.push_str(item.as_ref());
    }
    json.push(']');
    json
}

/// The text of a JSON string.
pub(crate) fn text(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}

/// A count of tokens, which may be written as a float or as a string.
pub(crate) fn count(json: &str) -> Option<u64> {
    let number: f64 = json.trim_matches('"').trim().parse().ok()?;
    (number.is_finite() && number >= 0.0).then(|| number.round() as u64)
}

/// A text as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    // Writing a text to memory does not fail.
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_is_not_set_keeps_its_digits() {
        let mut object = Object::read(br#"{"a": 1.50, "b" : [1e2 , "x"], "a\u0063": null}"#).unwrap();
        object.set("c", "true");
        assert_eq!(object.json(), r#"{"a":1.50,"b":[1e2 , "x"],"ac":null,"c":true}"#);
        assert!(object.get("ac").is_none() && object.has("ac"));
    }

    #[test]
    fn the_last_of_two_fields_of_a_name_counts() {
        let object = Object::read(br#"{"a":1,"b":2,"a":3}"#).unwrap();
        assert_eq!(object.json(), r#"{"a":3,"b":2}"#);
    }

    proptest::proptest! {
        #[test]
        fn any_object_comes_out_as_it_went_in(pairs in proptest::collection::btree_map(".{0,6}", -9i64..9, 0..6)) {
            let json = serde_json::to_string(&pairs).unwrap();
            let object = Object::read(json.as_bytes()).unwrap();
            let same: Value = serde_json::from_str(&object.json()).unwrap();
            proptest::prop_assert_eq!(same, serde_json::to_value(&pairs).unwrap());
        }
    }
}
