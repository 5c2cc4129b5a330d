//! JSON as `JSON.parse` takes it, and somewhat more, read where it stands: no tree, no copy, no bound on its depth.
//!
//! The vendor's readers are JavaScript's. They take lone surrogates, a byte order mark, bytes that are no UTF-8 and any nesting,
//! and of a key that comes twice the last value. A stricter reader would refuse what the vendor answers. This one is looser than
//! `JSON.parse` within strings (control characters, escapes that do not exist), because reading more text than the vendor never
//! makes a measure smaller. A limit that is read where the vendor reads none does: who relies on one has to ask for more.

use std::borrow::Cow;
use std::ops::Range;

/// A place in a JSON text.
#[derive(Clone, Debug)]
pub(crate) struct Walk<'a> {
    text: &'a [u8],
    at: usize,
}

/// What kind of value comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    String,
    Number,
    True,
    False,
    Null,
}

/// A string or a key, between its quotes, as it was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoted<'a> {
    pub(crate) raw: &'a [u8],
    pub(crate) has_escapes: bool,
}

/// The text is no JSON from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) at: usize,
    pub(crate) expected: &'static str,
}

/// The fields of an object in their order, and where their values stand.
pub(crate) struct Fields<'a>(pub(crate) Vec<(Cow<'a, [u8]>, Range<usize>)>);

/// What some editors write before a text.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

// === impl Walk ===

impl<'a> Walk<'a> {
    /// At the beginning, past a byte order mark.
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { text, at: if text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 } }
    }

    /// The same text, from another place on.
    pub(crate) fn from(text: &'a [u8], at: usize) -> Self {
        Self { text, at }
    }

    /// Where it stands.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// What was written between two places.
    pub(crate) fn written(&self, place: Range<usize>) -> &'a [u8] {
        self.text.get(place).unwrap_or_default()
    }

    fn broken<T>(&self, expected: &'static str) -> Result<T, Broken> {
        Err(Broken { at: self.at, expected })
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    /// The next byte that is no white space; it is not taken.
    fn byte(&mut self) -> Option<u8> {
        self.skip_space();
        self.text.get(self.at).copied()
    }

    /// The kind of the value that comes next, which is not taken.
    pub(crate) fn peek(&mut self) -> Result<Kind, Broken> {
        match self.byte() {
            Some(b'"') => Ok(Kind::String),
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't') => Ok(Kind::True),
            Some(b'f') => Ok(Kind::False),
            Some(b'n') => Ok(Kind::Null),
            _ => self.broken("expected value"),
        }
    }

    /// Takes the bracket that opens an object or an array, which [`peek`](Self::peek) has seen.
    pub(crate) fn open(&mut self) {
        self.at += 1;
    }

    /// The next key of an object, up to its colon; `None` when the object is over. `is_first` is true before the first one.
    pub(crate) fn key(&mut self, is_first: &mut bool) -> Result<Option<Quoted<'a>>, Broken> {
        match (self.byte(), *is_first) {
            (Some(b'}'), _) => {
                self.at += 1;
                return Ok(None);
            }
            (_, true) => *is_first = false,
            (Some(b','), false) => {
                self.at += 1;
                self.skip_space();
            }
            (_, false) => return self.broken("expected `,` or `}`"),
        }
        if self.text.get(self.at) != Some(&b'"') {
            return self.broken("key must be a string");
        }
        let key = self.string()?;
        if self.byte() != Some(b':') {
            return self.broken("expected `:`");
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// Whether an array has one more element, before which it then stands.
    pub(crate) fn element(&mut self, is_first: &mut bool) -> Result<bool, Broken> {
        match (self.byte(), *is_first) {
            (Some(b']'), _) => {
                self.at += 1;
                Ok(false)
            }
            (_, true) => {
                *is_first = false;
                Ok(true)
            }
            (Some(b','), false) => {
                self.at += 1;
                Ok(true)
            }
            (_, false) => self.broken("expected `,` or `]`"),
        }
    }

    /// Takes a string.
    pub(crate) fn string(&mut self) -> Result<Quoted<'a>, Broken> {
        let begun = self.at + 1;
        let (mut end, mut has_escapes) = (begun, false);
        loop {
            let rest = self.text.get(end..).unwrap_or_default();
            let Some(length) = memchr::memchr2(b'"', b'\\', rest) else {
                self.at = self.text.len();
                return self.broken("EOF while parsing a string");
            };
            end += length;
            if self.text[end] == b'"' {
                break;
            }
            // What is escaped ends no string.
            (end, has_escapes) = (end + 2, true);
        }
        self.at = end + 1;
        Ok(Quoted { raw: &self.text[begun..end], has_escapes })
    }

    /// Takes a number, true, false or null, as it was written.
    pub(crate) fn literal(&mut self) -> Result<&'a [u8], Broken> {
        self.skip_space();
        let begun = self.at;
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        let rest = &self.text[begun..];
        let literal = &rest[..rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len())];
        let is_good = matches!(literal, b"true" | b"false" | b"null") || is_number(literal);
        if !is_good {
            return self.broken("expected value");
        }
        self.at += literal.len();
        Ok(literal)
    }

    /// Takes a value of any kind and depth, and tells where it stood.
    pub(crate) fn skip(&mut self) -> Result<Range<usize>, Broken> {
        self.skip_space();
        let begun = self.at;
        // Of the brackets that are open: true for an object. A deep nest costs a bit a level.
        let mut open = Levels::default();
        let mut is_first = true;
        loop {
            match self.peek()? {
                Kind::String => drop(self.string()?),
                Kind::Object | Kind::Array => {
                    open.push(self.text[self.at] == b'{');
                    self.at += 1;
                    is_first = true;
                }
                _ => drop(self.literal()?),
            }
            // To the next value within what is open, or out of it.
            loop {
                let more = match open.last() {
                    None => return Ok(begun..self.at),
                    Some(true) => self.key(&mut is_first)?.is_some(),
                    Some(false) => self.element(&mut is_first)?,
                };
                if more {
                    break;
                }
                open.pop();
                is_first = false;
            }
        }
    }
}

/// Brackets that are open, a bit each.
#[derive(Default)]
struct Levels {
    bits: Vec<u64>,
    depth: usize,
}

impl Levels {
    fn push(&mut self, is_object: bool) {
        let (word, bit) = (self.depth / 64, self.depth % 64);
        if word == self.bits.len() {
            self.bits.push(0);
        }
        self.bits[word] = self.bits[word] & !(1 << bit) | u64::from(is_object) << bit;
        self.depth += 1;
    }

    fn last(&self) -> Option<bool> {
        let last = self.depth.checked_sub(1)?;
        Some(self.bits[last / 64] >> (last % 64) & 1 == 1)
    }

    fn pop(&mut self) {
        self.depth -= 1;
    }
}

/// By how many bytes numbers may grow at most when JavaScript writes them out again: `1e20` has 21 digits then.
pub(crate) fn growth(written: &[u8]) -> u64 {
    let is_exponent = |at: &usize| *at > 0 && written[at - 1].is_ascii_digit();
    memchr::memchr2_iter(b'e', b'E', written).filter(is_exponent).count() as u64 * LONGEST_NUMBER
}

/// The longest that JavaScript writes a number: a sign, 17 digits and a point, and an exponent.
const LONGEST_NUMBER: u64 = 24;

/// By JSON's grammar.
fn is_number(literal: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = literal.strip_prefix(b"-").unwrap_or(literal);
    let whole = digits(rest);
    if whole == 0 || whole > 1 && rest[0] == b'0' {
        return false;
    }
    let mut rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = &fraction[length..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-")).unwrap_or(exponent);
        let length = digits(exponent);
        return length > 0 && length == exponent.len();
    }
    rest.is_empty()
}

// === impl Quoted ===

impl<'a> Quoted<'a> {
    /// Of a string as it was written, quotes included.
    pub(crate) fn at(written: &'a [u8]) -> Self {
        let raw = written.get(1..written.len().saturating_sub(1)).unwrap_or_default();
        Self { raw, has_escapes: memchr::memchr(b'\\', raw).is_some() }
    }

    /// Its text. A surrogate without its other half is U+FFFD, as it is when JavaScript writes it as UTF-8.
    pub(crate) fn text(&self) -> Cow<'a, [u8]> {
        if !self.has_escapes {
            return Cow::Borrowed(self.raw);
        }
        let mut text = Vec::with_capacity(self.raw.len());
        self.pieces(|piece| text.extend_from_slice(piece));
        Cow::Owned(text)
    }

    /// Its text, piece by piece.
    pub(crate) fn pieces(&self, mut each: impl FnMut(&[u8])) {
        let mut rest = self.raw;
        if !self.has_escapes {
            return each(rest);
        }
        while let Some(length) = memchr::memchr(b'\\', rest) {
            if length > 0 {
                each(&rest[..length]);
            }
            rest = escape(&rest[length + 1..], &mut each);
        }
        if !rest.is_empty() {
            each(rest);
        }
    }
}

/// Takes what stands behind a backslash, and gives the rest.
fn escape<'a>(text: &'a [u8], each: &mut impl FnMut(&[u8])) -> &'a [u8] {
    let Some((kind, rest)) = text.split_first() else { return text };
    match kind {
        b'n' => each(b"\n"),
        b't' => each(b"\t"),
        b'r' => each(b"\r"),
        b'b' => each(b"\x08"),
        b'f' => each(b"\x0c"),
        b'u' => return code_unit(rest, each),
        other => each(&[*other]),
    }
    rest
}

fn code_unit<'a>(text: &'a [u8], each: &mut impl FnMut(&[u8])) -> &'a [u8] {
    let Some(first) = hex(text) else {
        each(REPLACEMENT);
        return text;
    };
    let rest = &text[4..];
    let second = rest.strip_prefix(b"\\u").and_then(hex).filter(|low| (0xdc00..0xe000).contains(low));
    match (char::from_u32(first), second) {
        (Some(char), _) => {
            each(char.encode_utf8(&mut [0; 4]).as_bytes());
            rest
        }
        (None, Some(low)) if first < 0xdc00 => {
            let scalar = 0x1_0000 + ((first - 0xd800) << 10) + (low - 0xdc00);
            let mut buffer = [0; 4];
            each(char::from_u32(scalar).map_or(REPLACEMENT, |char| char.encode_utf8(&mut buffer).as_bytes()));
            &rest[6..]
        }
        (None, _) => {
            each(REPLACEMENT);
            rest
        }
    }
}

fn hex(text: &[u8]) -> Option<u32> {
    let digits = text.get(..4)?;
    digits.iter().try_fold(0, |number, digit| Some(number << 4 | char::from(*digit).to_digit(16)?))
}

// === impl Broken ===

impl Broken {
    /// For a person: what was expected, and at which line and column of the text.
    pub(crate) fn told(&self, text: &[u8]) -> String {
        let before = &text[..self.at.min(text.len())];
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        let column = before.len() - memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
        let expected = if self.at >= text.len() { "it ends too early" } else { self.expected };
        let column = if self.at >= text.len() { column } else { column + 1 };
        format!("{expected} at line {line} column {column}")
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    /// Of the object that stands at a place of a text.
    pub(crate) fn at(text: &'a [u8], place: usize) -> Option<Self> {
        let mut walk = Walk::from(text, place);
        if walk.peek().ok()? != Kind::Object {
            return None;
        }
        walk.open();
        let (mut fields, mut is_first) = (Vec::new(), true);
        while let Some(key) = walk.key(&mut is_first).ok()? {
            fields.push((key.text(), walk.skip().ok()?));
        }
        Some(Self(fields))
    }

    /// Of a text that is an object.
    pub(crate) fn of(text: &'a [u8]) -> Option<Self> {
        Self::at(text, Walk::new(text).at())
    }

    /// Where the value of a key stands; of several the last, as `JSON.parse` has it.
    pub(crate) fn last(&self, name: &str) -> Option<Range<usize>> {
        self.0.iter().rev().find(|(key, _)| **key == *name.as_bytes()).map(|(_, place)| place.clone())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn skipped(text: &str) -> Result<(), Broken> {
        let mut walk = Walk::new(text.as_bytes());
        walk.skip()?;
        if walk.byte().is_none() { Ok(()) } else { Err(Broken { at: walk.at(), expected: "end" }) }
    }

    #[test]
    fn what_javascript_takes_is_read() {
        let deep = format!("{}1{}", "[{\"a\":".repeat(50_000), "}]".repeat(50_000));
        for text in ["\u{feff}{}", r#"{"a":"\ud83d"}"#, r#"{"a":1,"a":2}"#, "[1e999, -0, 1E+2]", "\"\\u0041\"", &deep] {
            assert_eq!(skipped(text), Ok(()), "{}", &text[..text.len().min(40)]);
        }
        let bytes = [&b"{\"a\":\""[..], &[0xff, 0x00, 0xc3], b"\"}"].concat();
        assert!(Walk::new(&bytes).skip().is_ok());
    }

    #[test]
    fn what_is_broken_is_told_with_its_place() {
        for (text, told) in [
            ("{\"messages\":[}", "expected value at line 1 column 14"),
            ("{\n \"a\" 1}", "expected `:` at line 2 column 6"),
            ("{\"a\":1 \"b\"", "expected `,` or `}` at line 1 column 8"),
            ("{\"prompt\":", "it ends too early at line 1 column 10"),
            ("{\"a\":01}", "expected value at line 1 column 6"),
            ("{a:1}", "key must be a string at line 1 column 2"),
        ] {
            assert_eq!(skipped(text).unwrap_err().told(text.as_bytes()), told, "{text}");
        }
    }

    #[test]
    fn surrogates_make_a_character_in_pairs_alone() {
        let text = |raw: &str| {
            let quoted = Quoted { raw: raw.as_bytes(), has_escapes: true };
            String::from_utf8(quoted.text().into_owned()).unwrap()
        };
        assert_eq!(text(r"\ud83d\ude00"), "😀");
        assert_eq!(text(r"a\ud83db"), "a\u{fffd}b");
        assert_eq!(text(r"\ude00\ud83d\ud83d\ude00"), "\u{fffd}\u{fffd}😀");
        assert_eq!(text(r"\u00e9\n\/\x"), "é\n/x");
        assert_eq!(text(r"\u12"), "\u{fffd}12");
    }

    #[test]
    fn of_twins_the_last_counts() {
        let text = br#"{"a":1, "b":2, "\u0061": 3}"#;
        let fields = Fields::of(text).unwrap();
        assert_eq!((fields.last("a"), fields.last("c")), (Some(25..26), None));
    }

    proptest! {
        #[test]
        fn what_serde_reads_is_read_alike(value in values(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() };
            prop_assert_eq!(skipped(&text), Ok(()));
            if let Some(object) = value.as_object() {
                let fields = Fields::of(text.as_bytes()).unwrap();
                for (key, value) in object {
                    let place = fields.last(key).unwrap();
                    prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&text[place]).unwrap(), value);
                }
            }
        }

        #[test]
        fn what_is_refused_here_is_refused_by_serde(text in "[{}\\[\\]\",:0-9a-e.\\\\ -]{0,24}") {
            if skipped(&text).is_err() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_err());
            }
        }

        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Walk::new(&bytes).skip();
            let _ = Fields::of(&bytes);
            Quoted { raw: &bytes, has_escapes: true }.text();
        }
    }

    fn values() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(serde_json::Value::from),
            (-999i32..999).prop_map(|eighths| serde_json::Value::from(f64::from(eighths) / 8.0)),
            any::<bool>().prop_map(serde_json::Value::from),
            ".{0,8}".prop_map(serde_json::Value::from),
            Just(serde_json::Value::Null),
        ];
        leaf.prop_recursive(5, 60, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
                prop::collection::btree_map(".{0,4}", inner, 0..5)
                    .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
            ]
        })
    }
}
