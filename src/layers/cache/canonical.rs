//! JSON that differs only in key order or white space, made the same.
//!
//! Keys are sorted and white space goes; numbers and strings stay as they were written, so that nothing that might mean
//! something else to the vendor is made equal; nor are objects with a key that is spelled with escapes. It is done in one pass without a parser's tree, for it stands on every
//! call's way; what is no JSON may pass as well, and is then the same as what differs from it in order and space alone.

use std::ops::Range;

use serde_json::value::RawValue;

/// The canonical form; `None` where it is no JSON object.
pub(super) fn json(body: &[u8]) -> Option<Vec<u8>> {
    let mut writer = Writer {
        text: body,
        at: 0,
        out: Vec::with_capacity(body.len()),
        fields: Vec::with_capacity(USUAL_FIELDS),
        unsorted: Vec::new(),
    };
    if writer.next()? != b'{' {
        return None;
    }
    writer.object(0)?;
    writer.next().is_none().then_some(writer.out)
}

/// The canonical form of these fields.
pub(super) fn fields(fields: &[(&str, &RawValue)]) -> Option<Vec<u8>> {
    let mut text = String::from("{");
    for (key, value) in fields {
        text.push_str(&serde_json::to_string(key).ok()?);
        text.push(':');
        text.push_str(value.get());
        text.push(',');
    }
    if text.pop() == Some('{') {
        text.push('{');
    }
    text.push('}');
    json(text.as_bytes())
}

struct Writer<'a> {
    text: &'a [u8],
    at: usize,
    out: Vec<u8>,
    /// Of the objects that are open, innermost last: where each field stands in `out`.
    fields: Vec<Field>,
    /// An object as it was written, while it is written again in order.
    unsorted: Vec<u8>,
}

#[derive(Clone)]
struct Field {
    key: Range<usize>,
    end: usize,
}

/// serde_json's own bound.
const MAX_DEPTH: usize = 128;
/// A chat's fields, with those of a message.
const USUAL_FIELDS: usize = 8;

impl Writer<'_> {
    /// The next byte that is no white space; it is not taken.
    fn next(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.text.get(self.at) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn take(&mut self) -> Option<u8> {
        let byte = self.next()?;
        self.at += 1;
        Some(byte)
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        match self.next()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string(),
            _ => self.literal(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        let (begun, outer) = (self.out.len() + 1, self.fields.len());
        self.open(b'{', depth)?;
        if self.next()? == b'}' {
            return self.close(b'}');
        }
        loop {
            let key = self.out.len();
            if self.next()? != b'"' {
                return None;
            }
            self.string()?;
            let key = key..self.out.len();
            if self.out[key.clone()].contains(&b'\\') {
                // It may be another spelling of a key, and which of the two comes last matters.
                return None;
            }
            if self.take()? != b':' {
                return None;
            }
            self.out.push(b':');
            self.value(depth + 1)?;
            self.fields.push(Field { key, end: self.out.len() });
            match self.next()? {
                b',' => self.separate(),
                b'}' => break,
                _ => return None,
            }
        }
        self.sort(begun, outer);
        self.fields.truncate(outer);
        self.close(b'}')
    }

    /// Puts the fields from `outer` on, which stand in `out` from `begun` on, into the order of their keys. Where a key comes
    /// twice they stay as they came, for which comes last may matter.
    fn sort(&mut self, begun: usize, outer: usize) {
        let (out, fields) = (&mut self.out, &mut self.fields[outer..]);
        if fields.is_sorted_by(|a, b| out[a.key.clone()] <= out[b.key.clone()]) {
            return;
        }
        fields.sort_by(|a, b| out[a.key.clone()].cmp(&out[b.key.clone()]));
        self.unsorted.clear();
        // The outermost object comes last, and is the longest.
        self.unsorted.reserve(self.text.len());
        self.unsorted.extend_from_slice(&out[begun..]);
        out.truncate(begun);
        for (place, field) in fields.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&self.unsorted[field.key.start - begun..field.end - begun]);
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.open(b'[', depth)?;
        if self.next()? == b']' {
            return self.close(b']');
        }
        loop {
            self.value(depth + 1)?;
            match self.next()? {
                b',' => self.separate(),
                b']' => return self.close(b']'),
                _ => return None,
            }
        }
    }

    fn open(&mut self, bracket: u8, depth: usize) -> Option<()> {
        self.at += 1;
        self.out.push(bracket);
        (depth < MAX_DEPTH).then_some(())
    }

    fn separate(&mut self) {
        self.at += 1;
        self.out.push(b',');
    }

    fn close(&mut self, bracket: u8) -> Option<()> {
        self.at += 1;
        self.out.push(bracket);
        Some(())
    }

    fn string(&mut self) -> Option<()> {
        let begun = self.at;
        let mut end = begun + 1;
        loop {
            end += memchr::memchr2(b'"', b'\\', self.text.get(end..)?)?;
            if self.text[end] == b'"' {
                break;
            }
            // What is escaped ends no string.
            end += 2;
        }
        self.copy(begun..end + 1)
    }

    fn literal(&mut self) -> Option<()> {
        let rest = &self.text[self.at..];
        let length =
            rest.iter().position(|byte| !matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.'));
        let length = length.unwrap_or(rest.len());
        (length > 0).then_some(())?;
        self.copy(self.at..self.at + length)
    }

    fn copy(&mut self, range: Range<usize>) -> Option<()> {
        self.at = range.end;
        self.out.extend_from_slice(self.text.get(range)?);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> Option<String> {
        json(text.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap())
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
    }

    #[test]
    fn what_is_no_object_has_no_canonical_form() {
        for text in
            ["[1]", "{\"a\":", "{\"a\":1", "{\"a\"}", "{a:1}", "{\"a\":1}x", "{\"a\":1,}", "{\"a\":\"\\\"}", "", "{,}"]
        {
            assert_eq!(canonical(text), None, "{text}");
        }
        let deep = "{\"a\":".repeat(200) + "1" + &"}".repeat(200);
        assert_eq!(canonical(&deep), None);
    }

    #[test]
    fn quotes_that_are_escaped_end_no_string() {
        let text = r#"{"z":"\"}, {\\","a":"\\\\"}"#;
        assert_eq!(canonical(text).unwrap(), r#"{"a":"\\\\","z":"\"}, {\\"}"#);
    }

    #[test]
    fn two_spellings_of_one_key_have_no_canonical_form() {
        assert_eq!(canonical(r#"{"prompt":"a","pr\u006fmpt":"b"}"#), None);
    }

    #[test]
    fn fields_alone_are_written_the_same() {
        let raw = |text: &str| RawValue::from_string(text.into()).unwrap();
        let (one, two) = (raw("1"), raw("{\"y\":2, \"x\":\"\"}"));
        assert_eq!(fields(&[("b", &one), ("a", &two)]).unwrap(), br#"{"a":{"x":"","y":2},"b":1}"#);
        assert_eq!(fields(&[]).unwrap(), b"{}");
    }

    /// Any JSON object, as text with its keys in any order.
    fn objects() -> impl proptest::strategy::Strategy<Value = serde_json::Value> {
        use proptest::prelude::*;
        let leaf = prop_oneof![
            any::<i64>().prop_map(serde_json::Value::from),
            any::<bool>().prop_map(serde_json::Value::from),
            "[a-c\"\\\\ é\n{}\\[\\]]{0,6}".prop_map(serde_json::Value::from),
            Just(serde_json::Value::Null),
        ];
        let value = leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
                prop::collection::vec(("[a-d]{0,3}", inner), 0..5)
                    .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
            ]
        });
        prop::collection::vec(("[a-d]{0,3}", value), 0..5)
            .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect()))
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = json(&bytes);
        }

        #[test]
        fn any_object_keeps_its_meaning_and_has_one_form(value in objects()) {
            let (short, long) = (value.to_string(), serde_json::to_string_pretty(&value).unwrap());
            let form = canonical(&short).unwrap();
            proptest::prop_assert_eq!(&form, &canonical(&long).unwrap());
            proptest::prop_assert_eq!(&form, &canonical(&form).unwrap());
            proptest::prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&form).unwrap(), value);
        }

        #[test]
        fn what_is_equal_after_is_equal_to_a_parser(a in "[{}\\[\\]\",:0-9a-c ]{0,24}", b in "[{}\\[\\]\",:0-9a-c ]{0,24}") {
            let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
            let same = canonical(&a).is_some() && canonical(&a) == canonical(&b);
            if same && value(&a).is_some() && value(&b).is_some() {
                proptest::prop_assert_eq!(value(&a), value(&b));
            }
        }
    }
}
