//! `/v1/images/generations`: a picture from a text-to-image model.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::face::Answer;
use super::native::{Native, cannot, only, required};
use super::object::{Object, quoted, text};
use super::reply::{Converted, NativeReply};
use crate::Error;

/// The request as the model takes it. What OpenAI does not know, such as `seed` and `steps`, goes on to the model.
pub(super) fn native(mut fields: Object<'_>, model: String) -> Result<Native, Error> {
    required(&fields, "prompt")?;
    only(&mut fields, "n", &["1"], "it makes one picture a call: ask as often as you want pictures")?;
    only(&mut fields, "response_format", &["\"b64_json\""], "no picture is kept to have a URL: ask for \"b64_json\"")?;
    only(&mut fields, "stream", &["false"], "a picture comes whole: leave it out")?;
    only(
        &mut fields,
        "quality",
        &["\"auto\"", "\"standard\"", "\"medium\""],
        "set the model's own \"steps\" or \"num_steps\"",
    )?;
    only(&mut fields, "output_format", &[], "a picture comes in the model's own format: leave it out")?;
    only(&mut fields, "output_compression", &[], "leave it out")?;
    only(&mut fields, "background", &["\"auto\"", "\"opaque\""], "leave it out")?;
    for hint in ["style", "moderation", "user", "model", "partial_images"] {
        fields.remove(hint);
    }
    if let Some((width, height)) = size(&mut fields)? {
        if model.contains("flux-1-schnell") {
            if (width, height) != (1024, 1024) {
                return Err(cannot(format!("{model} makes pictures of 1024x1024 alone, not {width}x{height}")));
            }
        } else {
            fields.set("width", width.to_string());
            fields.set("height", height.to_string());
        }
    }
    if model.contains("flux-2") {
        return Ok(form(&fields, model));
    }
    Ok(Native::json(&fields, model, Answer::Images))
}

/// `"1024x768"`; none where the model is to choose.
fn size(fields: &mut Object<'_>) -> Result<Option<(u32, u32)>, Error> {
    let Some(told) = fields.remove("size").filter(|size| size != "\"auto\"") else { return Ok(None) };
    let sides = text(&told).and_then(|size| {
        let (width, height) = size.split_once('x')?;
        Some((width.parse().ok()?, height.parse().ok()?))
    });
    let sides = sides.filter(|(width, height): &(u32, u32)| *width > 0 && *height > 0);
    sides.map(Some).ok_or_else(|| cannot(format!("\"size\": {told} is no size; write it like \"1024x1024\"")))
}

/// flux-2 takes a form.
fn form(fields: &Object<'_>, model: String) -> Native {
    let mut boundary = String::from("tollgate-form");
    while fields.json().contains(&boundary) {
        boundary.push('-');
    }
    let mut body = String::new();
    for (name, value) in fields.iter() {
        let value = text(value).unwrap_or_else(|| value.to_owned());
        let name: String = name.chars().filter(|character| !matches!(character, '"' | '\r' | '\n')).collect();
        body.push_str(&format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"));
    }
    body.push_str(&format!("--{boundary}--\r\n"));
    let content_type = format!("multipart/form-data; boundary={boundary}").into();
    Native { body: body.into(), content_type, model: Some(model), asked: None, answer: Answer::Images }
}

/// OpenAI's list of one picture; `None` where there is none in the reply.
pub(super) fn converted(reply: &NativeReply<'_>) -> Option<Converted> {
    let picture = if reply.is_json {
        let result = reply.result()?;
        let image = Object::read(&result)?.text("image")?;
        let bare =
            image.starts_with("data:").then(|| image.split_once(',').map(|(_, base64)| base64.to_owned())).flatten();
        bare.unwrap_or(image)
    } else {
        STANDARD.encode(reply.body)
    };
    let created = reply.created;
    Some(Converted::json(format!(r#"{{"created":{created},"data":[{{"b64_json":{}}}]}}"#, quoted(&picture))))
}
