//! What a request on OpenAI's routes decides of its reply.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::face::Answer;
use super::native::cannot;
use super::object::items;
use crate::Error;
use crate::catalogue::{Model, Task};
use crate::endpoint::Endpoint;

/// The fields that the reply's form depends on.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    stream_options: Option<&'a RawValue>,
    #[serde(borrow)]
    encoding_format: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// What the caller expects; `None` on the vendor's own form of request. Refuses what no model of the vendor's can take, and
/// none would say so plainly.
pub(crate) fn answer(endpoint: Endpoint, body: &[u8], is_stream: bool) -> Result<Option<Answer>, Error> {
    Ok(Some(match endpoint {
        Endpoint::Run | Endpoint::Socket => return Ok(None),
        Endpoint::Messages => Answer::Messages,
        Endpoint::Responses => Answer::Responses,
        // What only a stream can ask for need not be looked for elsewhere.
        Endpoint::ChatCompletions => Answer::Chat { usage_asked: is_stream && asks_for_usage(body) },
        Endpoint::Embeddings => {
            let fields: Option<Fields<'_>> = serde_json::from_slice(body).ok();
            if let Some(fields) = &fields {
                texts(fields.input.map_or("null", RawValue::get))?;
            }
            if fields.as_ref().and_then(|fields| fields.input).is_some_and(|input| holds_tokens(input.get())) {
                return Err(Error::Malformed(
                    "\"input\" holds token numbers, and Workers AI's models take texts: send the text itself, or tell your client \
                     so (LangChain: check_embedding_ctx_length=False)"
                        .into(),
                ));
            }
            let is_base64 = match fields.and_then(|fields| fields.encoding_format).map_or("null", RawValue::get) {
                "\"base64\"" => true,
                "\"float\"" | "null" => false,
                other => {
                    return Err(cannot(format!("\"encoding_format\": {other} is neither \"float\" nor \"base64\"")));
                }
            };
            Answer::Embeddings { is_base64 }
        }
    }))
}

/// A text, or a list of some, or token numbers, of which more is said.
fn texts(input: &str) -> Result<(), Error> {
    let is_text = |json: &str| json.starts_with('"') && json != "\"\"";
    let is_good = is_text(input)
        || holds_tokens(input)
        || items(input).is_some_and(|items| !items.is_empty() && items.into_iter().all(is_text));
    if is_good { Ok(()) } else { Err(cannot("\"input\" must be a text or a list of texts, none of them empty")) }
}

fn asks_for_usage(body: &[u8]) -> bool {
    let fields: Option<Fields<'_>> = serde_json::from_slice(body).ok();
    let options = fields.and_then(|fields| serde_json::from_str(fields.stream_options?.get()).ok());
    options.and_then(|options: StreamOptions| options.include_usage).unwrap_or(false)
}

/// Refuses a model that is known to do something else than the route: its reply would be in a form that no caller there reads.
pub(crate) fn fits(answer: Answer, model: &Model) -> Result<(), Error> {
    let wanted = match answer {
        Answer::Embeddings { .. } => Task::TextEmbeddings,
        Answer::Images => Task::TextToImage,
        Answer::Rerank { .. } => Task::TextClassification,
        _ => return Ok(()),
    };
    if model.task == wanted || model.task == Task::Unknown || !model.is_listed() {
        return Ok(());
    }
    let (id, task, wanted) = (&model.id, model.task.label(), wanted.label());
    Err(cannot(format!("{id} is for {task}, and this route for {wanted}: GET /v1/models tells what each model is for")))
}

/// `[1, 2]` or `[[1, 2], [3]]`: numbers that another model's tokenizer made.
fn holds_tokens(input: &str) -> bool {
    let mut inner = input.trim_start();
    while let Some(rest) = inner.strip_prefix('[') {
        inner = rest.trim_start();
    }
    inner.len() < input.len() && inner.starts_with(|first: char| first.is_ascii_digit() || first == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(endpoint: Endpoint, body: &str) -> Option<Answer> {
        answer(endpoint, body.as_bytes(), true).unwrap()
    }

    #[test]
    fn usage_is_asked_for_by_a_true_alone() {
        let chat = |body: &str| of(Endpoint::ChatCompletions, body) == Some(Answer::Chat { usage_asked: true });
        assert!(chat(r#"{"stream_options": {"include_usage": true, "x": 1}}"#));
        assert!(chat(r#"{"stream\u005foptions": {"include_usage": true}}"#));
        for no in [
            r#"{"stream_options": null}"#,
            r#"{"stream_options": {"include_usage": false}}"#,
            r#"{"stream_options": 7}"#,
            "{}",
        ] {
            assert!(!chat(no), "{no}");
        }
        let body = br#"{"stream_options": {"include_usage": true}}"#;
        let whole = answer(Endpoint::ChatCompletions, body, false).unwrap();
        assert_eq!(whole, Some(Answer::Chat { usage_asked: false }));
    }

    #[test]
    fn token_numbers_are_refused_and_texts_are_not() {
        for tokens in ["[1, 2]", "[[1], [2]]", "[ [ 7 ] ]"] {
            let body = format!(r#"{{"input": {tokens}}}"#);
            assert!(answer(Endpoint::Embeddings, body.as_bytes(), false).is_err(), "{body}");
        }
        for wrong in ["[]", "7", "null", "\"\"", "[\"\"]", "[\"a\", 1]", "{}", "[[\"a\"]]"] {
            let body = format!(r#"{{"input": {wrong}}}"#);
            assert!(answer(Endpoint::Embeddings, body.as_bytes(), false).is_err(), "{body}");
        }
        for wrong in ["\"hex\"", "7", "[]"] {
            let body = format!(r#"{{"input": "a", "encoding_format": {wrong}}}"#);
            assert!(answer(Endpoint::Embeddings, body.as_bytes(), false).is_err(), "{body}");
        }
        for texts in [r#""1""#, r#"["1", "2"]"#] {
            let body = format!(r#"{{"input": {texts}, "encoding_format": "base64"}}"#);
            assert_eq!(of(Endpoint::Embeddings, &body), Some(Answer::Embeddings { is_base64: true }));
        }
    }
}
