//! Trouble on demand: every row of the vendor's error table, and what networks do.

use std::str::FromStr;
use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::dice::Dice;
use crate::body::Body;

/// One piece of trouble. As a header: `x-simulate: 3040`, `3021;retry-after=2`, `5035;form=bare`, `reset`, `die-mid`,
/// `slow=300`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// What goes wrong.
    pub trouble: Trouble,
    /// How an error is worded.
    pub form: Form,
    /// How long before anything happens.
    pub slow: Duration,
    /// Seconds for a `retry-after`.
    pub retry_after: Option<u32>,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trouble {
    /// Nothing: it is only slow.
    Nothing,
    /// The vendor's error of this code, or of this status where it is no code (410, 402, 500…).
    Error(u32),
    /// The connection is closed before a reply.
    Reset,
    /// No reply ever comes.
    Stall,
    /// A reply begins, and nothing more comes.
    StallMid,
    /// A reply begins, and the connection is closed.
    DieMid,
    /// A stream opens with 200 and this error.
    StreamError(u32),
}

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
    /// A proxy's page.
    Html,
}

/// Trouble for some requests.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FaultRule {
    /// The trouble.
    pub fault: Fault,
    /// Only for this model.
    pub model: Option<String>,
    /// For this share of the requests, from 0.0 to 1.0.
    pub share: f64,
    /// For so many requests, then no more.
    pub times: Option<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<Rules>);

#[derive(Debug)]
struct Rules {
    rules: Vec<FaultRule>,
    dice: Dice,
}

impl Default for Rules {
    fn default() -> Self {
        Self { rules: Vec::new(), dice: Dice::new(1) }
    }
}

// === impl Fault ===

impl Fault {
    /// Trouble without more ado.
    pub fn new(trouble: Trouble) -> Self {
        Self { trouble, form: Form::default(), slow: Duration::ZERO, retry_after: None }
    }

    /// The reply to a request that meets an error; `None` for any other trouble.
    pub(super) fn reply(&self, id: &str) -> Option<Response<Body>> {
        let Trouble::Error(code) = self.trouble else { return None };
        let (status, message) = row(code);
        let mut reply = Response::new(match self.form {
            Form::Html => Body::from(format!(
                "<html><head><title>{status}</title></head><body>error code: {status}</body></html>"
            )),
            form => Body::from(error_json(code, message, form, id).to_string()),
        });
        *reply.status_mut() = status;
        let kind = if self.form == Form::Html { "text/html" } else { "application/json" };
        reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(after) = self.retry_after {
            reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after));
        }
        Some(reply)
    }

    /// The first event of a stream that opens with an error.
    pub(super) fn event(&self, id: &str) -> Option<String> {
        let Trouble::StreamError(code) = self.trouble else { return None };
        Some(format!("data: {}\n\n", error_json(code, row(code).1, self.form, id)))
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut fault = Self::new(Trouble::Nothing);
        for part in text.split(';').map(str::trim) {
            let unknown = || format!("{part:?} is no trouble that can be simulated");
            match part.split_once('=') {
                Some(("form", form)) => fault.form = form.parse()?,
                Some(("slow", millis)) => fault.slow = Duration::from_millis(millis.parse().map_err(|_| unknown())?),
                Some(("retry-after", seconds)) => fault.retry_after = Some(seconds.parse().map_err(|_| unknown())?),
                Some(("stream-error", code)) => {
                    fault.trouble = Trouble::StreamError(code.parse().map_err(|_| unknown())?);
                }
                Some(_) => return Err(unknown()),
                None => fault.trouble = trouble(part).ok_or_else(unknown)?,
            }
        }
        Ok(fault)
    }
}

fn trouble(name: &str) -> Option<Trouble> {
    Some(match name {
        "reset" => Trouble::Reset,
        "stall" => Trouble::Stall,
        "stall-mid" => Trouble::StallMid,
        "die-mid" => Trouble::DieMid,
        "stream-error" => Trouble::StreamError(3040),
        code => Trouble::Error(code.parse().ok()?),
    })
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
            "html" => Self::Html,
            _ => return Err(format!("{text:?} is no form of an error")),
        })
    }
}

fn error_json(code: u32, message: &str, form: Form, id: &str) -> Value {
    let told = format!("AiError: AiError: {message} ({id})");
    let envelope = |error: Value| json!({"errors": [error], "success": false, "result": {}, "messages": []});
    match form {
        // A bare status has no code.
        _ if code < 1000 => envelope(json!({ "message": told })),
        Form::Envelope | Form::Html => envelope(json!({"message": told, "code": code})),
        Form::StringCode => envelope(json!({"message": told, "code": code.to_string()})),
        Form::Head => envelope(json!({"message": format!("{code}: {message}")})),
        Form::OpenAi => json!({"error": {"message": told, "code": code}}),
        Form::Bare => json!({"error": format!("{code}: {message}")}),
    }
}

/// The error table of the vendor's errors page, and what the wire adds to it.
fn row(code: u32) -> (StatusCode, &'static str) {
    let (status, message) = match code {
        5007 => (400, "No such model or task"),
        5004 => (400, "Invalid data"),
        5006 => (400, "Bad input: Error: required properties at '/' are 'prompt'"),
        3003 => (400, "Request is incomplete"),
        3039 => (400, "Fine-tune is missing required files"),
        3030 => (400, "Input is too long, or was refused by the safety filter"),
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
        402 => (402, "Prepaid credits are used up"),
        410 => (410, "This model has been deprecated"),
        429 => (429, "rate limited"),
        status @ 400..600 => (status, "Something went wrong"),
        _ => (500, "Unknown internal error"),
    };
    (StatusCode::from_u16(status as u16).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), message)
}

// === impl FaultRule ===

impl FaultRule {
    /// For every request, until the faults are cleared.
    pub fn always(fault: Fault) -> Self {
        Self { fault, model: None, share: 1.0, times: None }
    }

    /// For a share of the requests.
    pub fn share(fault: Fault, share: f64) -> Self {
        Self { share, ..Self::always(fault) }
    }

    /// For the next so many requests.
    pub fn times(fault: Fault, times: u32) -> Self {
        Self { times: Some(times), ..Self::always(fault) }
    }

    /// Only for one model.
    pub fn on(self, model: &str) -> Self {
        Self { model: Some(model.to_owned()), ..self }
    }
}

// === impl Faults ===

impl Faults {
    pub(super) fn add(&self, rule: FaultRule) {
        self.0.lock().rules.push(rule);
    }

    pub(super) fn clear(&self) {
        self.0.lock().rules.clear();
    }

    /// What goes wrong with this request, by the first rule that strikes.
    pub(super) fn draw(&self, model: &str) -> Option<Fault> {
        let Rules { rules, dice } = &mut *self.0.lock();
        let rule = rules.iter_mut().find(|rule| {
            rule.times != Some(0) && rule.model.as_deref().is_none_or(|only| only == model) && dice.share() < rule.share
        })?;
        if let Some(times) = &mut rule.times {
            *times -= 1;
        }
        Some(rule.fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_asks_for_any_trouble() {
        let fault: Fault = "3021;form=head;retry-after=2;slow=5".parse().unwrap();
        assert_eq!(fault.trouble, Trouble::Error(3021));
        assert_eq!((fault.form, fault.retry_after, fault.slow), (Form::Head, Some(2), Duration::from_millis(5)));
        assert_eq!("stream-error=3007".parse::<Fault>().unwrap().trouble, Trouble::StreamError(3007));
        assert!("explode".parse::<Fault>().is_err());
    }

    #[test]
    fn half_of_the_requests_is_about_half() {
        let faults = Faults::default();
        faults.add(FaultRule::share(Fault::new(Trouble::Error(3040)), 0.5));
        let struck = (0..10_000).filter(|_| faults.draw("m").is_some()).count();
        assert!((4_800..5_200).contains(&struck), "{struck}");
    }
}
