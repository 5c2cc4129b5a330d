//! From a [`Call`] to HTTP and back: the innermost service, and the only door out.
//!
//! Wherever a call came from, it leaves for one place: the vendor's API, or an AI Gateway where [`Target::gateway`] names
//! one. Headers go on as the client sent them, less the hop-by-hop ones and those that the gate itself has obeyed; a request
//! that names a gateway itself (`cf-aig-gateway-id`) has its `cf-aig-*` headers arrive there. The gate's own tokens take the
//! place of the client's where [`Credentials`] says so, and nowhere else. An encoding that can be read is asked for.
//!
//! Any HTTP client that is a tower service will do: `client` is reqwest (a feature), [`Around`] takes one of yours; the sidecar has
//! connections of its own.
//!
//! # What it does not do
//! It tries once, reads no body, and knows no limits: see [`layers`](crate::layers).

pub mod around;
mod causes;
#[cfg(feature = "reqwest")]
pub mod client;
#[cfg(feature = "sidecar")]
mod http1;
mod idle;
#[cfg(feature = "sidecar")]
pub mod pool;
#[cfg(feature = "sidecar")]
mod road;
#[cfg(feature = "reqwest")]
mod tls;
#[cfg(not(feature = "reqwest"))]
mod without;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{self, Authority, PathAndQuery, Scheme};
use http::{Request, Uri};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tower::Service;

use crate::Error;
use crate::affinity::SESSION_AFFINITY;
use crate::body::Body;
use crate::call::{Call, Credentials, Endpoint};
use crate::departure::Departure;
use crate::headers::{
    CF_AIG_AUTHORIZATION, GATEWAY_ID, X_AUTH_EMAIL, X_AUTH_KEY, X_AUTH_USER_SERVICE_KEY, strip_hop_by_hop,
};
use crate::layers::{Reply, ReplyFuture};
use crate::trace::{TRACEPARENT, TraceContext};

pub use crate::affinity::{Affinity, SessionBy};
pub use around::Around;
#[cfg(feature = "sidecar")]
pub(crate) use causes::causes;
#[cfg(feature = "reqwest")]
pub use client::Client;
#[cfg(feature = "sidecar")]
pub(crate) use road::system_authorities;
#[cfg(feature = "sidecar")]
pub use road::{Proxies, ProxyError, Road};
#[cfg(feature = "sidecar")]
pub(crate) use tls::{tls, tls_unverified};
#[cfg(not(feature = "reqwest"))]
pub use without::Client;

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
    /// What gives calls a session with the vendor's prefix cache, where they have none of their own.
    pub affinity: Option<Affinity>,
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
            affinity: None,
            first_byte_timeout: FIRST_BYTE_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            body_timeout: BODY_TIMEOUT,
        }
    }
}

impl Target {
    /// Its scheme and host.
    #[cfg(feature = "sidecar")]
    pub(crate) fn base_url(&self) -> http::Uri {
        let parts = http::Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone());
        parts.path_and_query("/").build().unwrap_or_default()
    }

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

    /// Other providers are behind it. Of a stand-in nothing is known.
    fn leads_elsewhere(&self) -> bool {
        self.gateway.is_some() || self.authority != "api.cloudflare.com"
    }

    /// It has a token for an AI Gateway.
    pub fn has_gateway_token(&self) -> bool {
        self.gateway_token.is_some()
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
        if let Some(elsewhere) = &call.elsewhere {
            let gateway = self.gateway.as_deref().unwrap_or(&elsewhere.gateway);
            let query = query.map_or_else(String::new, |query| format!("?{query}"));
            return format!("{}/v1/{account}/{gateway}/{}{query}", self.prefix, elsewhere.path);
        }
        let names = self.gateway.as_ref().map_or(0, String::len) + account.len() + call.model.id.len();
        let length = self.prefix.len() + names + query.map_or(0, str::len) + FIXED_PARTS;
        let mut path = String::with_capacity(length);
        match &self.gateway {
            None => path.extend([&*self.prefix, "/client/v4/accounts/", account, "/ai/"]),
            Some(gateway) => path.extend([&*self.prefix, "/v1/", account, "/", gateway, "/workers-ai/"]),
        }
        match call.endpoint {
            // The AI Gateway takes the name of a socket's model in the query.
            Endpoint::Socket if self.gateway.is_some() => {
                path.pop();
                path.push_str("?model=");
                path.extend(utf8_percent_encode(&call.model.id, IN_PATH));
                path.extend(query.into_iter().flat_map(|query| ["&", query]));
                return path;
            }
            Endpoint::Run | Endpoint::Socket => {
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
        // Most requests have none of these.
        if headers.keys().any(|name| is_special(name.as_str())) {
            let goes_on = self.gateway.is_none() && headers.contains_key(GATEWAY_ID);
            let is_behind_one = call.elsewhere.is_some();
            let is_for_us = |name: &str| self.is_for_us(name, goes_on) && !(is_behind_one && GATEWAYS.contains(&name));
            while let Some(name) = headers.keys().find(|name| is_for_us(name.as_str())).cloned() {
                headers.remove(name);
            }
        }
        prepare(&mut headers);
        if let Some(session) = self.affinity.as_ref().and_then(|affinity| affinity.session(call)) {
            headers.insert(SESSION_AFFINITY, session);
        }
        if call.credentials == Credentials::Gate {
            // Another provider has a token of its own.
            if call.elsewhere.is_none() {
                self.sign(&mut headers);
            }
            if let (Some(token), Some(_)) = (&self.gateway_token, &self.gateway) {
                headers.insert(CF_AIG_AUTHORIZATION, token.clone());
            }
        }
        headers
    }

    /// `goes_on`: the request names a gateway, which the AI Gateway's headers are meant for.
    fn is_for_us(&self, name: &str, goes_on: bool) -> bool {
        is_special(name)
            && (name.starts_with(OWN)
                || !goes_on
                    && (OBEYED.contains(&name)
                        || self.gateway.is_none() && GATEWAYS.contains(&name)
                        || self.gateway.is_some() && name == GATEWAY_ID.as_str()))
    }

    /// The gate's own token in the place of whatever the client sent to vouch for itself.
    fn sign(&self, headers: &mut HeaderMap) {
        if let Some(token) = &self.token {
            for name in [X_AUTH_EMAIL, X_AUTH_KEY, X_AUTH_USER_SERVICE_KEY] {
                headers.remove(name);
            }
            headers.insert(header::AUTHORIZATION, token.clone());
        }
    }
}

/// What begins every header of the gate's own.
const OWN: &str = "x-tollgate-";

/// Most headers are told by their first letters.
fn is_special(name: &str) -> bool {
    name.starts_with("cf-") || name.starts_with(OWN)
}

/// What every request's headers get, call or not.
fn prepare(headers: &mut HeaderMap) {
    headers.remove(header::HOST);
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::EXPECT);
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
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
const OBEYED: [&str; 9] = [
    "cf-aig-skip-cache",
    "cf-skip-cache",
    "cf-aig-cache-ttl",
    "cf-cache-ttl",
    "cf-aig-cache-key",
    "cf-aig-request-timeout",
    "cf-aig-max-attempts",
    "cf-aig-retry-delay",
    "cf-aig-backoff",
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
        if call.elsewhere.is_some() && !self.target.leads_elsewhere() {
            return refuse(Error::NotFound(
                "other providers stand behind an AI Gateway, and this gate's upstream is the vendor's API: set [upstream] \
                 gateway in its config"
                    .into(),
            ));
        }
        let uri = match self.target.uri(self.target.path(&call)) {
            Ok(uri) => uri,
            Err(error) => return refuse(Error::Malformed(format!("the model or the query makes no URL: {error}"))),
        };
        let departure = call.departure.clone().unwrap_or_default();
        let mut request = Request::new(Body::outgoing(call.body.clone(), departure.clone()));
        *request.method_mut() = call.head.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = self.target.headers(&call);
        if let Some(trace) = call.trace.and_then(TraceContext::header) {
            request.headers_mut().insert(TRACEPARENT, trace);
        }
        let target = self.target.clone();
        let opening = call.socket.as_ref().map(|opening| opening.settings.open_timeout);
        // The request's body is all that upstream needs of the call.
        drop(call);
        if let Some(open_timeout) = opening {
            request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            request.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            let reply = self.client.call(request);
            return Box::pin(async move { shaken(&target, reply, open_timeout).await });
        }
        let reply = self.client.call(request);
        Box::pin(async move { within_time(&target, reply, &departure).await })
    }
}

/// What is no call passes as it came, with the gate's own token where its extensions have [`Credentials::Gate`].
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
        let credentials: Credentials = request.extensions_mut().remove().unwrap_or_default();
        let length = request.headers().get(header::CONTENT_LENGTH).cloned();
        let mut headers = std::mem::take(request.headers_mut());
        strip_hop_by_hop(&mut headers);
        while let Some(name) = headers.keys().find(|name| name.as_str().starts_with(OWN)).cloned() {
            headers.remove(name);
        }
        prepare(&mut headers);
        if credentials == Credentials::Gate {
            self.target.sign(&mut headers);
        }
        headers.extend(length.map(|length| (header::CONTENT_LENGTH, length)));
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let target = self.target.clone();
        let reply = self.client.call(request);
        Box::pin(async move { within_time(&target, reply, &Departure::default()).await })
    }
}

fn refuse(error: Error) -> ReplyFuture {
    Box::pin(std::future::ready(Err(error)))
}

/// The answer to a handshake. Until it is there nothing has been heard or spoken, so that nothing has cost.
async fn shaken(
    target: &Target,
    reply: impl Future<Output = Result<Reply, Error>>,
    open_timeout: Duration,
) -> Result<Reply, Error> {
    let late = |_| Error::Timeout { after: open_timeout, setting: "[sockets] open_timeout", was_sent: false };
    let reply = tokio::time::timeout(open_timeout, reply).await.map_err(late)?;
    let mut reply = reply.map_err(|error| match error {
        Error::Unreachable { host, why, .. } => Error::Unreachable { host, why, was_sent: false },
        other => other,
    })?;
    strip_hop_by_hop(reply.headers_mut());
    let patience = idle::Patience::of(target, reply.headers());
    Ok(reply.map(|body| idle::limit(body, patience)))
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
    fn a_gateway_that_the_request_names_gets_its_headers_and_the_config_s_gets_what_is_left_to_obey() {
        let headers = |target: &Target, gateway_id: bool| {
            let mut call = call(LLAMA, "{}");
            let names =
                ["cf-aig-cache-ttl", "cf-aig-max-attempts", "cf-aig-metadata", "cf-aig-zdr", "x-tollgate-stream-cost"];
            let mut headers: HeaderMap =
                names.iter().map(|n| (n.parse().unwrap(), HeaderValue::from_static("1"))).collect();
            if gateway_id {
                headers.insert(GATEWAY_ID, HeaderValue::from_static("mine"));
            }
            call.head = std::sync::Arc::new(crate::call::Head { headers, ..Default::default() });
            let headers = target.headers(&call);
            let mut left: Vec<_> =
                headers.keys().filter(|n| is_special(n.as_str())).map(|n| n.as_str().to_owned()).collect();
            left.sort();
            left
        };
        let (api, gateway) = (Target::default(), Target { gateway: Some("gw".into()), ..Target::default() });
        assert_eq!(headers(&api, false), ["cf-aig-zdr"]);
        let all = ["cf-aig-cache-ttl", "cf-aig-gateway-id", "cf-aig-max-attempts", "cf-aig-metadata", "cf-aig-zdr"];
        assert_eq!(headers(&api, true), all);
        assert_eq!(headers(&gateway, false), ["cf-aig-metadata", "cf-aig-zdr"]);
        assert_eq!(headers(&gateway, true), ["cf-aig-metadata", "cf-aig-zdr"]);
    }

    #[test]
    fn own_tokens_take_the_place_of_all_that_a_client_vouches_with_or_stay_at_home() {
        let target = Target { gateway: Some("gw".into()), ..Target::default() };
        let target = target.with_token("own").unwrap().with_gateway_token("gateways").unwrap();
        for credentials in [Credentials::Gate, Credentials::Client] {
            let mut call = Call { credentials, ..call(LLAMA, "{}") };
            let sent = [("authorization", "Bearer client"), ("x-auth-email", "a@b.example"), ("x-auth-key", "k")];
            let headers = sent.map(|(n, v)| (n.parse().unwrap(), HeaderValue::from_static(v))).into_iter().collect();
            call.head = Arc::new(crate::call::Head { headers, ..Default::default() });
            let headers = target.headers(&call);
            let is_gate = credentials == Credentials::Gate;
            assert_eq!(headers["authorization"], if is_gate { "Bearer own" } else { "Bearer client" });
            assert_eq!(headers.contains_key("x-auth-key"), !is_gate);
            assert_eq!(headers.contains_key("cf-aig-authorization"), is_gate);
        }
    }

    #[test]
    fn a_token_is_never_shown() {
        let target = Target::default().with_token("s3cret").unwrap();
        assert!(!format!("{target:?}").contains("s3cret"));
    }
}
