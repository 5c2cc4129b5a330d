//! The AI Gateway's universal endpoint: `POST /v1/{account}/{gateway}` with a list of steps.
//!
//! Each step is a call, with a receipt, limits and budgets of its own, in the order in which they stand. The next one is asked
//! where the one before was not answered, whoever refused it; the last one's reply is the client's, whatever it says.
//! `cf-aig-step` tells which step it is.
//!
//! # What it does not do
//! It asks no two steps at once, and a step's stream that fails behind its first word is not followed by another.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, Uri, request};
use http_body::Body as HttpBody;
use serde::Deserialize;
use serde_json::value::RawValue;
use tower::Service;

use super::arrived::Arrived;
use super::calls::answer_call;
use super::encoding;
use super::gate_headers::OWN;
use super::intake::read_body;
use super::path::CanonicalPath;
use super::refusal::refuse;
use super::reply::ReplyBody;
use super::route::{Route, Universal};
use super::settings::Settings;
use crate::Error;
use crate::body::BoxError;
use crate::call::{Call, Elsewhere};
use crate::endpoint::ErrorForm;
use crate::headers::strip_hop_by_hop;
use crate::json::BYTE_ORDER_MARK;
use crate::layers::Reply;
use crate::peer::{Certified, Peer};
use crate::receipt::ReadBy;
use crate::vendor_error::VendorError;

/// More are refused.
const MAX_STEPS: usize = 16;
/// How long the rest of a step's refusal is waited for before the next step is asked.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Which step answered.
const STEP: HeaderName = HeaderName::from_static("cf-aig-step");

/// One step, as it is written. What else stands in it is nobody's.
#[derive(Deserialize)]
pub(super) struct Step<'a> {
    #[serde(borrow)]
    provider: Cow<'a, str>,
    #[serde(borrow)]
    endpoint: Cow<'a, str>,
    #[serde(default)]
    headers: Option<BTreeMap<String, serde_json::Value>>,
    #[serde(borrow)]
    pub(super) query: &'a RawValue,
    #[serde(default)]
    config: Option<Config>,
}

/// What a step's `config` has that has a header of the same meaning.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    request_timeout: Option<serde_json::Value>,
    max_attempts: Option<serde_json::Value>,
    retry_delay: Option<serde_json::Value>,
    backoff: Option<serde_json::Value>,
}

/// Who asks, and who reads the receipts.
pub(super) type Asker = (Option<Peer>, Option<Certified>, Option<ReadBy>);

impl Universal<'_> {
    /// Whether this is an account, rather than a part of a route that the gate has not.
    pub(super) fn is_known(&self, settings: &Settings) -> bool {
        let mut named = settings.account.iter().chain(&settings.accounts);
        let is_id = self.account.len() == 32 && self.account.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id || named.any(|account| account.eq_ignore_ascii_case(self.account))
    }

    /// Asks one step after the other.
    pub(super) async fn answer<S, B>(
        &self,
        settings: &Settings,
        inner: &mut S,
        head: &mut request::Parts,
        body: B,
    ) -> Response<ReplyBody>
    where
        S: Service<Call, Response = Reply, Error = Error> + Clone + Send + 'static,
        S::Future: Send,
        B: HttpBody,
        B::Error: Into<BoxError>,
    {
        let told = |error| refuse(error, ErrorForm::Cloudflare);
        let body = match self.take_in(settings, head, body).await {
            Ok(body) => body,
            Err(error) => return told(error),
        };
        let steps = match steps(&body) {
            Ok(steps) => steps,
            Err(error) => return told(error),
        };
        let reader: Option<ReadBy> = head.extensions.remove();
        let last = steps.len() - 1;
        for (number, step) in steps.iter().enumerate() {
            let mut reply = match self.path(step) {
                Err(error) => told(error),
                Ok(uri) => {
                    let headers = step.headers(&head.headers);
                    let query = body.slice_ref(step.query.get().as_bytes());
                    let sender = (head.extensions.get().copied(), head.extensions.get().cloned(), reader.clone());
                    self.ask(settings, inner, &uri, headers, query, sender).await
                }
            };
            if number == last || is_answer(&reply) {
                reply.headers_mut().insert(STEP, HeaderValue::from(number as u64));
                return reply;
            }
            tracing::debug!(step = number, status = reply.status().as_u16(), "the next step is asked");
            drain(reply.into_body()).await;
        }
        told(no_steps())
    }

    /// The body, without its encoding.
    async fn take_in<B>(&self, settings: &Settings, head: &mut request::Parts, body: B) -> Result<Bytes, Error>
    where
        B: HttpBody,
        B::Error: Into<BoxError>,
    {
        // Each step shows the key once more.
        settings.keys.admit(&mut head.headers.clone(), head.extensions.get())?;
        if head.method != Method::POST {
            return Err(Error::Method { asked: mem::take(&mut head.method), takes: "POST" });
        }
        let body = read_body(settings, &head.headers, body).await?;
        match encoding::decode(settings, &head.headers, &body)? {
            encoding::Content::Plain => Ok(body),
            encoding::Content::Decoded(plain) => Ok(plain),
            encoding::Content::Broken(why) => Err(Error::Malformed(why)),
        }
    }

    /// Where a step would go if it were a request of its own.
    pub(super) fn path(&self, step: &Step<'_>) -> Result<Uri, Error> {
        let wrong = || {
            Error::Malformed(format!(
                "a step's `provider` and `endpoint` make no path: {:?} and {:?}",
                step.provider.chars().take(100).collect::<String>(),
                step.endpoint.chars().take(100).collect::<String>()
            ))
        };
        let (Self { account, gateway }, endpoint) = (self, step.endpoint.trim_start_matches('/'));
        if step.provider.is_empty() || step.provider.contains(['/', '%', '?', '#']) || endpoint.is_empty() {
            return Err(wrong());
        }
        format!("/v1/{account}/{gateway}/{}/{endpoint}", step.provider).parse().map_err(|_| wrong())
    }

    pub(super) async fn ask<S>(
        &self,
        settings: &Settings,
        inner: &mut S,
        uri: &Uri,
        headers: HeaderMap,
        query: Bytes,
        (peer, certified, reader): Asker,
    ) -> Response<ReplyBody>
    where
        S: Service<Call, Response = Reply, Error = Error> + Clone + Send + 'static,
        S::Future: Send,
    {
        let path = match CanonicalPath::read(uri.path()) {
            Ok(path) => path,
            Err(error) => return refuse(error, ErrorForm::Cloudflare),
        };
        let (target, elsewhere) = match Route::of(path.decoded()) {
            Route::Call(target) => (target, None),
            Route::Other(other) if !other.may_run => match Elsewhere::of(path.decoded(), path.encoded()) {
                Some(elsewhere) => (elsewhere.target(other.account), Some(elsewhere)),
                None => return refuse(super::unknown_path(path.decoded()), ErrorForm::Cloudflare),
            },
            _ => return refuse(super::unknown_path(path.decoded()), ErrorForm::Cloudflare),
        };
        let arrived = Arrived {
            target,
            route: None,
            elsewhere,
            own: None,
            asked: None,
            method: Method::POST,
            query: uri.query(),
            headers,
            peer,
            certified,
            reader,
            body: Some(query),
            is_dry: false,
        };
        answer_call(settings, inner, arrived, crate::body::Body::empty()).await
    }
}

fn steps(body: &Bytes) -> Result<Vec<Step<'_>>, Error> {
    let json = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let steps: Vec<Step<'_>> = match json.iter().find(|byte| !byte.is_ascii_whitespace()) {
        // One alone may stand without a list around it.
        Some(b'{') => vec![serde_json::from_slice(json).map_err(malformed)?],
        _ => serde_json::from_slice(json).map_err(malformed)?,
    };
    match steps.len() {
        0 => Err(no_steps()),
        length if length > MAX_STEPS => {
            Err(Error::Malformed(format!("{length} steps are too many: at most {MAX_STEPS}")))
        }
        _ => Ok(steps),
    }
}

fn malformed(why: serde_json::Error) -> Error {
    Error::Malformed(format!(
        "the body is not the list of steps that this route takes, {{\"provider\": …, \"endpoint\": …, \"query\": {{…}}}}: {why}"
    ))
}

fn no_steps() -> Error {
    Error::Malformed("the list of steps is empty: give one at least".into())
}

// === impl Step ===

impl Step<'_> {
    /// The request's headers, with the step's own in their place.
    pub(super) fn headers(&self, request: &HeaderMap) -> HeaderMap {
        let mut headers = request.clone();
        strip_hop_by_hop(&mut headers);
        for name in [header::CONTENT_ENCODING, header::CONTENT_LENGTH, header::HOST] {
            headers.remove(name);
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut own = HeaderMap::new();
        for (name, value) in self.headers.iter().flatten() {
            let text = text(value);
            let Ok(name) = HeaderName::try_from(name) else { continue };
            let read = text.and_then(|text| HeaderValue::try_from(text).ok());
            // What asks something of the gate itself and cannot be read is told, and not left out.
            let is_told = name.as_str().starts_with(OWN) && !value.is_null();
            let value = read.or_else(|| is_told.then(|| HeaderValue::from_static("?")));
            own.extend(value.map(|value| (name, value)));
        }
        strip_hop_by_hop(&mut own);
        for name in [header::CONTENT_ENCODING, header::CONTENT_LENGTH, header::HOST, header::ACCEPT_ENCODING] {
            own.remove(name);
        }
        for (name, value) in &own {
            headers.insert(name.clone(), value.clone());
        }
        let config = self.config.as_ref();
        let settings = config.map(|config| {
            [
                ("cf-aig-request-timeout", &config.request_timeout),
                ("cf-aig-max-attempts", &config.max_attempts),
                ("cf-aig-retry-delay", &config.retry_delay),
                ("cf-aig-backoff", &config.backoff),
            ]
        });
        for (name, value) in settings.into_iter().flatten() {
            let text = value.as_ref().and_then(text);
            if let Some(value) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
                headers.insert(name, value);
            }
        }
        headers
    }
}

fn text(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::Bool(flag) => Some(flag.to_string()),
        // Metadata may stand as it is.
        serde_json::Value::Object(_) => Some(value.to_string()),
        serde_json::Value::Null | serde_json::Value::Array(_) => None,
    }
}

// === replies ===

fn is_answer(reply: &Response<ReplyBody>) -> bool {
    reply.status().is_success() && reply.extensions().get::<VendorError>().is_none_or(|error| error.has_run)
}

/// Reads a refusal to its end, so that it is noted as one that was told.
async fn drain(body: ReplyBody) {
    let mut body = body;
    let rest = async { while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {} };
    // What does not end is dropped.
    let _ = tokio::time::timeout(LAST_WORDS, rest).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_and_what_is_none_is_told() {
        let body = Bytes::from(
            r#" [{"provider":"workers-ai","endpoint":"@cf/a/b","headers":{"Authorization":"Bearer t","x":7,"bad name":"x","nul":null},
                "query":{"prompt":"hi"},"config":{"requestTimeout":1000},"unheard":1}]"#,
        );
        let steps = steps(&body).unwrap();
        assert_eq!(steps[0].query.get(), r#"{"prompt":"hi"}"#);
        let outer = HeaderMap::from_iter([
            (header::AUTHORIZATION, HeaderValue::from_static("Bearer outer")),
            (header::CONTENT_LENGTH, HeaderValue::from_static("7")),
        ]);
        let headers = steps[0].headers(&outer);
        assert_eq!((&headers["authorization"], &headers["x"]), (&"Bearer t".parse().unwrap(), &"7".parse().unwrap()));
        assert_eq!(headers["cf-aig-request-timeout"], "1000");
        assert!(!headers.contains_key("content-length") && !headers.contains_key("nul"));
        for wrong in ["", "[]", "7", "[7]", r#"[{"provider":"workers-ai"}]"#, "[{]"] {
            assert!(super::steps(&Bytes::from(wrong)).is_err(), "{wrong}");
        }
        let many = vec![r#"{"provider":"p","endpoint":"e","query":{}}"#; MAX_STEPS + 1].join(",");
        assert!(super::steps(&Bytes::from(format!("[{many}]"))).is_err());
    }

    #[test]
    fn a_step_that_makes_no_path_is_told() {
        let universal = Universal { account: "acc", gateway: "gw" };
        let path = |provider: &str, endpoint: &str| {
            let body = serde_json::json!({"provider": provider, "endpoint": endpoint, "query": {}}).to_string();
            let body = Bytes::from(body);
            let steps = steps(&body).unwrap();
            universal.path(&steps[0]).map(|uri| uri.to_string())
        };
        assert_eq!(path("workers-ai", "@cf/a/b").unwrap(), "/v1/acc/gw/workers-ai/@cf/a/b");
        assert_eq!(
            path("workers-ai", "/run/@cf/a/b?queueRequest=true").unwrap(),
            "/v1/acc/gw/workers-ai/run/@cf/a/b?queueRequest=true"
        );
        for (provider, endpoint) in [("", "x"), ("a/b", "x"), ("workers-ai", ""), ("workers-ai", "a b"), ("p?", "x")] {
            assert!(path(provider, endpoint).is_err(), "{provider} {endpoint}");
        }
    }
}
