//! `/v1/completions`, the older form of a chat: one prompt, one text.

use std::fmt::Write;

use super::face::Answer;
use super::native::{Native, cannot, only};
use super::object::{Object, array, items, quoted};
use crate::Error;

/// The request as a chat.
pub(super) fn native(mut fields: Object<'_>, model: &str) -> Result<Native, Error> {
    let prompt = fields.remove("prompt").unwrap_or_else(|| "\"\"".into());
    let prompt = match items(&prompt) {
        None if prompt.starts_with('"') => prompt.into_owned(),
        Some(prompts) if prompts.len() == 1 && prompts[0].starts_with('"') => prompts[0].to_owned(),
        _ => {
            return Err(cannot(
                "\"prompt\" must be one text: send the others in calls of their own, and token numbers as text",
            ));
        }
    };
    only(&mut fields, "suffix", &["\"\""], "leave it out")?;
    only(&mut fields, "echo", &["false"], "put the prompt before the answer yourself")?;
    only(&mut fields, "best_of", &["1"], "ask for n answers")?;
    only(&mut fields, "logprobs", &["0"], "ask /v1/chat/completions for them")?;
    fields.set("messages", format!(r#"[{{"role":"user","content":{prompt}}}]"#));
    fields.set("model", quoted(model));
    let is_stream = fields.get("stream") == Some("true");
    let usage_asked = is_stream
        && fields.object("stream_options").is_some_and(|options| options.get("include_usage") == Some("true"));
    let body = fields.json().into();
    Ok(Native {
        body,
        content_type: "application/json".into(),
        model: None,
        asked: None,
        answer: Answer::Completion { usage_asked },
    })
}

/// A chat's reply or chunk, already OpenAI's, as a completion's; `None` where it is neither.
pub(crate) fn made(chat: &str) -> Option<String> {
    let chat = Object::read(chat.as_bytes())?;
    let choices = items(chat.get("choices")?)?.into_iter().map(|choice| {
        let choice = Object::read(choice.as_bytes())?;
        let said = choice.object("message").or_else(|| choice.object("delta"))?;
        let text = said.get("content").unwrap_or("\"\"");
        let (index, end) = (choice.get("index")?, choice.get("finish_reason").unwrap_or("null"));
        Some(format!(r#"{{"text":{text},"index":{index},"logprobs":null,"finish_reason":{end}}}"#))
    });
    let choices = array(choices.collect::<Option<Vec<_>>>()?);
    let id = quoted(&chat.text("id")?.replacen("chatcmpl-", "cmpl-", 1));
    let (created, model) = (chat.get("created")?, chat.get("model")?);
    let mut json =
        format!(r#"{{"id":{id},"object":"text_completion","created":{created},"model":{model},"choices":{choices}"#);
    for name in ["usage", "x_tollgate"] {
        if chat.has(name) {
            // Writing to a string does not fail.
            let _ = write!(json, r#","{name}":{}"#, chat.get(name).unwrap_or("null"));
        }
    }
    json.push('}');
    Some(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_a_message_and_an_answer_a_text() {
        let ask = |body: &str| native(Object::read(body.as_bytes()).unwrap(), "m");
        let asked = ask(
            r#"{"model":"x","prompt":["hi"],"max_tokens":5,"stream":true,"stream_options":{"include_usage":true}}"#,
        )
        .unwrap();
        assert_eq!(asked.answer, Answer::Completion { usage_asked: true });
        let body = std::str::from_utf8(&asked.body).unwrap();
        assert!(
            body.contains(r#""messages":[{"role":"user","content":"hi"}]"#) && body.contains(r#""model":"m""#),
            "{body}"
        );
        for wrong in [r#"{"prompt":["a","b"]}"#, r#"{"prompt":[1,2]}"#, r#"{"prompt":"a","echo":true}"#] {
            assert!(ask(wrong).is_err(), "{wrong}");
        }
        let chunk = r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}],"usage":null}"#;
        let wanted = r#"{"id":"cmpl-1","object":"text_completion","created":1,"model":"m","choices":[{"text":"a","index":0,"logprobs":null,"finish_reason":null}],"usage":null}"#;
        assert_eq!(made(chunk).unwrap(), wanted);
    }
}
