//! The vendor's refusals in OpenAI's form or Anthropic's, with the vendor's words and its number.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::body::Body;
use crate::endpoint::ErrorForm;
use crate::layers::Reply;
use crate::openai::object::Object;
use crate::vendor_error::{Meaning, VendorError};

/// The error that an event of a stream tells, as the JSON of this form.
pub(super) fn in_event(data: &[u8], form: ErrorForm) -> Option<String> {
    let error = VendorError::in_event(data)?;
    let status = status(&error, StatusCode::PAYMENT_REQUIRED);
    Some(json(&error, status, data, form))
}

/// A reply that is no answer, whatever its status. It stands for the vendor's with a status that tells clients the same.
pub(super) fn reply(head: http::response::Parts, body: &Bytes, form: ErrorForm, budget_status: StatusCode) -> Reply {
    let noted = head.extensions.get::<VendorError>().cloned();
    let error = noted.unwrap_or_else(|| VendorError::read(head.status, body));
    let status = status(&error, budget_status);
    let json = json(&error, status, body, form);
    let mut reply = Reply::from_parts(head, Body::from(json));
    *reply.status_mut() = status;
    reply.headers_mut().remove(header::CONTENT_LENGTH);
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// The reply's own status, or the one that its meaning has where it pretends success; and never a passing 429 where money is
/// used up.
fn status(error: &VendorError, budget_status: StatusCode) -> StatusCode {
    match error.meaning {
        Meaning::FreeNeuronsUsedUp | Meaning::CreditsUsedUp => budget_status,
        _ if !error.status.is_success() => error.status,
        Meaning::OverRate | Meaning::OutOfCapacity => StatusCode::TOO_MANY_REQUESTS,
        Meaning::TimedOut | Meaning::Aborted | Meaning::RanTooLong => StatusCode::REQUEST_TIMEOUT,
        Meaning::Gone => StatusCode::GONE,
        Meaning::Unauthorized => StatusCode::UNAUTHORIZED,
        Meaning::Forbidden => StatusCode::FORBIDDEN,
        Meaning::Refused => StatusCode::UNPROCESSABLE_ENTITY,
        Meaning::BadRequest => StatusCode::BAD_REQUEST,
        Meaning::Failing | Meaning::CutOff | Meaning::Incomplete => StatusCode::BAD_GATEWAY,
    }
}

fn json(error: &VendorError, status: StatusCode, body: &[u8], form: ErrorForm) -> String {
    let own = Object::read(body).unwrap_or_default();
    let own = own.object("error").unwrap_or_default();
    let usual = if form == ErrorForm::Anthropic { anthropic_kind } else { kind };
    let kind = own.text("type").unwrap_or_else(|| usual(error.meaning).to_owned());
    let code = error.code.map(|code| code.to_string()).or_else(|| own.text("code"));
    let message = match error.message.trim() {
        "" => format!("upstream answered {status} and said nothing more"),
        words => words.to_owned(),
    };
    if form == ErrorForm::Anthropic {
        let told = match code {
            Some(code) => json!({"type": kind, "message": message, "code": code}),
            None => json!({"type": kind, "message": message}),
        };
        return json!({"type": "error", "error": told}).to_string();
    }
    json!({"error": {"message": message, "type": kind, "param": own.text("param"), "code": code}}).to_string()
}

/// OpenAI's class of error.
fn kind(meaning: Meaning) -> &'static str {
    match meaning {
        Meaning::OverRate | Meaning::OutOfCapacity => "rate_limit_exceeded",
        Meaning::FreeNeuronsUsedUp | Meaning::CreditsUsedUp => "insufficient_quota",
        Meaning::Gone | Meaning::Unauthorized | Meaning::Forbidden | Meaning::Refused | Meaning::BadRequest => {
            "invalid_request_error"
        }
        _ => "server_error",
    }
}

/// Anthropic's class of error.
fn anthropic_kind(meaning: Meaning) -> &'static str {
    match meaning {
        Meaning::OverRate => "rate_limit_error",
        Meaning::OutOfCapacity => "overloaded_error",
        Meaning::FreeNeuronsUsedUp | Meaning::CreditsUsedUp => "billing_error",
        Meaning::Unauthorized => "authentication_error",
        Meaning::Forbidden => "permission_error",
        Meaning::Gone => "not_found_error",
        Meaning::Refused | Meaning::BadRequest => "invalid_request_error",
        Meaning::TimedOut | Meaning::Aborted | Meaning::RanTooLong => "timeout_error",
        Meaning::Failing | Meaning::CutOff | Meaning::Incomplete => "api_error",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn told(status: u16, body: &str) -> (u16, Value) {
        let head = http::Response::builder().status(status).body(()).unwrap().into_parts().0;
        let reply =
            reply(head, &Bytes::copy_from_slice(body.as_bytes()), ErrorForm::OpenAi, StatusCode::PAYMENT_REQUIRED);
        let body = reply.body().as_bytes().unwrap().clone();
        (reply.status().as_u16(), serde_json::from_slice::<Value>(&body).unwrap()["error"].clone())
    }

    #[test]
    fn each_form_of_a_refusal_has_openais_fields_and_the_vendors_words() {
        let rate =
            r#"{"errors":[{"message":"AiError: too many","code":3021}],"success":false,"result":{},"messages":[]}"#;
        let wanted = |message: &str, kind: &str, code: Value| json!({"message": message, "type": kind, "param": null, "code": code});
        assert_eq!(told(429, rate), (429, wanted("AiError: too many", "rate_limit_exceeded", json!("3021"))));
        let bare = r#"{"error":"5035: Model is not available"}"#;
        assert_eq!(
            told(403, bare),
            (403, wanted("5035: Model is not available", "invalid_request_error", json!("5035")))
        );
        let named = r#"{"error":{"code":"invalid_prompt","message":"AiError: Request timeout"}}"#;
        assert_eq!(
            told(400, named),
            (400, wanted("AiError: Request timeout", "invalid_request_error", json!("invalid_prompt")))
        );
        let (status, error) = told(502, "<html>502</html>");
        assert_eq!((status, &error["type"]), (502, &json!("server_error")));
        assert!(error["message"].as_str().unwrap().contains("502"));
    }

    #[test]
    fn used_up_free_neurons_are_no_passing_429() {
        let (status, error) = told(429, r#"{"errors":[{"message":"used up","code":4006}]}"#);
        assert_eq!((status, &error["type"], &error["code"]), (402, &json!("insufficient_quota"), &json!("4006")));
    }

    #[test]
    fn an_error_in_a_200_gets_the_status_of_its_code() {
        assert_eq!(told(200, r#"{"errors":[{"message":"x","code":3040}],"success":false}"#).0, 429);
        assert_eq!(told(200, r#"{"error":"5012: no"}"#).0, 422);
    }
}
