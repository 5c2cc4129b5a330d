//! What the models "write": words from a list, the same for the same prompt; objects that fit a schema.

use serde_json::{Map, Value, json};

use super::dice::Dice;

/// An answer, token by token.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    /// Thought before the answer; billed as output.
    pub(super) reasoning: Vec<String>,
    pub(super) answer: Vec<String>,
    /// A tool to call instead, with its arguments.
    pub(super) tool: Option<(String, String)>,
    /// The answer is an object.
    pub(super) is_object: bool,
    /// It would have gone on.
    pub(super) is_cut: bool,
    /// Tokens that were thought, are charged, and are shown to nobody.
    unseen: u64,
}

const WORDS: [&str; 48] = [
    "the",
    "gate",
    "holds",
    "each",
    "model",
    "to",
    "its",
    "limit",
    "and",
    "knows",
    "what",
    "a",
    "call",
    "costs",
    "before",
    "after",
    "so",
    "that",
    "nobody",
    "is",
    "surprised",
    "by",
    "bill",
    "tokens",
    "flow",
    "like",
    "water",
    "under",
    "stone",
    "bridge",
    "where",
    "keeper",
    "counts",
    "them",
    "one",
    "then",
    "writes",
    "figure",
    "in",
    "book",
    "for",
    "all",
    "see",
    "quiet",
    "river",
    "evening",
    "light",
    "falls",
];

impl Written {
    /// Prose of at most `max_tokens`, with some thinking before it where the model reasons.
    pub(super) fn prose(seed: u64, max_tokens: u64, reasons: bool) -> Self {
        let mut dice = Dice::new(seed);
        let wanted = 12 + dice.below(90);
        let thinking = if reasons { (4 + dice.below(24)).min(max_tokens) } else { 0 };
        let room = max_tokens - thinking;
        Self {
            reasoning: words(thinking, &mut dice),
            answer: words(wanted.min(room), &mut dice),
            is_cut: wanted > room,
            ..Self::default()
        }
    }

    /// An object that fits a schema.
    pub(super) fn object(schema: &Value, max_tokens: u64) -> Self {
        let mut answer = pieces(&filled(schema).to_string());
        let is_cut = answer.len() as u64 > max_tokens;
        answer.truncate(usize::try_from(max_tokens).unwrap_or(usize::MAX));
        Self { answer, is_object: !is_cut, is_cut, ..Self::default() }
    }

    /// A call of the first tool.
    pub(super) fn tool_call(tool: &Value) -> Self {
        let function = tool.get("function").unwrap_or(tool);
        let name = function["name"].as_str().unwrap_or("tool").to_owned();
        let arguments =
            filled(function.get("parameters").or(function.get("input_schema")).unwrap_or(&Value::Null)).to_string();
        Self { tool: Some((name, arguments)), ..Self::default() }
    }

    /// Thinks on until so many tokens are written.
    pub(super) fn think_on(&mut self, until: u64) {
        self.unseen += until.saturating_sub(self.tokens());
    }

    pub(super) fn text(&self) -> String {
        self.answer.concat()
    }

    pub(super) fn tokens(&self) -> u64 {
        let tool = self.tool.as_ref().map_or(0, |(name, arguments)| 8 + pieces(name).len() + pieces(arguments).len());
        (self.reasoning.len() + self.answer.len() + tool) as u64 + self.unseen
    }

    /// Tokens that were thought, seen or not.
    pub(super) fn reasoning_tokens(&self) -> u64 {
        self.reasoning.len() as u64 + self.unseen
    }

    /// Tokens that take their time on the wire.
    pub(super) fn shown_tokens(&self) -> u64 {
        self.tokens() - self.unseen
    }

    pub(super) fn finish_reason(&self) -> &'static str {
        match (&self.tool, self.is_cut) {
            (Some(_), _) => "tool_calls",
            (None, true) => "length",
            (None, false) => "stop",
        }
    }
}

fn words(count: u64, dice: &mut Dice) -> Vec<String> {
    (0..count).map(|n| format!("{}{}", if n == 0 { "" } else { " " }, dice.pick(&WORDS))).collect()
}

/// A text in pieces of four characters.
pub(super) fn pieces(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(4).map(|piece| piece.iter().collect()).collect()
}

/// The least that fits a JSON schema.
fn filled(schema: &Value) -> Value {
    Schema { root: schema, depth: 0 }.fill(schema)
}

/// What `$ref`s are looked up in, and how deep the value has become.
#[derive(Clone, Copy)]
struct Schema<'a> {
    root: &'a Value,
    depth: u32,
}

/// A schema that holds itself is followed so far.
const MAX_DEPTH: u32 = 8;

impl Schema<'_> {
    fn fill(self, schema: &Value) -> Value {
        let deeper = Self { depth: self.depth + 1, ..self };
        if let Some(meant) = schema["$ref"].as_str().and_then(|path| self.root.pointer(path.strip_prefix('#')?)) {
            return if self.depth < MAX_DEPTH { deeper.fill(meant) } else { Value::Null };
        }
        if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
            return first.clone();
        }
        if let Some(value) = schema.get("const") {
            return value.clone();
        }
        if let Some(first) = ["anyOf", "oneOf", "allOf"].iter().find_map(|any| schema[*any].as_array()?.first()) {
            return self.fill(first);
        }
        let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
        match kind {
            Some("string") => json!("quiet river"),
            Some("integer") => schema.get("minimum").filter(|least| least.is_i64()).cloned().unwrap_or(json!(3)),
            Some("number") => json!(schema["minimum"].as_f64().unwrap_or(3.5)),
            Some("boolean") => json!(true),
            Some("null") => Value::Null,
            Some("array") if self.depth >= MAX_DEPTH => json!([]),
            Some("array") => {
                let least = schema["minItems"].as_u64().unwrap_or(1).clamp(1, 64);
                (0..least).map(|_| deeper.fill(&schema["items"])).collect()
            }
            _ => Value::Object(deeper.properties(schema)),
        }
    }

    fn properties(self, schema: &Value) -> Map<String, Value> {
        let fields = schema["properties"].as_object().into_iter().flatten();
        fields.map(|(name, field)| (name.clone(), self.fill(field))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_fits_its_schema() {
        let schema = json!({"type": "object", "properties": {
            "mood": {"enum": ["good", "bad"]}, "n": {"type": "integer", "minimum": 1},
            "tags": {"type": "array", "minItems": 2, "items": {"type": "string"}}, "deep": {"type": "object", "properties": {"x": {"type": "number"}}}
        }});
        let text = Written::object(&schema, 1000).text();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value, json!({"mood": "good", "n": 1, "tags": ["quiet river", "quiet river"], "deep": {"x": 3.5}}));
    }

    #[test]
    fn a_schema_may_refer_to_its_parts_and_to_itself() {
        let schema = json!({"$defs": {"city": {"type": "object", "properties": {"name": {"type": "string"}}},
            "tree": {"type": "object", "properties": {"below": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}},
            "properties": {"cities": {"type": "array", "items": {"$ref": "#/$defs/city"}}, "tree": {"$ref": "#/$defs/tree"}}});
        let value = filled(&schema);
        assert_eq!(value["cities"], json!([{"name": "quiet river"}]));
        assert!(value["tree"]["below"][0]["below"].is_array());
    }

    #[test]
    fn the_same_prompt_gets_the_same_words_and_no_more_than_allowed() {
        let written = Written::prose(9, 5, false);
        assert_eq!(written.text(), Written::prose(9, 5, false).text());
        assert_eq!((written.tokens(), written.finish_reason()), (5, "length"));
    }
}
