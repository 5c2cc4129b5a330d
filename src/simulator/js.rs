//! `JSON.parse` as JavaScript has it: what the vendor's own code makes of a body.
//!
//! Written for the stand-in alone. The gate reads bodies with other code, so a mistake in one is not repeated in the other.
//! Of a key given twice the last counts, numbers are doubles, half a surrogate pair is a character of its own (here U+FFFD),
//! and nesting has no limit, so nothing here recurses: neither reading, nor looking, nor letting go.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// A parsed text: nodes that name each other by index.
#[derive(Debug, Default)]
pub(super) struct Document {
    nodes: Vec<Node>,
}

#[derive(Debug)]
enum Node {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<usize>),
    /// In the order of the text. Of a key that comes twice the last value is kept.
    Object(Vec<(String, usize)>),
}

/// One value of a document.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'d> {
    nodes: &'d [Node],
    at: usize,
}

/// Deeper values are cut off where a tree is made of them.
const MAX_TREE_DEPTH: u8 = 64;

// === impl Document ===

impl Document {
    /// What `JSON.parse(new TextDecoder().decode(bytes))` gives; `None` where it throws.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        // A decoder takes off one byte order mark, and puts U+FFFD for what is no UTF-8.
        let text = String::from_utf8_lossy(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
        Parser { text: &text, at: 0, nodes: Vec::new() }.document()
    }

    /// The outermost value.
    pub(super) fn root(&self) -> View<'_> {
        View { nodes: &self.nodes, at: 0 }
    }
}

// === impl View ===

impl<'d> View<'d> {
    fn node(self) -> &'d Node {
        self.nodes.get(self.at).unwrap_or(&Node::Null)
    }

    fn to(self, at: usize) -> Self {
        Self { at, ..self }
    }

    /// A field of an object; of two with the name, the last.
    pub(super) fn get(self, name: &str) -> Option<Self> {
        let Node::Object(fields) = self.node() else { return None };
        fields.iter().rev().find(|(key, _)| key == name).map(|(_, at)| self.to(*at))
    }

    /// A field that is there and is not null: what `body.name != null` asks.
    pub(super) fn given(self, name: &str) -> Option<Self> {
        self.get(name).filter(|view| !matches!(view.node(), Node::Null))
    }

    pub(super) fn text(self) -> Option<&'d str> {
        if let Node::Text(text) = self.node() { Some(text) } else { None }
    }

    pub(super) fn number(self) -> Option<f64> {
        if let Node::Number(number) = self.node() { Some(*number) } else { None }
    }

    pub(super) fn bool(self) -> Option<bool> {
        if let Node::Bool(is) = self.node() { Some(*is) } else { None }
    }

    pub(super) fn is_object(self) -> bool {
        matches!(self.node(), Node::Object(_))
    }

    /// What `if (value)` asks.
    pub(super) fn is_truthy(self) -> bool {
        match self.node() {
            Node::Null => false,
            Node::Bool(is) => *is,
            Node::Number(number) => *number != 0.0,
            Node::Text(text) => !text.is_empty(),
            Node::List(_) | Node::Object(_) => true,
        }
    }

    /// The items of a list; `None` for anything else.
    pub(super) fn items(self) -> Option<impl DoubleEndedIterator<Item = Self> + ExactSizeIterator> {
        let Node::List(items) = self.node() else { return None };
        Some(items.iter().map(move |at| self.to(*at)))
    }

    /// The names of an object's fields.
    pub(super) fn names(self) -> impl Iterator<Item = &'d str> {
        let fields = if let Node::Object(fields) = self.node() { fields.as_slice() } else { &[] };
        fields.iter().map(|(name, _)| name.as_str())
    }

    /// `String(value)`, but for objects, which say nothing.
    pub(super) fn string(self) -> String {
        let (mut text, mut pending) = (String::new(), vec![self]);
        while let Some(view) = pending.pop() {
            match view.node() {
                Node::Text(part) => text += part,
                Node::Number(number) => text += &number_text(*number),
                Node::Bool(is) => text += if *is { "true" } else { "false" },
                Node::List(items) => {
                    text.extend(std::iter::repeat_n(',', items.len().saturating_sub(1)));
                    pending.extend(items.iter().rev().map(|at| view.to(*at)));
                }
                Node::Null | Node::Object(_) => {}
            }
        }
        text
    }

    /// All text in it, at any depth: what may become part of a prompt. With `keys`, as where it is written out as JSON.
    pub(super) fn words(self, keys: bool) -> String {
        let (mut text, mut pending) = (String::new(), vec![self]);
        while let Some(view) = pending.pop() {
            match view.node() {
                Node::List(items) => {
                    text += if keys { "[]" } else { "" };
                    pending.extend(items.iter().rev().map(|at| view.to(*at)));
                }
                Node::Object(fields) => {
                    for (key, at) in fields.iter().rev() {
                        if keys {
                            text += key;
                            text += "\"\":,";
                        }
                        pending.push(view.to(*at));
                    }
                }
                Node::Text(part) => {
                    text += part;
                    text += if keys { "\"\"" } else { "" };
                }
                Node::Null if keys => text += "null",
                _ => text += &view.string(),
            }
        }
        text
    }

    /// As a tree, for schemas and tools, down to some depth.
    pub(super) fn tree(self) -> Value {
        self.tree_to(MAX_TREE_DEPTH)
    }

    fn tree_to(self, depth: u8) -> Value {
        let Some(below) = depth.checked_sub(1) else { return Value::Null };
        match self.node() {
            Node::Null => Value::Null,
            Node::Bool(is) => Value::Bool(*is),
            Node::Number(number) if number.fract() == 0.0 && number.abs() < 9e15 => Value::from(*number as i64),
            Node::Number(number) => Value::from(*number),
            Node::Text(text) => Value::from(text.as_str()),
            Node::List(items) => items.iter().map(|at| self.to(*at).tree_to(below)).collect(),
            Node::Object(fields) => {
                let fields = fields.iter().map(|(key, at)| (key.clone(), self.to(*at).tree_to(below)));
                Value::Object(fields.collect::<Map<_, _>>())
            }
        }
    }
}

/// `String(number)`: digits up to 1e21, then an exponent.
fn number_text(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    if number != 0.0 && !(1e-6..1e21).contains(&number.abs()) {
        return format!("{number:e}");
    }
    format!("{number}")
}

// === reading ===

/// `JSON.parse` keeps the last value of a key.
fn forget_twins(node: &mut Node) {
    let Node::Object(fields) = node else { return };
    let mut last = HashMap::new();
    for (at, (name, _)) in fields.iter().enumerate() {
        last.insert(name.clone(), at);
    }
    if last.len() < fields.len() {
        let mut at = 0..;
        fields.retain(|(name, _)| last.get(name) == at.next().as_ref());
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    nodes: Vec<Node>,
}

/// A list or an object that has begun, and the key whose value comes next.
struct Open {
    node: usize,
    key: Option<String>,
}

impl Parser<'_> {
    fn document(mut self) -> Option<Document> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            let (mut ended, is_open) = self.begin()?;
            if is_open {
                let key = self.key_of(ended)?;
                open.push(Open { node: ended, key });
                continue;
            }
            // A value has ended here, and with it whatever its closing brackets close.
            loop {
                self.skip_space();
                let Some(last) = open.last_mut() else {
                    let is_whole = self.at == self.text.len();
                    self.nodes.iter_mut().for_each(forget_twins);
                    return is_whole.then_some(Document { nodes: self.nodes });
                };
                let node = last.node;
                self.attach(node, last.key.take(), ended);
                if self.eat(b',') {
                    last.key = self.key_of(node)?;
                    break;
                }
                let close = if matches!(self.nodes.get(node), Some(Node::Object(_))) { b'}' } else { b']' };
                if !self.eat(close) {
                    return None;
                }
                ended = node;
                open.pop();
            }
        }
    }

    /// The value that begins here, and whether it is a list or an object that has something in it.
    fn begin(&mut self) -> Option<(usize, bool)> {
        self.skip_space();
        let (node, close) = match self.peek()? {
            b'{' => (Node::Object(Vec::new()), b'}'),
            b'[' => (Node::List(Vec::new()), b']'),
            _ => {
                let scalar = self.scalar()?;
                return Some((self.push(scalar), false));
            }
        };
        self.at += 1;
        self.skip_space();
        let is_empty = self.eat(close);
        Some((self.push(node), !is_empty))
    }

    fn push(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn attach(&mut self, to: usize, key: Option<String>, value: usize) {
        match (self.nodes.get_mut(to), key) {
            (Some(Node::Object(fields)), Some(key)) => fields.push((key, value)),
            (Some(Node::List(items)), _) => items.push(value),
            _ => {}
        }
    }

    /// The next key and its colon, where `node` is an object.
    fn key_of(&mut self, node: usize) -> Option<Option<String>> {
        if !matches!(self.nodes.get(node), Some(Node::Object(_))) {
            return Some(None);
        }
        self.skip_space();
        let key = self.string()?;
        self.skip_space();
        self.eat(b':').then_some(Some(key))
    }

    fn scalar(&mut self) -> Option<Node> {
        let rest = self.text.get(self.at..)?;
        for (word, node) in [("true", Node::Bool(true)), ("false", Node::Bool(false)), ("null", Node::Null)] {
            if rest.starts_with(word) {
                self.at += word.len();
                return Some(node);
            }
        }
        if rest.starts_with('"') { self.string().map(Node::Text) } else { self.number().map(Node::Number) }
    }

    fn number(&mut self) -> Option<f64> {
        let start = self.at;
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _ = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        self.text.get(start..self.at)?.parse().ok()
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn string(&mut self) -> Option<String> {
        self.eat(b'"').then_some(())?;
        let mut text = String::new();
        loop {
            let rest = self.text.get(self.at..)?;
            let plain = rest.find(|c| c == '"' || c == '\\' || c < ' ')?;
            text += &rest[..plain];
            self.at += plain + 1;
            match rest.as_bytes().get(plain)? {
                b'"' => return Some(text),
                b'\\' => text.push(self.escape()?),
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let kind = self.peek()?;
        self.at += 1;
        Some(match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => self.unit()?,
            _ => return None,
        })
    }

    /// A character by its four hexadecimal digits, with its other half where it is a surrogate that has one.
    fn unit(&mut self) -> Option<char> {
        let first = self.hex()?;
        let before = self.at;
        if (0xd800..0xdc00).contains(&first) && self.text.get(self.at..)?.starts_with("\\u") {
            self.at += 2;
            let second = self.hex()?;
            if (0xdc00..0xe000).contains(&second) {
                return char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
            }
            self.at = before;
        }
        Some(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_and_refuses_what_json_parse_does() {
        for taken in [
            "{}",
            " [1, 2.5e3, -0, 1e999]\r\n",
            "\u{feff}{\"a\":1}",
            r#""\ud83d""#,
            r#"{"a":1,"a":2}"#,
            "\"\u{7f}\u{2028}\"",
        ] {
            assert!(Document::parse(taken.as_bytes()).is_some(), "{taken:?}");
        }
        assert!(Document::parse(b"\"\xff\"").is_some());
        for refused in [
            "",
            "{",
            "{}}",
            "{}\0",
            "\u{feff}\u{feff}{}",
            "{'a':1}",
            "[1,]",
            "01",
            "+1",
            ".5",
            "1.",
            "NaN",
            "\"\n\"",
            r#""\x""#,
            r#""\u12g4""#,
            "\u{a0}{}",
            "{\"a\" 1}",
            "[1 2]",
            "{1:2}",
            "[}",
        ] {
            assert!(Document::parse(refused.as_bytes()).is_none(), "{refused:?}");
        }
    }

    #[test]
    fn the_last_of_two_fields_counts_and_halves_of_a_pair_are_characters() {
        let document =
            Document::parse(br#"{"a":1,"\u0061":"\ud83d\ude00\ud83dx\udc00","b":[1e21,1e20,true,[null,"z"]]}"#)
                .unwrap();
        assert_eq!(document.root().get("a").unwrap().text(), Some("😀\u{fffd}x\u{fffd}"));
        assert_eq!(document.root().names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(document.root().get("b").unwrap().string(), ",,,1e21100000000000000000000true,z".to_owned());
    }

    #[test]
    fn a_million_brackets_are_read_and_let_go() {
        let deep = ["[".repeat(1_000_000), "]".repeat(1_000_000)].concat();
        let document = Document::parse(deep.as_bytes()).unwrap();
        assert_eq!(document.root().words(false), "");
        assert!(Document::parse(&deep.as_bytes()[1..]).is_none());
    }

    proptest::proptest! {
        #[test]
        fn what_serde_reads_it_reads_alike(json in "[\\[\\]{}\",:a0-9.eE+\\\\u \n-]{0,40}") {
            if let Ok(value) = serde_json::from_str::<Value>(&json) {
                let ours = Document::parse(json.as_bytes()).unwrap().root().tree();
                proptest::prop_assert_eq!(super::tests::normal(value), super::tests::normal(ours));
            }
        }
    }

    /// Integers and doubles alike.
    pub(super) fn normal(value: Value) -> Value {
        match value {
            Value::Number(number) => Value::from(number.as_f64()),
            Value::Array(items) => items.into_iter().map(normal).collect(),
            Value::Object(fields) => {
                Value::Object(fields.into_iter().map(|(key, value)| (key, normal(value))).collect())
            }
            other => other,
        }
    }
}
