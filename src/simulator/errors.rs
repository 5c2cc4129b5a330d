//! The vendor's error table, and the forms in which its errors are worded.

use std::str::FromStr;

use http::StatusCode;
use serde_json::{Value, json};

/// How an error is worded (see the captures from the wire).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// `errors[].code` is a number.
    #[default]
    Envelope,
    /// `errors[].code` is a string.
    StringCode,
    /// The code is the head of the message alone.
    Head,
    /// `{"error":{"code":…,"message":…}}`.
    OpenAi,
    /// `{"error":"5035: …"}`.
    Bare,
    /// `{"success":false,"result":[],"messages":[],"error":[{"code":…}]}`: the AI Gateway's own.
    List,
    /// `{"errors":["3040: …"]}`.
    Lines,
    /// `{"errors":null,"success":false,"error":{…}}`.
    NullErrors,
    /// `{"success":false,"error":{"message":…}}`, with no code at all.
    NoCode,
    /// `{"type":"error","error":{"type":…,"message":…}}`.
    Anthropic,
    /// A proxy's page.
    Html,
}

impl FromStr for Form {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "envelope" => Self::Envelope,
            "string-code" => Self::StringCode,
            "head" => Self::Head,
            "openai" => Self::OpenAi,
            "bare" => Self::Bare,
            "list" => Self::List,
            "lines" => Self::Lines,
            "null-errors" => Self::NullErrors,
            "no-code" => Self::NoCode,
            "anthropic" => Self::Anthropic,
            "html" => Self::Html,
            _ => return Err(format!("{text:?} is no form of an error")),
        })
    }
}

/// An error's body.
pub(super) fn error_json(code: u32, form: Form, id: &str) -> Value {
    let (_, message) = row(code);
    let told = format!("AiError: AiError: {message} ({id})");
    let envelope = |error: Value| json!({"errors": [error], "success": false, "result": {}, "messages": []});
    match form {
        // A bare status has no code.
        _ if code < 1000 && form != Form::Anthropic => envelope(json!({ "message": told })),
        Form::Envelope | Form::Html => envelope(json!({"message": told, "code": code})),
        Form::StringCode => envelope(json!({"message": told, "code": code.to_string()})),
        Form::Head => envelope(json!({"message": format!("{code}: {message}")})),
        Form::OpenAi => json!({"error": {"message": told, "code": code}}),
        Form::Bare => json!({"error": format!("{code}: {message}")}),
        Form::List => {
            json!({"success": false, "result": [], "messages": [], "error": [{"code": code, "message": message}]})
        }
        Form::Lines => envelope(json!(format!("{code}: {message}"))),
        Form::NullErrors => json!({"errors": null, "success": false, "error": {"code": code, "message": told}}),
        Form::Anthropic => json!({"type": "error", "error": {"type": anthropic_kind(code), "message": told}}),
        Form::NoCode => json!({"success": false, "error": {"message": message}}),
    }
}

/// Anthropic's name for an error.
fn anthropic_kind(code: u32) -> &'static str {
    match row(code).0.as_u16() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 if code == 3040 => "overloaded_error",
        429 => "rate_limit_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

/// The error table of the vendor's errors page, what the wire adds to it, and the AI Gateway's own codes.
pub(super) fn row(code: u32) -> (StatusCode, &'static str) {
    let (status, message) = match code {
        5007 => (400, "No such model or task"),
        5004 => (400, "Invalid data"),
        5006 => (400, "Bad input: Error: required properties at '/' are 'prompt'"),
        3003 => (400, "Request is incomplete"),
        3039 => (400, "Fine-tune is missing required files"),
        3030 => (400, "Input is too long, or was refused by the safety filter"),
        8007 => (400, "The model does not support request queuing"),
        10000 => (401, "Authentication error"),
        5016 => (403, "The model's terms have not been agreed to"),
        5018 => (403, "The model is private"),
        3041 | 3023 => (403, "The account is blocked"),
        5035 => (403, "Model is not available on the Workers Free plan. Upgrade to access this model"),
        3042 => (404, "Not a model id"),
        7003 | 7000 => (404, "Could not route to the path"),
        5005 => (405, "LoRA is not supported by the model"),
        5019 => (405, "The SDK version is too old"),
        3007 => (408, "Request timeout"),
        3046 => (408, "Request timeout"),
        3008 => (408, "Request was aborted"),
        3006 => (413, "Request is too large"),
        5012 => (422, "The model refused the input"),
        3036 | 4006 => (
            429,
            "you have used up your daily free allocation of 10,000 neurons, please upgrade to Cloudflare's Workers Paid \
             plan if you would like to continue usage.",
        ),
        3021 => (429, "rate limiting: inference request per min rate reached"),
        3040 => (429, "Capacity temporarily exceeded, please try again."),
        2001 => (400, "Please configure AI Gateway in the Cloudflare dashboard"),
        2003 => (429, "Rate limited"),
        2005 => (400, "Failed to get response from provider"),
        2009 => (401, "Unauthorized"),
        2016 => (424, "Prompt blocked due to security configurations"),
        2017 => (424, "Response blocked due to security configurations"),
        2021 => (402, "Credits are used up"),
        2049 => (403, "The token needs AI Gateway Run"),
        7013 => (503, "Guardrails are not available"),
        402 => (402, "Prepaid credits are used up"),
        410 => (410, "This model has been deprecated"),
        415 => (415, "Unsupported content encoding"),
        429 => (429, "rate limited"),
        status @ 400..600 => (status, "Something went wrong"),
        _ => (500, "Unknown internal error"),
    };
    (StatusCode::from_u16(status as u16).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), message)
}
