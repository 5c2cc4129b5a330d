//! What the vendor says when it says no.

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

/// The vendor's error, read from a reply's status and body, or from the first event of a stream that opened with 200.
///
/// The meter puts one into the reply's extensions wherever it finds one, so that no other layer reads bodies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VendorError {
    /// The reply's status: 200 where a stream opened with an error.
    pub status: StatusCode,
    /// The vendor's number (errors page, 2026-09-17), where one is told.
    pub code: Option<u32>,
    /// Its words.
    pub message: String,
}

/// Every form an error body takes: the envelope, OpenAI's object, and a bare string.
#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorObject>,
    error: Option<ErrorField>,
}

#[derive(Deserialize)]
struct ErrorObject {
    #[serde(default)]
    code: Value,
    #[serde(default)]
    message: Value,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ErrorField {
    Object(ErrorObject),
    Text(String),
}

impl VendorError {
    /// Reads the body of a reply that is no success. Whatever is not JSON (a proxy's HTML page) has a status alone.
    pub fn read(status: StatusCode, body: &[u8]) -> Self {
        Self::find(status, body).unwrap_or_else(|| Self { status, code: None, message: String::new() })
    }

    /// Reads JSON that may or may not be an error: the first event of a stream.
    pub fn find(status: StatusCode, json: &[u8]) -> Option<Self> {
        if !may_tell_of_errors(json) {
            return None;
        }
        let body: ErrorBody = serde_json::from_slice(json).ok()?;
        let (code, message) = match (body.errors.into_iter().next(), body.error) {
            (Some(error), _) | (None, Some(ErrorField::Object(error))) => (error.code, text(error.message)),
            (None, Some(ErrorField::Text(message))) => (Value::Null, message),
            (None, None) => return None,
        };
        let code = number(&code).or_else(|| head_number(&message));
        Some(Self { status, code, message })
    }
}

/// False only where no field is called `error`, or all that are hold nothing: most replies, which need no parser then.
fn may_tell_of_errors(json: &[u8]) -> bool {
    memchr::memmem::find_iter(json, br#""error"#).any(|at| {
        let rest = &json[at + br#""error"#.len()..];
        let rest = rest.strip_prefix(b"s").unwrap_or(rest);
        !matches!(rest, [b'"', b':', b'[', b']', ..] | [b'"', b':', b'n', b'u', b'l', b'l', ..])
    })
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The code as a number or as a string of one.
fn number(code: &Value) -> Option<u32> {
    match code {
        Value::Number(number) => number.as_u64().and_then(|n| u32::try_from(n).ok()),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// The code as the head of the message: `3040: Capacity temporarily exceeded`.
fn head_number(message: &str) -> Option<u32> {
    let message = message.trim_start_matches("AiError: ").trim_start();
    let (head, _) = message.split_once(':')?;
    (4..=5).contains(&head.len()).then(|| head.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> (Option<u32>, String) {
        let error = VendorError::read(StatusCode::TOO_MANY_REQUESTS, body.as_bytes());
        (error.code, error.message)
    }

    #[test]
    fn the_code_is_read_as_number_string_or_head_of_the_message() {
        assert_eq!(
            read(r#"{"errors":[{"message":"AiError: x","code":3021}],"success":false,"result":{}}"#).0,
            Some(3021)
        );
        assert_eq!(read(r#"{"errors":[{"message":"x","code":"3040"}]}"#).0, Some(3040));
        assert_eq!(read(r#"{"errors":[{"message":"3040: Capacity temporarily exceeded"}]}"#).0, Some(3040));
        assert_eq!(read(r#"{"error":"5035: Model is not available on the Workers Free plan."}"#).0, Some(5035));
        assert_eq!(read(r#"{"error":{"code":"invalid_prompt","message":"AiError: Request timeout"}}"#).0, None);
        assert_eq!(read("<html>502</html>"), (None, String::new()));
    }

    #[test]
    fn an_answer_is_no_error() {
        assert_eq!(VendorError::find(StatusCode::OK, br#"{"response":"hi"}"#), None);
        assert_eq!(VendorError::find(StatusCode::OK, br#"{"errors":[],"result":{}}"#), None);
        assert_eq!(VendorError::find(StatusCode::OK, br#"{"error":null,"choices":[]}"#), None);
    }
}
