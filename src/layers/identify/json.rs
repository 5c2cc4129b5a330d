//! What a JSON body asks for: read in one pass, without building a tree.

use std::ops::Range;

use serde::de::IgnoredAny;

use super::count::Count;
use super::form;
use super::media::{self, MediaKind};
use super::reading::Reading;
use super::scope::{Form, Limit, Measure, Scope, Totals};
use crate::call::{Ask, Endpoint};
use crate::catalogue::Text;
use crate::json::{BYTE_ORDER_MARK, Broken, Kind, Quoted, Walk, growth};

/// Within this many values that hold others, text is told from pictures; below it everything is text.
const MAX_DEPTH: u8 = 48;
/// Objects that wrap a model's inputs: the body, its `input`, its `requests`.
const MAX_WRAPPERS: u8 = 4;

/// Reads a JSON object. Fields it does not know are the vendor's business; what cannot be read counts as the dearest that
/// it may be.
pub(super) fn read(body: &[u8], endpoint: Endpoint) -> Reading {
    let mut reading = Reading::default();
    reading.ask.reach.is_chat = matches!(endpoint, Endpoint::ChatCompletions | Endpoint::Messages);
    let mut reader = Reader { reading: &mut reading, walk: Walk::new(body), endpoint, request_id: None };
    let read = reader.body();
    let (read_to, request_id) = (reader.walk.at().min(body.len()), reader.request_id);
    match read {
        Ok((totals, asks_more)) => {
            reading.set(totals);
            reading.ask.poll_of = request_id.filter(|_| !asks_more);
        }
        Err(broken) => {
            reading.set(Totals::UNREAD);
            reading.ask.reach.is_unread = true;
            reading.broken = Some(broken);
        }
    }
    let more = &body[read_to..];
    reading.has_more = !more.trim_ascii().is_empty();
    // The vendor was seen to take NULs behind an object, so that they are no reason to doubt what is in it.
    let end = body.len() - more.iter().rev().take_while(|byte| **byte == 0 || byte.is_ascii_whitespace()).count();
    let body = &body[..end];
    if reading.broken.is_none() && (end > read_to || !is_strict(body)) {
        // No limit in it is surely read, nor a picture's measures.
        let reach = &mut reading.ask.reach;
        reach.is_doubted = true;
        let image = &mut reach.image;
        for side in [&mut image.width, &mut image.height, &mut image.steps, &mut image.num_steps] {
            side.or_default = true;
        }
    }
    let reach = &mut reading.ask.reach;
    reach.other_text_bytes += more.len() as u64;
    if std::str::from_utf8(body).is_err() {
        // Each byte that is no UTF-8 becomes a character of three bytes.
        reach.other_text_bytes += 2 * body.iter().filter(|byte| !byte.is_ascii()).count() as u64;
    }
    reading
}

/// Whether `JSON.parse` takes what the walker has read: strings without raw control characters and unknown escapes. Bodies
/// without either, and without line breaks, are most.
fn is_strict(body: &[u8]) -> bool {
    // Without a way out, so that many bytes are looked at at once.
    let is_suspicious = body.iter().fold(false, |so_far, byte| so_far | (*byte < b' ') | (*byte == b'\\'));
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    !is_suspicious || serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

struct Reader<'r, 'b> {
    reading: &'r mut Reading,
    walk: Walk<'b>,
    endpoint: Endpoint,
    request_id: Option<Box<str>>,
}

/// What a field of the body is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Model,
    Stream,
    Limit(Limit),
    Measure(Measure),
    Temperature,
    Seed,
    Text,
    /// Read again with each of the other texts.
    RepeatedText,
    Schema,
    Prediction,
    Input,
    Answers,
    BestOf,
    Requests,
    RequestId,
    Form,
    Media(MediaKind),
    Other,
}

impl Field {
    fn of(name: &[u8]) -> Self {
        match name {
            b"model" => Self::Model,
            b"stream" => Self::Stream,
            b"max_tokens" => Self::Limit(Limit::Tokens),
            b"max_completion_tokens" => Self::Limit(Limit::CompletionTokens),
            b"max_output_tokens" => Self::Limit(Limit::OutputTokens),
            b"max_length" => Self::Limit(Limit::Length),
            b"temperature" => Self::Temperature,
            b"seed" => Self::Seed,
            b"width" => Self::Measure(Measure::Width),
            b"height" => Self::Measure(Measure::Height),
            b"steps" => Self::Measure(Measure::Steps),
            b"num_steps" => Self::Measure(Measure::NumSteps),
            b"messages" | b"prompt" | b"text" | b"input_text" | b"instructions" | b"system" | b"contexts"
            | b"context" | b"question" | b"questions" | b"state" | b"documents" | b"queries" => Self::Text,
            b"query" | b"instruction" => Self::RepeatedText,
            b"tools" | b"functions" | b"response_format" | b"guided_json" => Self::Schema,
            b"prediction" => Self::Prediction,
            b"input" => Self::Input,
            b"n" => Self::Answers,
            b"best_of" => Self::BestOf,
            b"requests" => Self::Requests,
            b"request_id" => Self::RequestId,
            b"multipart" => Self::Form,
            other => MediaKind::of_field(other).map_or(Self::Other, Self::Media),
        }
    }
}

// === impl Reader ===

impl<'b> Reader<'_, 'b> {
    /// The whole of it, and whether it asks for more than the answers of a batch.
    fn body(&mut self) -> Result<(Totals, bool), Broken> {
        if self.walk.peek()? != Kind::Object {
            let broken = Broken { at: self.walk.at(), expected: "expected an object" };
            self.rest()?;
            return Err(broken);
        }
        let mut scope = self.scope();
        self.object(&mut scope, 0)?;
        Ok((scope.totals(), scope.asks_more_than_a_poll))
    }

    fn scope(&self) -> Scope {
        let form = if self.endpoint == Endpoint::Responses { Form::Responses } else { Form::Chat };
        Scope::of(form)
    }

    /// An object of fields: the body, or one in it that wraps a model's inputs.
    fn object(&mut self, scope: &mut Scope, wrappers: u8) -> Result<(), Broken> {
        self.walk.open();
        let mut is_first = true;
        while let Some(key) = self.walk.key(&mut is_first)? {
            self.field(&key, scope, wrappers)?;
        }
        Ok(())
    }

    fn field(&mut self, key: &Quoted<'b>, scope: &mut Scope, wrappers: u8) -> Result<(), Broken> {
        let field = Field::of(&key.text());
        scope.asks_more_than_a_poll |= !matches!(field, Field::Model | Field::RequestId | Field::Input);
        let ask = &mut self.reading.ask;
        match field {
            Field::Limit(limit) => {
                let count = Count::take(&mut self.walk)?;
                if let Count::Plain(tokens) = count {
                    ask.max_tokens = ask.max_tokens.max(Some(u32::try_from(tokens).unwrap_or(u32::MAX)));
                }
                scope.limit(limit, count);
            }
            Field::Measure(measure) => {
                let count = Count::take(&mut self.walk)?;
                media::wish(ask, measure, count);
                scope.measure(measure, count);
            }
            Field::Answers => scope.answers(Count::take(&mut self.walk)?),
            Field::BestOf => scope.best_of(Count::take(&mut self.walk)?),
            Field::Stream => {
                self.reading.stream = self.walk.peek()? == Kind::True;
                self.walk.skip()?;
            }
            Field::Temperature => self.reading.ask.temperature = self.number()?,
            Field::Seed => self.reading.ask.seeded = self.number()?.is_some(),
            Field::Text => {
                scope.asks = true;
                scope.has_prompt |= matches!(&*key.text(), b"messages" | b"prompt");
                self.words()?;
            }
            Field::RepeatedText => {
                scope.asks = true;
                let before = ask.text.bytes();
                self.words()?;
                let text = self.reading.ask.text.bytes() - before;
                self.reading.ask.reach.repeated_text_bytes += text;
            }
            Field::Schema => {
                scope.asks = true;
                let place = self.walk.skip()?;
                let written = self.walk.written(place);
                ask.text.add_bytes(written);
                ask.reach.other_text_bytes += growth(written);
            }
            Field::Prediction => {
                scope.asks = true;
                scope.prediction_bytes += self.rest()?;
            }
            Field::Media(kind) => {
                scope.asks = true;
                media::take(&mut self.walk, ask, kind, 0)?;
            }
            Field::Form => {
                // Few models read a form here; for the others the body asks for what they do by default.
                scope.asks = true;
                let place = self.walk.skip()?;
                let form = form::within(self.reading, self.walk.written(place));
                scope.inner = Some(scope.inner.map_or(form, |inner| inner.or(form)));
            }
            Field::Model if wrappers == 0 => self.model()?,
            Field::Input => self.input(scope, wrappers)?,
            Field::Requests => self.requests(scope, wrappers)?,
            Field::RequestId => self.request_id(scope)?,
            // The model is named outside; a field of that name within `input` is the model's own.
            Field::Model | Field::Other => {
                self.rest()?;
            }
        }
        Ok(())
    }

    /// Of several names the last one counts, as `JSON.parse` has it.
    fn model(&mut self) -> Result<(), Broken> {
        let is_text = self.walk.peek()? == Kind::String;
        let place = self.walk.skip()?;
        let named = Quoted::at(self.walk.written(place.clone()));
        self.reading.model = is_text.then(|| (String::from_utf8_lossy(&named.text()).into_owned(), place));
        Ok(())
    }

    /// The model's inputs on `…/ai/run`, texts on `/v1/embeddings`, messages on `/v1/responses`.
    fn input(&mut self, scope: &mut Scope, wrappers: u8) -> Result<(), Broken> {
        if self.walk.peek()? == Kind::Object && wrappers < MAX_WRAPPERS {
            let mut inner = self.scope();
            self.object(&mut inner, wrappers + 1)?;
            scope.asks_more_than_a_poll |= inner.asks_more_than_a_poll;
            if self.endpoint.is_native() && !inner.has_prompt {
                // With neither messages nor a prompt in it, it may be read as the input of OpenAI's Responses.
                inner.form = Form::Either;
            }
            let totals = inner.totals();
            scope.inner = Some(scope.inner.map_or(totals, |before| before.or(totals)));
            return Ok(());
        }
        (scope.asks, scope.asks_more_than_a_poll) = (true, true);
        if self.endpoint.is_native() {
            scope.form = Form::Either;
        }
        self.words()
    }

    /// A batch, each request of which is as a body of its own. An empty list, or something that is none, bounds nothing.
    fn requests(&mut self, scope: &mut Scope, wrappers: u8) -> Result<(), Broken> {
        if self.walk.peek()? != Kind::Array || wrappers >= MAX_WRAPPERS {
            self.rest()?;
            return Ok(());
        }
        self.walk.open();
        let (mut all, mut is_first) = (Totals::none(), true);
        while self.walk.element(&mut is_first)? {
            let mut request = self.scope();
            if self.walk.peek()? == Kind::Object {
                self.object(&mut request, wrappers + 1)?;
            } else {
                self.words()?;
            }
            all = all.and(request.totals());
        }
        if all.requests > 0 {
            self.reading.ask.batch = true;
            scope.items = Some(scope.items.map_or(all, |before| before.and(all)));
        }
        Ok(())
    }

    fn request_id(&mut self, scope: &mut Scope) -> Result<(), Broken> {
        if self.walk.peek()? != Kind::String {
            scope.asks_more_than_a_poll = true;
            self.rest()?;
            return Ok(());
        }
        let id = self.walk.string()?.text();
        scope.asks_more_than_a_poll |= id.is_empty();
        self.request_id = Some(String::from_utf8_lossy(&id).into());
        Ok(())
    }

    /// A number, also in quotes.
    fn number(&mut self) -> Result<Option<f64>, Broken> {
        let text = match self.walk.peek()? {
            Kind::Number => self.walk.literal()?.into(),
            Kind::String => self.walk.string()?.text(),
            _ => return self.walk.skip().map(|_| None),
        };
        Ok(std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()))
    }

    /// A value that is in no field known to be read: if it is read, then as text. Gives its bytes.
    fn rest(&mut self) -> Result<u64, Broken> {
        self.rest_at().map(|(_, bytes)| bytes)
    }

    /// The same, and where it stands.
    fn rest_at(&mut self) -> Result<(Range<usize>, u64), Broken> {
        let is_literal = !matches!(self.walk.peek()?, Kind::String | Kind::Object | Kind::Array);
        let place = self.walk.skip()?;
        let bytes = place.len() as u64 + growth(self.walk.written(place.clone()));
        self.reading.ask.reach.other_text_bytes += if is_literal { 0 } else { bytes };
        Ok((place, bytes))
    }

    /// The `type` of a part: whether it is a document's.
    fn is_document(&mut self) -> Result<bool, Broken> {
        let (place, _) = self.rest_at()?;
        Ok(Quoted::at(self.walk.written(place)).text()[..] == *b"document")
    }

    /// Measures the text in any value. Each element of the outermost array, or the value itself, is a part.
    fn words(&mut self) -> Result<(), Broken> {
        match self.walk.peek()? {
            Kind::Array => {
                self.walk.open();
                let mut is_first = true;
                while self.walk.element(&mut is_first)? {
                    self.reading.ask.text.parts += 1;
                    self.part(1)?;
                }
                Ok(())
            }
            kind => {
                self.reading.ask.text.parts += u32::from(matches!(kind, Kind::String | Kind::Object));
                self.part(1)
            }
        }
    }

    /// A text that is a part, or what is in one. The characters of a text that is one are counted.
    fn part(&mut self, depth: u8) -> Result<(), Broken> {
        let ask = &mut self.reading.ask;
        match self.walk.peek()? {
            Kind::String => {
                let text = self.walk.string()?;
                ask.add_quoted(&text, depth == 1);
            }
            Kind::Object | Kind::Array if depth >= MAX_DEPTH => {
                self.rest()?;
            }
            Kind::Array => {
                self.walk.open();
                let mut is_first = true;
                while self.walk.element(&mut is_first)? {
                    self.part(depth + 1)?;
                }
            }
            Kind::Object => self.part_fields(depth)?,
            Kind::Number => {
                let literal = self.walk.literal()?;
                ask.text.marks += literal.len() as u64 + growth(literal);
            }
            Kind::True | Kind::False => ask.text.letters += self.walk.literal()?.len() as u64,
            Kind::Null => drop(self.walk.literal()?),
        }
        Ok(())
    }

    fn part_fields(&mut self, depth: u8) -> Result<(), Broken> {
        self.walk.open();
        let (mut is_first, mut is_document, mut has_words) = (true, true, false);
        while let Some(key) = self.walk.key(&mut is_first)? {
            let name = key.text();
            match &*name {
                b"content" | b"text" => self.part(depth + 1)?,
                // They are no prompt, but a template may write them.
                b"role" | b"id" | b"tool_call_id" | b"detail" | b"format" => drop(self.rest()?),
                b"type" => is_document &= self.is_document()?,
                b"source" if self.walk.peek()? == Kind::Object && depth < MAX_DEPTH => {
                    has_words |= self.source(depth)?
                }
                other => match MediaKind::of_field(other) {
                    Some(kind) => media::take(&mut self.walk, &mut self.reading.ask, kind, depth)?,
                    None => {
                        self.reading.ask.reach.other_text_bytes += other.len() as u64;
                        self.part(depth + 1)?;
                    }
                },
            }
        }
        if has_words && !is_document {
            // What calls itself a picture may be taken for one, whatever its source says.
            media::add_unsized(&mut self.reading.ask, MediaKind::Other);
        }
        Ok(())
    }

    /// The `source` of a picture or a document in Anthropic's form: `{"type": "base64", "media_type": …, "data": …}`, a link, a
    /// text, or parts of its own. What is none of these counts as a file of which nothing is known, and as text. Gives whether it
    /// was read as words, which a document's may be.
    fn source(&mut self, depth: u8) -> Result<bool, Broken> {
        self.walk.open();
        let (mut media_type, mut data, mut is_text, mut is_first) = (None, None::<Quoted<'_>>, false, true);
        let mut has_parts = false;
        while let Some(key) = self.walk.key(&mut is_first)? {
            let is_string = self.walk.peek()? == Kind::String;
            match &*key.text() {
                b"media_type" if is_string => media_type = Some(self.walk.string()?.text()),
                b"data" if is_string => {
                    let text = self.walk.string()?;
                    if let Some(before) = data.replace(text) {
                        media::add_unsized(&mut self.reading.ask, MediaKind::Other);
                        self.reading.ask.add_quoted(&before, false);
                    }
                }
                b"type" if is_string => is_text |= *self.walk.string()?.text() == *b"text",
                b"content" => {
                    has_parts = true;
                    self.part(depth + 1)?;
                }
                _ => drop(self.rest()?),
            }
        }
        let ask = &mut self.reading.ask;
        let kind = MediaKind::Other.of_type(media_type.as_deref().unwrap_or_default());
        let is_words = if data.is_some() { is_text } else { has_parts };
        match data {
            Some(data) if is_text => ask.add_quoted(&data, false),
            Some(data) if kind != MediaKind::Other => media::add_text(ask, kind, &data.text()),
            None if has_parts => {}
            // A link, a file that was sent before, or something in a form that has no measure.
            _ => media::add_unsized(ask, MediaKind::Other),
        }
        Ok(is_words)
    }
}

impl Ask {
    /// Measures a bare text, such as a form's `prompt`.
    pub(super) fn add_text(&mut self, text: &[u8]) {
        self.text.parts += 1;
        self.add_quoted(&Quoted { raw: text, has_escapes: false }, true);
    }

    /// Adds a text to the part at hand.
    fn add_quoted(&mut self, text: &Quoted<'_>, has_characters: bool) {
        let Text { other_bytes, .. } = self.text;
        let before = self.text.bytes();
        text.pieces(|piece| self.text.add_bytes(piece));
        if !has_characters {
            return;
        }
        self.characters += self.text.bytes() - before;
        if self.text.other_bytes > other_bytes {
            text.pieces(|piece| {
                self.characters -= piece.iter().filter(|byte| **byte & 0xc0 == 0x80).count() as u64;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::catalogue::{Catalogue, Task};
    use crate::neurons::Neurons;
    use crate::receipt::Estimate;

    fn read(body: &str) -> Reading {
        super::read(body.as_bytes(), Endpoint::Run)
    }

    fn upper(body: &str) -> Neurons {
        let model = Catalogue::default().find("@cf/meta/llama-3.2-1b-instruct", Task::TextGeneration);
        Estimate::new(&read(body).ask, &model).upper.unwrap()
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
            (r#"{"requests":[{"prompt":"x","max_tokens":1000},{"prompt":"y","max_tokens":9},{"prompt":"z"}]}"#, 1),
            (r#"{"requests":[{"prompt":"x","n":2,"max_tokens":1000},{"prompt":"y","max_tokens":1000}]}"#, 3),
        ] {
            let bound = upper(body);
            assert!(bound.micro() > thousand.micro() * tokens, "{bound} for {body}");
        }
        assert_eq!(upper(r#"{"prompt":"x","max_tokens":0}"#), upper(r#"{"prompt":"x"}"#));
    }

    #[test]
    fn of_twins_the_vendor_reads_the_last() {
        let reading = read(r#"{"model":"a","stream":true,"mod\u0065l":"b","stream":false,"input":{"model":"c"}}"#);
        assert_eq!((reading.model, reading.stream), (Some(("b".into(), 40..43)), false));
        assert_eq!(read(r#"{"model":"a","model":null}"#).model, None);
    }

    #[test]
    fn what_is_said_is_measured_however_it_is_escaped() {
        let text = |body| read(body).ask.text;
        let plain = text(r#"{"messages":[{"role":"user","content":"Grüße, 世界 \ud83c\udf09"}]}"#);
        assert_eq!(plain.bytes(), "Grüße, 世界 🌉".len() as u64);
        assert_eq!(plain, text(r#"{"messages":[{"role":"user","content":"Gr\u00fc\u00dfe\u002c \u4e16界 🌉"}]}"#));
        assert_eq!(read(r#"{"text":["é\u0301","\ud83d"]}"#).ask.characters, 3);
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
        "multipart",
        "mod\\u0065l",
    ];

    /// JSON of the fields that are read, with any kind of value in each, as text.
    fn bodies() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            "-?[1-9][0-9]{0,24}(\\.[0-9]{1,3})?(e[+-]?[0-9]{1,3})?",
            "[a-z ]{0,8}|data:[a-z/;,]{0,12}|NaN|-1|1e999|é\u{10ffff}".prop_map(|text| format!("\"{text}\"")),
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
        fn every_object_is_read_and_a_model_stands_where_it_says(body in bodies(), cut in 0usize..400) {
            let _ = super::read(&body.as_bytes()[..cut.min(body.len())], Endpoint::Run);
            let reading = read(&body);
            prop_assert_eq!(reading.broken.is_none(), body.starts_with('{'));
            if let Some((name, place)) = reading.model {
                prop_assert_eq!(serde_json::from_str::<String>(&body[place]).unwrap(), name);
            }
        }

        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = super::read(&bytes, Endpoint::Run);
        }
    }
}
