//! What a request says: read for itself, so that a mistake of the gate's is not made twice.

use bytes::Bytes;
use serde_json::Value;

use super::binary;
use super::coerce::{Coercion, Given};
use super::dice;
use super::form::{self, Part};
use super::js::{Document, View};
use super::limits;
use super::pictures::{self, Picture};
use super::tokenizer::Tokenizer;
use crate::catalogue::{Model, Task};

/// A request's body, read by its content type.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Where it is JSON, an object.
    document: Option<Document>,
    /// The parts of a form, or of a form within the JSON.
    parts: Vec<Part>,
    bytes: Bytes,
}

/// What one request asks for: a body, or an item of a batch.
#[derive(Debug)]
pub(super) struct Prompt<'a> {
    /// The objects that its fields may stand in; what stands in the first counts first.
    objects: Vec<View<'a>>,
    parts: &'a [Part],
    /// Raw bytes, where it is neither JSON nor a form: audio, a picture.
    pub(super) raw: Option<&'a Bytes>,
    pub(super) coercion: Coercion,
    /// Each text to be read: a message, a prompt, an item to embed.
    pub(super) texts: Vec<String>,
}

/// What is wrong with a body: the vendor's code.
pub(super) const NO_JSON: u32 = 5004;
pub(super) const NO_OBJECT: u32 = 5006;

/// The default instruction that goes before each query to embed, in tokens.
const INSTRUCTION_TOKENS: u64 = 32;

// === impl Sent ===

impl Sent {
    /// Reads a body; the routes that are not the vendor's own take JSON alone.
    pub(super) async fn read(bytes: Bytes, content_type: &str, is_native: bool) -> Result<Self, u32> {
        let kind = content_type.trim().to_ascii_lowercase();
        if is_native && kind.starts_with("multipart/form-data") {
            let parts = form::read(&bytes, content_type).await.ok_or(NO_JSON)?;
            return Ok(Self { parts, bytes, document: None });
        }
        let is_raw = ["audio/", "image/", "video/"].iter().any(|prefix| kind.starts_with(prefix));
        if is_native && is_raw {
            return Ok(Self { bytes, ..Self::default() });
        }
        let document = Document::parse(&bytes);
        let is_json = !is_native || kind.contains("json");
        match document {
            Some(document) if document.root().is_object() => {
                let parts = form_within(document.root()).await;
                Ok(Self { document: Some(document), parts, bytes })
            }
            Some(_) if is_json => Err(NO_OBJECT),
            None if is_json => Err(NO_JSON),
            _ => Ok(Self { bytes, ..Self::default() }),
        }
    }

    pub(super) fn root(&self) -> Option<View<'_>> {
        self.document.as_ref().map(Document::root)
    }

    /// The model's name, where the body has it.
    pub(super) fn model(&self) -> Option<&str> {
        let name = self.root()?.get("model")?.text()?;
        Some(name.strip_prefix("workers-ai/").unwrap_or(name))
    }

    /// True where it is neither JSON nor a form.
    pub(super) fn is_raw(&self) -> bool {
        self.document.is_none() && self.parts.is_empty()
    }

    pub(super) fn prompt(&self, coercion: Coercion) -> Prompt<'_> {
        let objects = self.root().map(|root| inputs(root, coercion)).unwrap_or_default();
        let raw = self.is_raw().then_some(&self.bytes);
        Prompt { texts: texts(&objects, &self.parts, coercion), objects, parts: &self.parts, raw, coercion }
    }
}

/// `{"model":…,"input":{…}}` wraps the model's own inputs. Who reckons dearly looks at what stands beside, too.
fn inputs(root: View<'_>, coercion: Coercion) -> Vec<View<'_>> {
    let inner = root.get("input").filter(|input| input.is_object());
    match (inner, coercion) {
        (Some(inner), Coercion::Plain) => vec![inner],
        (inner, _) => inner.into_iter().chain([root]).collect(),
    }
}

/// `{"multipart":{"body":…,"contentType":"multipart/form-data; boundary=…"}}`: a form as a binding's users write it.
async fn form_within(root: View<'_>) -> Vec<Part> {
    let inner = root.get("input").filter(|input| input.is_object()).unwrap_or(root);
    let Some(form) = inner.get("multipart") else { return Vec::new() };
    let (Some(body), Some(kind)) = (form.get("body"), form.get("contentType").and_then(View::text)) else {
        return Vec::new();
    };
    let text = body.string();
    if let Some(parts) = form::read(&Bytes::from(text.clone()), kind).await {
        return parts;
    }
    form::read(&binary::of_text(&text), kind).await.unwrap_or_default()
}

// === impl Prompt ===

impl<'a> Prompt<'a> {
    /// An item of a batch.
    pub(super) fn of(item: View<'a>, coercion: Coercion) -> Self {
        let objects = vec![item];
        Self { texts: texts(&objects, &[], coercion), objects, parts: &[], raw: None, coercion }
    }

    /// A field that is not null, where it stands first.
    pub(super) fn field(&self, name: &str) -> Option<View<'a>> {
        self.objects.iter().find_map(|object| object.given(name))
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        let in_form = || self.form_texts(name).any(|text| text.trim() == "true");
        self.field(name).map_or_else(in_form, View::is_truthy)
    }

    fn form_texts(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.parts
            .iter()
            .filter(move |part| part.name == name)
            .filter_map(|part| std::str::from_utf8(&part.content).ok())
    }

    /// The files of a form.
    pub(super) fn files(&self) -> impl Iterator<Item = &'a Part> {
        self.parts.iter().filter(|part| part.is_file)
    }

    /// Every figure that stands under one of the names, in JSON or in a form.
    pub(super) fn figures(&self, names: &[&str]) -> Vec<Given<'a>> {
        let each = names.iter().flat_map(|name| {
            let json = self.objects.iter().filter_map(|object| object.given(name)).map(Given::Json);
            json.chain(self.form_texts(name).map(Given::Text))
        });
        each.collect()
    }

    pub(super) fn limit(&self, names: &[&str], default: Option<u64>, most: u64) -> u64 {
        self.coercion.limit(self.figures(names).into_iter(), default, most)
    }

    /// True where it is of OpenAI's form for responses: inputs, and neither a prompt nor messages.
    pub(super) fn is_responses(&self) -> bool {
        self.field("input").is_some() && self.field("messages").is_none() && self.field("prompt").is_none()
    }

    /// The last message tells what a tool said: in OpenAI's form, in that of its responses, or in Anthropic's.
    pub(super) fn has_tool_result(&self) -> bool {
        let last = |name| self.field(name).and_then(|all| all.items()?.next_back());
        let is = |view: View<'_>, field, wanted| view.get(field).and_then(View::text) == Some(wanted);
        let of_anthropic = |message: View<'_>| {
            let parts = message.get("content").and_then(View::items);
            parts.is_some_and(|mut parts| parts.any(|part| is(part, "type", "tool_result")))
        };
        last("messages").is_some_and(|message| is(message, "role", "tool") || of_anthropic(message))
            || last("input").is_some_and(|item| is(item, "type", "function_call_output"))
    }

    pub(super) fn is_dear(&self) -> bool {
        self.coercion == Coercion::Dear
    }

    /// Tokens that the model reads.
    pub(super) fn tokens(&self, model: &Model) -> u64 {
        let tokenizer = Tokenizer::of(&model.id);
        let count = |text: &String| if self.is_dear() { text.len() as u64 } else { tokenizer.count(text) };
        let text: u64 = self.texts.iter().map(|text| tokenizer.message + count(text)).sum();
        let pictures = if limits::sees(model) { self.picture_tokens(model) } else { 0 };
        tokenizer.call + text + pictures + if self.is_dear() { self.read_again(model) } else { 0 }
    }

    /// Tokens that no text of the request shows: a reranker reads its query with each context, queries get an instruction.
    fn read_again(&self, model: &Model) -> u64 {
        let items = |name| self.field(name).and_then(View::items).map_or(0, |items| items.len() as u64);
        let query = self.field("query").map_or(0, |query| query.string().len() as u64);
        match model.task {
            Task::TextClassification => query * items("contexts").saturating_sub(1),
            Task::TextEmbeddings if model.id.contains("qwen3") => INSTRUCTION_TOKENS * items("queries").max(1),
            _ => 0,
        }
    }

    fn picture_tokens(&self, model: &Model) -> u64 {
        let found = self.objects.iter().flat_map(|object| pictures::all(*object));
        found.map(|picture| picture.tokens(model, self.is_dear())).sum()
    }

    /// The pictures that it gives, in a form or in JSON.
    pub(super) fn pictures(&self) -> Vec<Picture> {
        let files = self.files().filter(|part| part.name.contains("image") || part.name == "mask");
        let files = files.map(|part| Picture::Bytes(part.content.clone()));
        let fields = ["image", "images", "image_b64", "mask"].into_iter().filter_map(|name| self.field(name));
        files.chain(fields.flat_map(pictures::given)).collect()
    }

    /// Tokens of a `prediction`, which are charged as output where they are not taken.
    pub(super) fn predicted(&self, model: &Model) -> u64 {
        if !limits::is_template(model) || !self.is_dear() {
            return 0;
        }
        self.field("prediction").map_or(0, |prediction| prediction.words(false).len() as u64)
    }

    /// The same for the same words, however they are asked for.
    pub(super) fn seed(&self, model: &str) -> u64 {
        let words: Vec<&str> = self.texts.iter().map(String::as_str).chain([model]).collect();
        dice::seed(&words)
    }
}

const TEXT_FIELDS: [&str; 14] = [
    "prompt",
    "text",
    "input",
    "input_text",
    "instructions",
    "system",
    "query",
    "queries",
    "question",
    "state",
    "contexts",
    "context",
    "documents",
    "questions",
];
/// Written out as JSON into a prompt.
const SCHEMA_FIELDS: [&str; 4] = ["tools", "functions", "response_format", "guided_json"];

fn texts(objects: &[View<'_>], parts: &[Part], coercion: Coercion) -> Vec<String> {
    let is_dear = coercion == Coercion::Dear;
    let mut texts = Vec::new();
    for object in objects {
        for message in object.get("messages").and_then(View::items).into_iter().flatten() {
            texts.push(if is_dear { all_of(message) } else { content(message.get("content")) });
        }
        for field in TEXT_FIELDS {
            match object.given(field) {
                // The inputs themselves are among the objects.
                Some(input) if field == "input" && input.is_object() => {}
                Some(value) => collect(value, is_dear, &mut texts),
                None => {}
            }
        }
        for field in SCHEMA_FIELDS {
            match object.given(field) {
                Some(schema) if is_dear => texts.push(schema.words(true)),
                // Plainly, a schema steers what is written and is not read.
                Some(tools) if field != "response_format" && field != "guided_json" => {
                    texts.push(tools.tree().to_string())
                }
                _ => {}
            }
        }
    }
    let of_form = parts.iter().filter(|part| part.name == "prompt" || part.name == "text");
    texts.extend(of_form.map(|part| String::from_utf8_lossy(&part.content).into_owned()));
    texts
}

/// A message's content: a text, or parts of which some are texts.
fn content(value: Option<View<'_>>) -> String {
    let Some(value) = value else { return String::new() };
    match (value.text(), value.items()) {
        (Some(text), _) => text.to_owned(),
        (_, Some(parts)) => parts.filter_map(|part| part.get("text")?.text()).collect(),
        _ => String::new(),
    }
}

/// Every word of a message, whoever it is from, but for pictures and the like, which are counted apart.
fn all_of(message: View<'_>) -> String {
    let Some(parts) = message.get("content").and_then(View::items) else { return message.words(false) };
    let said = parts.filter_map(|part| if pictures::is_part(part) { part.get("text") } else { Some(part) });
    let said = said.map(|part| part.words(false));
    let names = message.names().filter(|name| *name != "content");
    let beside = names.filter_map(|name| message.get(name)).map(|field| field.words(false));
    said.chain(beside).collect()
}

/// A text, or each of a list of texts.
fn collect(value: View<'_>, is_dear: bool, texts: &mut Vec<String>) {
    let one = |value: View<'_>| match value.text() {
        Some(text) => Some(text.to_owned()),
        None if is_dear => Some(all_of(value)),
        None if value.is_object() => {
            let fields = ["text", "content"].iter().filter_map(|name| value.get(name));
            Some(fields.map(|field| content(Some(field))).collect())
        }
        None => None,
    };
    match value.items() {
        Some(items) => texts.extend(items.filter_map(one)),
        None => texts.extend(one(value)),
    }
}

/// The first tool that may be called.
pub(super) fn first_tool(prompt: &Prompt<'_>) -> Option<Value> {
    let tools = prompt.field("tools").or_else(|| prompt.field("functions"))?.items()?;
    let choice = prompt.field("tool_choice").and_then(|choice| choice.text().or_else(|| choice.get("type")?.text()));
    let may_call = choice != Some("none");
    tools.into_iter().next().filter(|_| may_call).map(View::tree)
}
