//! What the vendor says when it says no, and what that means.
//!
//! This is the one place where codes and statuses are given a [`Meaning`]; every layer asks for that and for no number.
//! Sources: the vendor's errors page (2026-09-17), AI Gateway's changelog (2026-09-17 to 2026-10-06), and replies from the wire.

use http::StatusCode;
use serde_json::Value;

/// The vendor's error, read from a reply's status and body, or from the body of a reply that began with 200.
///
/// The meter puts one into the reply's extensions wherever it finds one, so that no other layer reads bodies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VendorError {
    /// The reply's status: 200 where the body alone tells of the error.
    pub status: StatusCode,
    /// The vendor's number, where one is told.
    pub code: Option<u32>,
    /// Its words.
    pub message: String,
    /// What it comes to.
    pub meaning: Meaning,
    /// The model had begun to write: the attempt costs what it wrote, and a retry would cost it again.
    pub has_run: bool,
}

/// What an error means, by what can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Meaning {
    /// Calls come faster than the model's limit of requests a minute: it passes.
    OverRate,
    /// The model has no capacity left at the moment: it passes, or another model serves.
    OutOfCapacity,
    /// It did not answer in time: it passes, or another model serves.
    TimedOut,
    /// It was aborted, by somebody other than our client.
    Aborted,
    /// It failed for a reason of its own that may not be there the next time.
    Failing,
    /// The reply stopped before its own end.
    CutOff,
    /// The day's free neurons are used up: nothing helps before 00:00 UTC.
    FreeNeuronsUsedUp,
    /// Prepaid credits are used up, or a spending limit of the AI Gateway's is reached.
    CreditsUsedUp,
    /// It ran until the vendor's ceiling of 240 s, and would again.
    RanTooLong,
    /// A whole reply that says of itself that it is not all: `response.incomplete`. It would be the same again.
    Incomplete,
    /// The model is deprecated: another one may serve.
    Gone,
    /// The token is wrong, or is not one of the provider's.
    Unauthorized,
    /// The account or the token may not do this; some models need the paid plan.
    Forbidden,
    /// A guardrail, a safety filter or the model itself refused the input or the answer.
    Refused,
    /// The request is wrong: its form, its size, or the model's name.
    BadRequest,
}

impl Meaning {
    /// Whether the same call may do better in a while.
    pub fn is_passing(self) -> bool {
        matches!(
            self,
            Self::OverRate | Self::OutOfCapacity | Self::TimedOut | Self::Aborted | Self::Failing | Self::CutOff
        )
    }

    /// Nothing was begun, for certain: the vendor says why.
    pub(crate) fn is_surely_refused(self) -> bool {
        !matches!(
            self,
            Self::TimedOut | Self::Aborted | Self::Failing | Self::CutOff | Self::RanTooLong | Self::Incomplete
        )
    }

    /// What a status alone means. A success is told to fail only by its body, which says nothing more here.
    pub fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            401 => Self::Unauthorized,
            402 => Self::CreditsUsedUp,
            403 => Self::Forbidden,
            408 | 504 | 524 => Self::TimedOut,
            410 => Self::Gone,
            424 => Self::Refused,
            425 | 200..=299 | 500..=599 => Self::Failing,
            429 => Self::OverRate,
            _ => Self::BadRequest,
        }
    }

    /// What a code means; `None` for one that is not known, whose status has to tell.
    fn of_code(code: u32) -> Option<Self> {
        Some(match code {
            3021 => Self::OverRate,
            3040 => Self::OutOfCapacity,
            3007 => Self::TimedOut,
            3008 => Self::Aborted,
            3046 => Self::RanTooLong,
            // 4006 on the wire, 3036 in the documents.
            3036 | 4006 => Self::FreeNeuronsUsedUp,
            3003 | 3006 | 3039 | 3042 | 5004..=5007 | 5019 | 7000 | 7003 | 8007 => Self::BadRequest,
            3023 | 3041 | 5016 | 5018 | 5035 => Self::Forbidden,
            3030 | 5012 => Self::Refused,
            10000 => Self::Unauthorized,
            // AI Gateway: no answer from the provider, though the status is 400; its guardrails cannot be reached.
            2005 | 7013 => Self::Failing,
            2016 | 2017 => Self::Refused,
            2021 => Self::CreditsUsedUp,
            2049 => Self::Forbidden,
            // Some errors in the body of a 200 have an HTTP status for a code.
            400..=599 => Self::of_status(StatusCode::from_u16(code as u16).ok()?),
            _ => return None,
        })
    }

    /// What a code that is a name means (OpenAI's and Anthropic's error types); `None` for one that is not known.
    fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "rate_limit_exceeded" | "rate_limit_error" | "too_many_requests" => Self::OverRate,
            "overloaded_error" => Self::OutOfCapacity,
            "timeout_error" => Self::TimedOut,
            "insufficient_quota" | "billing_error" => Self::CreditsUsedUp,
            "authentication_error" | "invalid_api_key" => Self::Unauthorized,
            "permission_error" => Self::Forbidden,
            "content_filter" | "content_policy_violation" => Self::Refused,
            "invalid_prompt"
            | "invalid_request_error"
            | "context_length_exceeded"
            | "not_found_error"
            | "request_too_large" => Self::BadRequest,
            _ => return None,
        })
    }
}

impl VendorError {
    /// An error of which this is known. The code decides what it means; where that says nothing, the status does.
    pub fn new(status: StatusCode, code: Option<u32>, message: impl Into<String>) -> Self {
        let told = Told { code, names: Vec::new(), message: message.into() };
        Self::from_told(status, told)
    }

    fn from_told(status: StatusCode, told: Told) -> Self {
        let meaning = told.meaning(status).unwrap_or_else(|| Meaning::of_status(status));
        Self { status, code: told.code, message: told.message, meaning, has_run: false }
    }

    /// A reply that ended before its own end.
    pub(crate) fn cut_off(status: StatusCode) -> Self {
        let meaning = Meaning::CutOff;
        Self { meaning, ..Self::new(status, None, "the reply ended before its own end") }
    }

    /// A reply that says of itself that it is not all.
    pub(crate) fn incomplete(status: StatusCode) -> Self {
        let meaning = Meaning::Incomplete;
        Self { meaning, ..Self::new(status, None, "the response is incomplete") }
    }

    /// Reads the body of a reply that is no success. Whatever is not JSON (a proxy's HTML page) has a status alone.
    pub fn read(status: StatusCode, body: &[u8]) -> Self {
        let found = serde_json::from_slice::<Value>(body).ok().and_then(|body| Self::find(status, &body));
        found.unwrap_or_else(|| Self::new(status, None, ""))
    }

    /// The error that an event of a stream tells of, where it is one. Most hold no such word and are not parsed for it.
    pub(crate) fn in_event(event: &[u8]) -> Option<Self> {
        let may_tell = [&b"\"error"[..], b"\"success\""].iter().any(|word| memchr::memmem::find(event, word).is_some());
        let document = may_tell.then(|| serde_json::from_slice::<Value>(event).ok())??;
        Self::find(StatusCode::OK, &document)
    }

    /// The error that a JSON document tells of: in `errors`, in `error`, or by `"success": false` alone.
    pub(crate) fn find(status: StatusCode, document: &Value) -> Option<Self> {
        let told = [document.get("errors"), document.get("error")].into_iter().flatten().find(|told| !is_nothing(told));
        match told {
            Some(told) => Some(Self::of(status, told)),
            None if document.get("success") == Some(&Value::Bool(false)) => Some(Self::of(status, document)),
            None => None,
        }
    }

    /// The error that a value describes: an object, a text, or a list of these.
    pub(crate) fn of(status: StatusCode, told: &Value) -> Self {
        let all = match told {
            Value::Array(all) => all.iter().filter(|told| !is_nothing(told)).map(Told::read).collect(),
            one => vec![Told::read(one)],
        };
        // Of several the first that is known says more than a general one before it.
        let known = all.iter().position(|told| told.meaning(status).is_some()).unwrap_or(0);
        match all.into_iter().nth(known) {
            Some(told) => Self::from_told(status, told),
            None => Self::new(status, None, ""),
        }
    }
}

/// Nothing is told: null, false, 0, an empty text, list or object, or one that holds nothing else.
pub(crate) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.iter().all(is_nothing),
        Value::Object(fields) => fields.values().all(is_nothing),
    }
}

/// One error's own words.
struct Told {
    code: Option<u32>,
    /// `code` and `type`, where they are names.
    names: Vec<String>,
    message: String,
}

impl Told {
    fn read(told: &Value) -> Self {
        let Value::Object(fields) = told else {
            let message = text(told);
            return Self { code: number(told).or_else(|| head_number(&message)), names: Vec::new(), message };
        };
        let code = fields.get("code");
        let message = fields.get("message").or_else(|| fields.get("error")).map(text).unwrap_or_default();
        let mut names: Vec<String> =
            [code, fields.get("type")].into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        // A spending limit of the AI Gateway's has no code, but says how much was spent of what.
        if fields.contains_key("spent") && fields.contains_key("limit") {
            names.push("billing_error".into());
        }
        let code = code.and_then(number).or_else(|| head_number(&message));
        Self { code, names, message }
    }

    /// What it means by its own words; `None` where they say nothing that is known.
    fn meaning(&self, status: StatusCode) -> Option<Meaning> {
        match self.code {
            // A provider's key was refused: the caller's with 401, Cloudflare's own with 503, which is theirs to mend.
            Some(2009) if status.is_server_error() => Some(Meaning::Failing),
            Some(2009) => Some(Meaning::Unauthorized),
            code => {
                let named = || self.names.iter().find_map(|name| Meaning::of_name(name));
                code.and_then(Meaning::of_code).or_else(named)
            }
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The code as a number, as a string of one, or as the first of a list of these.
fn number(code: &Value) -> Option<u32> {
    match code {
        Value::Number(number) => number.as_f64().filter(|n| n.fract() == 0.0 && *n > 0.0 && *n < 4e9).map(|n| n as u32),
        Value::String(text) => text.trim().parse().ok(),
        Value::Array(codes) => codes.iter().find_map(number),
        _ => None,
    }
}

/// The code as the head of the message: `3040: Capacity temporarily exceeded`.
fn head_number(message: &str) -> Option<u32> {
    let message = message.trim_start().trim_start_matches("AiError: ").trim_start();
    let (head, _) = message.split_once(':')?;
    (4..=5).contains(&head.len()).then(|| head.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: &str) -> (Option<u32>, String) {
        let error = VendorError::read(StatusCode::TOO_MANY_REQUESTS, body.as_bytes());
        (error.code, error.message)
    }

    #[test]
    fn the_code_is_read_wherever_it_is_told() {
        for (body, code) in [
            (r#"{"errors":[{"message":"AiError: x","code":3021}],"success":false,"result":{}}"#, Some(3021)),
            (r#"{"errors":[{"message":"x","code":"3040"}]}"#, Some(3040)),
            (r#"{"errors":[{"message":"3040: Capacity temporarily exceeded"}]}"#, Some(3040)),
            (r#"{"errors":["AiError: AiError: 3040: Capacity temporarily exceeded"]}"#, Some(3040)),
            (r#"{"errors":"3040: Capacity temporarily exceeded"}"#, Some(3040)),
            (r#"{"errors":{"code":3040}}"#, Some(3040)),
            (r#"{"errors":[{"code":1000,"message":"general"},{"code":3040}]}"#, Some(3040)),
            (r#"{"errors":[{},{"code":9999,"message":"unheard of"}]}"#, Some(9999)),
            (r#"{"errors":null,"error":{"code":3040.0}}"#, Some(3040)),
            (r#"{"errors":[],"error":[{"code":[3040]}]}"#, Some(3040)),
            (r#"{"error":"5035: Model is not available on the Workers Free plan."}"#, Some(5035)),
            (r#"{"error":{"code":"invalid_prompt","message":"AiError: Request timeout"}}"#, None),
            ("<html>502</html>", None),
            ("", None),
        ] {
            assert_eq!(read(body).0, code, "{body}");
        }
        assert_eq!(read(r#"{"error":"5035: x"}"#).1, "5035: x");
    }

    #[test]
    fn an_answer_is_no_error() {
        for nothing in
            [json!(null), json!(""), json!({}), json!([]), json!(false), json!([null, {}, ""]), json!({"code": null})]
        {
            for name in ["error", "errors"] {
                let document = json!({name: nothing, "result": {"response": "hi"}, "success": true});
                assert_eq!(VendorError::find(StatusCode::OK, &document), None, "{document}");
            }
        }
        assert!(VendorError::find(StatusCode::OK, &json!({"success": false, "errors": []})).is_some());
    }

    fn of(status: u16, code: Option<u32>) -> Meaning {
        VendorError::new(StatusCode::from_u16(status).unwrap(), code, "quota exceeded, retry").meaning
    }

    #[test]
    fn every_row_of_the_error_table_has_its_meaning() {
        use Meaning::*;
        for (status, codes, meaning) in [
            (400, &[5007, 5004, 5006, 3003, 3039, 8007][..], BadRequest),
            (400, &[3030], Refused),
            (400, &[2005], Failing),
            (401, &[10000, 2009], Unauthorized),
            (402, &[2021], CreditsUsedUp),
            (403, &[5016, 5018, 3041, 3023, 5035, 2049], Forbidden),
            (404, &[3042, 7003, 7000], BadRequest),
            (405, &[5005, 5019], BadRequest),
            (408, &[3007], TimedOut),
            (408, &[3046], RanTooLong),
            (408, &[3008], Aborted),
            (413, &[3006], BadRequest),
            (422, &[5012, 2017], Refused),
            (424, &[2016, 2017], Refused),
            (429, &[3036, 4006], FreeNeuronsUsedUp),
            (429, &[3021, 9999], OverRate),
            (429, &[3040], OutOfCapacity),
            (503, &[2009, 7013], Failing),
            (200, &[3040], OutOfCapacity),
            (200, &[4006], FreeNeuronsUsedUp),
            (200, &[5006, 400], BadRequest),
            (200, &[9999, 502], Failing),
        ] {
            for code in codes {
                assert_eq!(of(status, Some(*code)), meaning, "{status} {code}");
            }
        }
        for (status, meaning) in [
            (400, BadRequest),
            (402, CreditsUsedUp),
            (408, TimedOut),
            (410, Gone),
            (429, OverRate),
            (500, Failing),
            (502, Failing),
            (503, Failing),
            (504, TimedOut),
            (524, TimedOut),
            (200, Failing),
        ] {
            assert_eq!(of(status, None), meaning, "{status}");
        }
    }

    #[test]
    fn a_name_says_what_no_number_does() {
        let of = |error: Value| VendorError::of(StatusCode::OK, &error).meaning;
        assert_eq!(of(json!({"code": "rate_limit_exceeded", "message": "x"})), Meaning::OverRate);
        assert_eq!(of(json!({"type": "invalid_request_error", "code": null})), Meaning::BadRequest);
        assert_eq!(of(json!({"type": "overloaded_error"})), Meaning::OutOfCapacity);
        assert_eq!(
            of(json!({"message": "Spending limit exceeded", "bucket": "b", "spent": 5, "limit": 5})),
            Meaning::CreditsUsedUp
        );
        assert_eq!(of(json!({"code": "server_error"})), Meaning::Failing);
    }
}
