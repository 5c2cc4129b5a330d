//! Trouble on demand: every row of the vendor's error table, and what networks do.

use std::str::FromStr;
use std::time::Duration;

use http::{HeaderValue, Response, header};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::dice::Dice;
use super::errors::{Form, error_json, row};
use super::event::{Event, Framing};
use crate::body::Body;

/// One piece of trouble. As a header: `x-simulate: 3040`, `3021;retry-after=2`, `5035;form=bare`, `reset`, `die-mid`,
/// `stream-error=3040;at=2`, `cut;at=3;frame=cr`, `slow=300`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What goes wrong.
    pub trouble: Trouble,
    /// How an error is worded.
    pub form: Form,
    /// Before which event of a stream it strikes: 0 is before the first. Absent: an error comes first, all else in the middle.
    pub at: Option<usize>,
    /// How a stream's lines are written, which is no trouble.
    pub framing: Framing,
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
    /// The connection is reset before a reply.
    Reset,
    /// No reply ever comes.
    Stall,
    /// A reply begins, and nothing more comes.
    StallMid,
    /// A reply begins, and the connection is closed.
    DieMid,
    /// A stream has 200 and this error in the place of an event, and ends there.
    StreamError(u32),
    /// 200, and this error instead of an answer. A stream was asked for in vain.
    ErrorIn200(u32),
    /// The answer's choice has this error, and `finish_reason: "error"`.
    ChoiceError(u32),
    /// `finish_reason: "error"`, and nothing more is told.
    FinishError,
    /// `/v1/responses` ends with `response.failed` and this error.
    ResponseFailed(u32),
    /// `/v1/responses` ends with `response.incomplete`.
    ResponseIncomplete,
    /// A stream lacks its last event, `[DONE]` or `response.completed`; the transport ends well.
    NoEnd,
    /// A stream ends early; the transport ends well.
    Cut,
    /// The answer is good, and has an `error` that is empty.
    EmptyError,
    /// The model is busy: who sent `options.rejectIfBusy` gets 3040 at once, others are answered after [`Fault::slow`].
    Busy,
}

/// Trouble for some requests.
#[derive(Clone, Debug)]
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
        let (form, framing) = (Form::default(), Framing::default());
        Self { trouble, form, framing, at: None, slow: Duration::ZERO, retry_after: None }
    }

    /// The reply to a request that meets an error; `None` for any other trouble.
    pub(super) fn reply(&self, id: &str) -> Option<Response<Body>> {
        let (code, status) = match self.trouble {
            Trouble::Error(code) => (code, row(code).0),
            Trouble::ErrorIn200(code) => (code, http::StatusCode::OK),
            Trouble::Busy => (3040, row(3040).0),
            _ => return None,
        };
        let mut reply = Response::new(match self.form {
            Form::Html => Body::from(format!(
                "<html><head><title>{status}</title></head><body>error code: {status}</body></html>"
            )),
            form => Body::from(error_json(code, form, id).to_string()),
        });
        *reply.status_mut() = status;
        let kind = if self.form == Form::Html { "text/html" } else { "application/json" };
        reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(after) = self.retry_after {
            reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after));
        }
        Some(reply)
    }

    /// True where the model never begins to answer, so that nothing is charged.
    pub(super) fn comes_first(&self) -> bool {
        matches!(self.trouble, Trouble::StreamError(_)) && self.at.unwrap_or(0) == 0
    }

    /// A stream's events as this trouble leaves them.
    pub(super) fn within(&self, mut events: Vec<Event>, id: &str) -> Vec<Event> {
        let middle = self.at.unwrap_or(events.len() / 2);
        match self.trouble {
            Trouble::StreamError(code) => {
                events.truncate(self.at.unwrap_or(0));
                events.push(Event::Data(error_json(code, self.form, id)));
            }
            Trouble::NoEnd => {
                events.pop();
            }
            Trouble::Cut => events.truncate(middle),
            Trouble::EmptyError => events.iter_mut().filter_map(Event::json).for_each(say_no_error),
            _ => events.iter_mut().for_each(|event| self.spoil(event, id)),
        }
        events
    }

    /// A whole answer as this trouble leaves it.
    pub(super) fn upon(&self, mut json: Value, id: &str) -> Value {
        if self.trouble == Trouble::EmptyError {
            say_no_error(&mut json);
        }
        let at = if json.get("result").is_some() { &mut json["result"] } else { &mut json };
        self.spoil_answer(at, id);
        json
    }

    fn spoil(&self, event: &mut Event, id: &str) {
        match event {
            Event::Named(name @ "response.completed", data) => {
                match self.trouble {
                    Trouble::ResponseFailed(_) => *name = "response.failed",
                    Trouble::ResponseIncomplete => *name = "response.incomplete",
                    _ => return,
                }
                data["type"] = json!(*name);
                self.spoil_answer(&mut data["response"], id);
            }
            Event::Data(data) => self.spoil_answer(data, id),
            _ => {}
        }
    }

    /// A reply of `/v1/responses`, or the choice that finishes.
    fn spoil_answer(&self, answer: &mut Value, id: &str) {
        let error = |code| error_json(code, Form::OpenAi, id)["error"].clone();
        match self.trouble {
            Trouble::ResponseFailed(code) if answer["object"] == "response" => {
                (answer["status"], answer["error"]) = (json!("failed"), error(code));
            }
            Trouble::ResponseIncomplete if answer["object"] == "response" => {
                answer["status"] = json!("incomplete");
                answer["incomplete_details"] = json!({"reason": "max_output_tokens"});
            }
            Trouble::ChoiceError(code) if is_finished(answer) => {
                let choice = &mut answer["choices"][0];
                (choice["finish_reason"], choice["error"]) = (json!("error"), error(code));
            }
            Trouble::FinishError if is_finished(answer) => answer["choices"][0]["finish_reason"] = json!("error"),
            _ => {}
        }
    }
}

fn is_finished(answer: &Value) -> bool {
    answer["choices"][0]["finish_reason"].is_string()
}

/// Fields that are named for an error and tell none.
fn say_no_error(json: &mut Value) {
    if json.is_object() {
        (json["error"], json["errors"]) = (json!(""), json!([]));
    }
}

impl Event {
    fn json(&mut self) -> Option<&mut Value> {
        match self {
            Self::Data(data) | Self::Named(_, data) => Some(data),
            Self::Done => None,
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut fault = Self::new(Trouble::Nothing);
        for part in text.split(';').map(str::trim) {
            let unknown = || format!("{part:?} is no trouble that can be simulated");
            let (name, value) = part.split_once('=').map_or((part, None), |(name, value)| (name, Some(value)));
            let number = || value.map(str::parse::<u32>).transpose().map_err(|_| unknown());
            match (name, value) {
                ("form", Some(form)) => fault.form = form.parse()?,
                ("frame", Some(framing)) => fault.framing = framing.parse()?,
                ("at", Some(_)) => fault.at = number()?.map(|at| at as usize),
                ("slow", Some(_)) => fault.slow = Duration::from_millis(number()?.unwrap_or(0).into()),
                ("retry-after", Some(_)) => fault.retry_after = number()?,
                _ => fault.trouble = trouble(name, number()?).ok_or_else(unknown)?,
            }
        }
        Ok(fault)
    }
}

fn trouble(name: &str, number: Option<u32>) -> Option<Trouble> {
    let code = number.unwrap_or(3040);
    let with_code = match name {
        "stream-error" => Trouble::StreamError(code),
        "error-in-200" => Trouble::ErrorIn200(code),
        "choice-error" => Trouble::ChoiceError(code),
        "response-failed" => Trouble::ResponseFailed(code),
        _ if number.is_some() => return None,
        "reset" => Trouble::Reset,
        "stall" => Trouble::Stall,
        "stall-mid" => Trouble::StallMid,
        "die-mid" => Trouble::DieMid,
        "finish-error" => Trouble::FinishError,
        "response-incomplete" => Trouble::ResponseIncomplete,
        "no-end" => Trouble::NoEnd,
        "cut" => Trouble::Cut,
        "empty-error" => Trouble::EmptyError,
        "busy" => Trouble::Busy,
        "" => Trouble::Nothing,
        code => Trouble::Error(code.parse().ok()?),
    };
    Some(with_code)
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
        let late: Fault = "stream-error;at=2;form=list;frame=cr".parse().unwrap();
        assert_eq!((late.trouble, late.at, late.framing), (Trouble::StreamError(3040), Some(2), Framing::Cr));
        for junk in ["explode", "cut=3", "at=x", "form=none", "frame=none"] {
            assert!(junk.parse::<Fault>().is_err(), "{junk}");
        }
    }

    #[test]
    fn half_of_the_requests_is_about_half() {
        let faults = Faults::default();
        faults.add(FaultRule::share(Fault::new(Trouble::Error(3040)), 0.5));
        let struck = (0..10_000).filter(|_| faults.draw("m").is_some()).count();
        assert!((4_800..5_200).contains(&struck), "{struck}");
    }
}
