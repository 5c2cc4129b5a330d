//! Multipart forms, as libraries and people write them.

use proptest::prelude::*;

use crate::figures::in_form;
use crate::json::Json;

/// A body and its content type.
pub type Form = (Vec<u8>, String);

#[derive(Clone, Debug)]
struct Part {
    /// The rest of its `Content-Disposition`.
    disposition: String,
    kind: Option<&'static str>,
    content: Vec<u8>,
}

/// A form for a picture.
pub fn form() -> BoxedStrategy<Form> {
    let many = prop_oneof![20 => Just(0usize), 1 => Just(300usize)];
    let boundary = prop::sample::select(vec!["b", "----WebKitFormBoundary7MA4YWxkTrZu0gW", "a'b(c)", "0"]);
    (boundary, prop::collection::vec(part(), 0..6), many, manner())
        .prop_map(|(boundary, parts, many, manner)| write(boundary, parts, many, &manner))
        .boxed()
}

/// How a form is written.
#[derive(Clone, Debug)]
struct Manner {
    line: &'static str,
    preamble: &'static str,
    epilogue: &'static str,
    header: &'static str,
    quoted: bool,
    kind: &'static str,
    parameter: &'static str,
}

fn manner() -> BoxedStrategy<Manner> {
    let line = prop_oneof![6 => Just("\r\n"), 1 => Just("\n")];
    let preamble = prop_oneof![6 => Just(""), 1 => Just("This is a form.\r\n"), 1 => Just("\r\n")];
    let epilogue = prop_oneof![6 => Just(""), 1 => Just("the end\r\n")];
    let header = prop_oneof![4 => Just("Content-Disposition"), 1 => Just("content-disposition")];
    let kind = prop_oneof![4 => Just("multipart/form-data"), 1 => Just("Multipart/Form-Data")];
    let parameter = prop_oneof![4 => Just("boundary"), 1 => Just("Boundary")];
    (line, preamble, epilogue, header, any::<bool>(), kind, parameter)
        .prop_map(|(line, preamble, epilogue, header, quoted, kind, parameter)| Manner {
            line,
            preamble,
            epilogue,
            header,
            quoted,
            kind,
            parameter,
        })
        .boxed()
}

fn part() -> BoxedStrategy<Part> {
    let named = |name: &'static str, content: BoxedStrategy<String>| {
        content.prop_map(move |content| field(format!("form-data; name=\"{name}\""), None, content)).boxed()
    };
    let sizes = ["width", "height", "steps", "num_steps"].map(|name| {
        let most = if name.ends_with("steps") { 60 } else { 3_000 };
        named(name, in_form(1..most))
    });
    let decoys = prop_oneof![
        Just("form-data; filename=\"name=width\"; name=\"prompt\""),
        Just("form-data; name=prompt"),
        Just("form-data; name=\"a; name=\\\"width\\\"\""),
        Just("form-data; name=\"width\"; filename=\"w.txt\""),
        Just("form-data; NAME=\"steps\""),
    ]
    .prop_map(|disposition| field(disposition.to_owned(), Some("text/plain"), "40".to_owned()));
    let prompt = prop_oneof!["[a-z ]{0,30}", Just("a line\r\n--bare is no end".to_owned()), Just("--b".to_owned())];
    let picture = prop::sample::select(vec!["input_image_0", "input_image_1", "image"]).prop_map(|name| {
        field(format!("form-data; name=\"{name}\"; filename=\"a.png\""), Some("image/png"), "no picture".to_owned())
    });
    let sizes = prop::sample::select(sizes.to_vec()).prop_flat_map(|size| size);
    prop_oneof![5 => sizes, 3 => named("prompt", prompt.boxed()), 1 => picture, 1 => decoys].boxed()
}

fn field(disposition: String, kind: Option<&'static str>, content: String) -> Part {
    Part { disposition, kind, content: content.into_bytes() }
}

fn write(boundary: &str, parts: Vec<Part>, many: usize, manner: &Manner) -> Form {
    let Manner { line, preamble, epilogue, header, quoted, kind, parameter } = manner;
    let filler = field("form-data; name=\"x\"".into(), None, "y".into());
    let mut body = preamble.as_bytes().to_vec();
    for part in std::iter::repeat_n(&filler, many).chain(&parts) {
        body.extend(format!("--{boundary}{line}{header}: {}{line}", part.disposition).as_bytes());
        if let Some(kind) = part.kind {
            body.extend(format!("Content-Type: {kind}{line}").as_bytes());
        }
        body.extend(line.as_bytes());
        body.extend(&part.content);
        body.extend(line.as_bytes());
    }
    body.extend(format!("--{boundary}--{line}{epilogue}").as_bytes());
    let boundary = if *quoted || boundary.contains('(') { format!("\"{boundary}\"") } else { boundary.to_owned() };
    (body, format!("{kind}; {parameter}={boundary}"))
}

/// A form within JSON.
pub fn in_json() -> BoxedStrategy<Json> {
    let (text, base64) = (false, true);
    (form(), prop::sample::select(vec![text, base64]))
        .prop_map(|((body, kind), is_base64)| {
            use base64::Engine;
            let body = match String::from_utf8(body) {
                Ok(text) if !is_base64 => text,
                Ok(text) => base64::engine::general_purpose::STANDARD.encode(text),
                Err(error) => base64::engine::general_purpose::STANDARD.encode(error.into_bytes()),
            };
            let form = Json::object([("body", Json::text(&body)), ("contentType", Json::text(&kind))]);
            Json::object([("multipart", form)])
        })
        .boxed()
}
