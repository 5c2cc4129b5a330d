//! From a [`Call`] to HTTP and back: the innermost service, and the only door out.
//!
//! Wherever a call came from, it leaves for one place: the vendor's API, or an AI Gateway where [`Target::gateway`] names
//! one. Headers go on as the client sent them, less the hop-by-hop ones and those that the gate itself has obeyed; the
//! gate's own token takes the place of the client's where it has one. An encoding that can be read is asked for.
//!
//! Any HTTP client that is a tower service will do: [`client`] is reqwest, [`Around`] takes one of yours; the sidecar has
//! connections of its own.
//!
//! # What it does not do
//! It tries once, reads no body, and knows no limits: see [`layers`](crate::layers).

pub mod around;
pub mod client;
mod idle;
#[cfg(feature = "sidecar")]
pub mod pool;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{self, Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tower::Service;

use crate::Error;
use crate::body::Body;
use crate::call::{Call, Endpoint};
use crate::departure::Departure;
use crate::headers::strip_hop_by_hop;
use crate::layers::{Reply, ReplyFuture};

pub use around::Around;
pub use client::Client;

/// Where calls go.
#[derive(Clone)]
#[non_exhaustive]
pub struct Target {
    scheme: Scheme,
    authority: Authority,
    prefix: String,
    /// The name of the AI Gateway that calls leave through.
    pub gateway: Option<String>,
    /// The gate's own token, which takes the place of the client's. Never shown.
    token: Option<HeaderValue>,
    /// The AI Gateway's own token. Never shown.
    gateway_token: Option<HeaderValue>,
    /// How long until the reply's head is here, and then until a stream's first event.
    pub first_byte_timeout: Duration,
    /// How long between two pieces of a reply's body.
    pub idle_timeout: Duration,
    /// How long until the end of a body that is no stream of events, and a second more for each KiB of it.
    pub body_timeout: Duration,
}

/// Longer than the vendor's own ceiling, after which it answers with 3046 (errors page, 2026-09-17: 240 s).
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(250);
/// A stream that has begun does not pause for so long.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Beyond the vendor's ceiling, nothing but what is on its way already can come.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(300);

/// The vendor's own host.
pub const API: &str = "https://api.cloudflare.com";
/// The AI Gateway's host.
pub const GATEWAY: &str = "https://gateway.ai.cloudflare.com";

/// Makes HTTP requests of calls, on any client.
#[derive(Clone, Debug)]
pub struct Upstream<C> {
    client: C,
    target: Arc<Target>,
}

/// Why a [`Target`] cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// Not a URL such as `https://api.cloudflare.com`.
    #[error("{0:?} is not a base URL: write it like https://api.cloudflare.com, with http or https and a host")]
    Url(String),
    /// A token that no header can carry.
    #[error("the token holds characters that no HTTP header can carry")]
    Token,
}

// === impl Target ===

impl Default for Target {
    fn default() -> Self {
        Self {
            scheme: Scheme::HTTPS,
            authority: Authority::from_static("api.cloudflare.com"),
            prefix: String::new(),
            gateway: None,
            token: None,
            gateway_token: None,
            first_byte_timeout: FIRST_BYTE_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            body_timeout: BODY_TIMEOUT,
        }
    }
}

impl Target {
    /// The vendor's API or a stand-in: scheme, host, and perhaps a path.
    pub fn new(base_url: &str) -> Result<Self, TargetError> {
        let wrong = || TargetError::Url(base_url.to_owned());
        let parts = base_url.parse::<Uri>().map_err(|_| wrong())?.into_parts();
        let scheme = parts.scheme.filter(|s| *s == Scheme::HTTP || *s == Scheme::HTTPS).ok_or_else(wrong)?;
        let authority =
            parts.authority.filter(|a| !a.host().is_empty() && !a.as_str().contains('@')).ok_or_else(wrong)?;
        let path = parts.path_and_query.map_or_else(String::new, |path| path.path().trim_end_matches('/').to_owned());
        Ok(Self { scheme, authority, prefix: path, ..Self::default() })
    }

    /// With the gate's own token for the vendor.
    pub fn with_token(mut self, token: &str) -> Result<Self, TargetError> {
        self.token = Some(bearer(token)?);
        Ok(self)
    }

    /// With a token for an authenticated AI Gateway.
    pub fn with_gateway_token(mut self, token: &str) -> Result<Self, TargetError> {
        self.gateway_token = Some(bearer(token)?);
        Ok(self)
    }

    /// Whom we ask, for messages.
    pub fn host(&self) -> &str {
        self.authority.as_str()
    }

    /// The gate has a token of its own.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    fn uri(&self, path: String) -> Result<Uri, http::Error> {
        let mut parts = uri::Parts::default();
        (parts.scheme, parts.authority) = (Some(self.scheme.clone()), Some(self.authority.clone()));
        parts.path_and_query = Some(PathAndQuery::from_maybe_shared(path)?);
        Ok(Uri::from_parts(parts)?)
    }

    /// The path of a call in the form of the API or of the AI Gateway.
    fn path(&self, call: &Call) -> String {
        let (account, query) = (&*call.account, call.head.query.as_deref());
        let names = self.gateway.as_ref().map_or(0, String::len) + account.len() + call.model.id.len();
        let length = self.prefix.len() + names + query.map_or(0, str::len) + FIXED_PARTS;
        let mut path = String::with_capacity(length);
        match &self.gateway {
            None => path.extend([&*self.prefix, "/client/v4/accounts/", account, "/ai/"]),
            Some(gateway) => path.extend([&*self.prefix, "/v1/", account, "/", gateway, "/workers-ai/"]),
        }
        match call.endpoint {
            Endpoint::Run => {
                path.push_str("run");
                if call.model_in_body.is_none() {
                    path.push('/');
                    path.extend(utf8_percent_encode(&call.model.id, IN_PATH));
                }
            }
            openai => path.extend(["v1/", openai.label()]),
        }
        path.extend(query.into_iter().flat_map(|query| ["?", query]));
        path
    }

    fn headers(&self, call: &Call) -> HeaderMap {
        let mut headers = call.head.headers.clone();
        while let Some(name) = headers.keys().find(|name| self.is_for_us(name.as_str())).cloned() {
            headers.remove(name);
        }
        self.replace(&mut headers);
        headers
    }

    fn is_for_us(&self, name: &str) -> bool {
        // Most headers are told by their first letters.
        (name.starts_with("cf-") || name.starts_with("x-tollgate-"))
            && (OBEYED.contains(&name) || self.gateway.is_none() && GATEWAYS.contains(&name))
    }

    /// What every request's headers get, call or not.
    fn replace(&self, headers: &mut HeaderMap) {
        headers.remove(header::HOST);
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::EXPECT);
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(token) = &self.token {
            headers.insert(header::AUTHORIZATION, token.clone());
        }
        if let (Some(token), Some(_)) = (&self.gateway_token, &self.gateway) {
            headers.insert("cf-aig-authorization", token.clone());
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = if self.token.is_some() { "own" } else { "the client's" };
        let gateway = self.gateway.as_deref().unwrap_or("none");
        write!(f, "{}://{}{} (gateway: {gateway}, token: {token})", self.scheme, self.authority, self.prefix)
    }
}

/// Everything but what a path segment or a slash may hold; `@` stays, as the vendor writes it.
const IN_PATH: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b'`').add(b'{').add(b'}');

/// As long as all that is always said in a path together.
const FIXED_PARTS: usize = 48;

/// Headers that the gate has obeyed itself; a gateway behind it would obey them once more.
const OBEYED: [&str; 10] = [
    "cf-aig-skip-cache",
    "cf-skip-cache",
    "cf-aig-cache-ttl",
    "cf-cache-ttl",
    "cf-aig-cache-key",
    "cf-aig-request-timeout",
    "cf-aig-max-attempts",
    "cf-aig-retry-delay",
    "cf-aig-backoff",
    "x-tollgate-stream-cost",
];

/// Headers that mean something to an AI Gateway alone.
const GATEWAYS: [&str; 6] = [
    "cf-aig-metadata",
    "cf-aig-custom-cost",
    "cf-aig-collect-log",
    "cf-aig-collect-log-payload",
    "cf-aig-authorization",
    "cf-aig-event-id",
];

fn bearer(token: &str) -> Result<HeaderValue, TargetError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| TargetError::Token)?;
    value.set_sensitive(true);
    Ok(value)
}

// === impl Upstream ===

impl<C> Upstream<C> {
    /// Sends calls to `target` on `client`.
    pub fn new(client: C, target: Target) -> Self {
        Self { client, target: Arc::new(target) }
    }
}

impl<C> Service<Call> for Upstream<C>
where
    C: Service<Request<Body>, Response = Reply, Error = Error>,
    C::Future: Send + 'static,
{
    type Response = Reply;
    type Error = Error;
    type Future = ReplyFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.client.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> ReplyFuture {
        let uri = match self.target.uri(self.target.path(&call)) {
            Ok(uri) => uri,
            Err(error) => return refuse(Error::Malformed(format!("the model or the query makes no URL: {error}"))),
        };
        let departure = call.departure.clone().unwrap_or_default();
        let mut request = Request::new(Body::outgoing(call.body.clone(), departure.clone()));
        *request.method_mut() = call.head.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = self.target.headers(&call);
        let target = self.target.clone();
        // The request's body is all that upstream needs of the call.
        drop(call);
        let reply = self.client.call(request);
        Box::pin(async move { within_time(&target, reply, &departure).await })
    }
}

/// What is no call passes as it came. Own tokens are for `/ai/` alone: a client of the gate is no administrator.
impl<C> Service<Request<Body>> for Upstream<C>
where
    C: Service<Request<Body>, Response = Reply, Error = Error>,
    C::Future: Send + 'static,
{
    type Response = Reply;
    type Error = Error;
    type Future = ReplyFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.client.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> ReplyFuture {
        let came_for = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        let uri = match self.target.uri(format!("{}{came_for}", self.target.prefix)) {
            Ok(uri) => uri,
            Err(error) => return refuse(Error::Malformed(format!("the path makes no URL: {error}"))),
        };
        let is_ai = is_plainly_ai(request.method(), request.uri().path());
        let sent = request.headers().get(header::AUTHORIZATION).cloned();
        let length = request.headers().get(header::CONTENT_LENGTH).cloned();
        let mut headers = std::mem::take(request.headers_mut());
        strip_hop_by_hop(&mut headers);
        self.target.replace(&mut headers);
        if !is_ai {
            headers.remove(header::AUTHORIZATION);
            headers.extend(sent.map(|sent| (header::AUTHORIZATION, sent)));
        }
        headers.extend(length.map(|length| (header::CONTENT_LENGTH, length)));
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let target = self.target.clone();
        let reply = self.client.call(request);
        Box::pin(async move { within_time(&target, reply, &Departure::default()).await })
    }
}

/// What can be read in one way only, and is no call to a model: else `ai//run/…` would be one that nobody has counted.
fn is_plainly_ai(method: &Method, path: &str) -> bool {
    let Some(path) = path.strip_prefix("/client/v4/accounts/") else { return false };
    let Some((account, rest)) = path.split_once("/ai/") else { return false };
    let is_plain = |part: &str| {
        let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@:~".contains(&byte);
        part.bytes().all(is_usual) && part.bytes().any(|byte| byte != b'.')
    };
    let first = rest.split('/').next().unwrap_or_default();
    let may_run = first.eq_ignore_ascii_case("run") || first.eq_ignore_ascii_case("v1") && method != Method::GET;
    is_plain(account) && rest.split('/').all(is_plain) && !may_run
}

fn refuse(error: Error) -> ReplyFuture {
    Box::pin(std::future::ready(Err(error)))
}

async fn within_time(
    target: &Target,
    reply: impl Future<Output = Result<Reply, Error>>,
    departure: &Departure,
) -> Result<Reply, Error> {
    let after = target.first_byte_timeout;
    let reply = tokio::time::timeout(after, reply).await;
    let late =
        |_| Error::Timeout { after, setting: "[upstream] first_byte_timeout", was_sent: departure.may_have_left() };
    let mut reply = reply.map_err(late)??;
    strip_hop_by_hop(reply.headers_mut());
    let patience = idle::Patience::of(target, reply.headers());
    Ok(reply.map(|body| idle::limit(body, patience)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::testing::{LLAMA, call};

    fn path(target: &Target, endpoint: Endpoint) -> String {
        let call = Call { endpoint, ..call(LLAMA, "{}") };
        target.path(&call)
    }

    #[test]
    fn a_call_leaves_for_the_api_or_through_a_gateway() {
        let api = Target::new("http://127.0.0.1:1/base/").unwrap();
        assert_eq!(path(&api, Endpoint::Run), "/base/client/v4/accounts/acc/ai/run/@cf/meta/llama-3.2-1b-instruct");
        assert_eq!(path(&api, Endpoint::Embeddings), "/base/client/v4/accounts/acc/ai/v1/embeddings");
        let gateway = Target { gateway: Some("gw".into()), ..Target::new(GATEWAY).unwrap() };
        assert_eq!(path(&gateway, Endpoint::Run), "/v1/acc/gw/workers-ai/run/@cf/meta/llama-3.2-1b-instruct");
        assert_eq!(path(&gateway, Endpoint::ChatCompletions), "/v1/acc/gw/workers-ai/v1/chat/completions");
    }

    #[test]
    fn a_base_url_that_is_none_is_named() {
        for wrong in ["", "api.cloudflare.com", "ftp://x", "http://", "https://user:pw@host"] {
            assert!(Target::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn own_tokens_do_not_go_where_a_call_may_hide() {
        for (path, is_so) in [
            ("/client/v4/accounts/acc/ai/models/search", true),
            ("/client/v4/accounts/acc/ai/v1/models", false),
            ("/client/v4/accounts/acc/ai//run/@cf/a/b", false),
            ("/client/v4/accounts/acc/ai/./run/@cf/a/b", false),
            ("/client/v4/accounts/acc/ai/Run/@cf/a/b", false),
            ("/client/v4/accounts/acc/ai/%72un/@cf/a/b", false),
            ("/client/v4/accounts/acc/ai/v1/chat/completions/", false),
            ("/client/v4/accounts/acc/ai/v1//chat/completions", false),
            ("/client/v4/accounts/acc/ai/models/../run/@cf/a/b", false),
            ("/client/v4/accounts/a/b/ai/models/search", false),
            ("/client/v4/accounts/acc/storage/kv", false),
        ] {
            assert_eq!(is_plainly_ai(&Method::POST, path), is_so, "{path}");
        }
        assert!(is_plainly_ai(&Method::GET, "/client/v4/accounts/acc/ai/v1/models"));
    }

    #[test]
    fn a_token_is_never_shown() {
        let target = Target::default().with_token("s3cret").unwrap();
        assert!(!format!("{target:?}").contains("s3cret"));
    }
}
