//! What is asked of a client before its request is looked at: that no uninvited [web page](super::browsers) sent it, and that
//! its address is not one that [guesses](super::guesses) keys.
//!
//! # What it does not do
//! It knows neither keys nor routes: whether a key was wrong it reads off the reply.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response};
use tower::{Layer, Service};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, AllowPrivateNetwork, CorsLayer, ExposeHeaders};

use super::browsers::{Hosts, page};
use super::config::Config;
use super::guesses::Guesses;
use crate::Error;
use crate::endpoint::ErrorForm;
use crate::headers::{API_KEY, CF_AIG_AUTHORIZATION, X_API_KEY};
use crate::layers::identify::ReplyBody;
use crate::peer::Peer;

/// What all workers' clients have in common.
#[derive(Debug)]
pub(super) struct Terms {
    origins: Vec<HeaderValue>,
    /// `None` where clients may call by any name.
    hosts: Option<Hosts>,
    /// Where there are keys to be guessed.
    guesses: Option<Arc<Guesses>>,
    /// For pages that are invited.
    cors: CorsLayer,
    complaints: Arc<DefaultDirectRateLimiter>,
}

/// The clients' way in to a service.
#[derive(Clone)]
pub(super) struct Entrance<S> {
    inner: S,
    terms: Arc<Terms>,
}

/// A reply, or that it was refused at once.
pub(super) enum Answer<F> {
    Refused(Option<Response<ReplyBody>>),
    Asked(F, Option<Shown>),
    Invited(Pin<Box<dyn Future<Output = Result<Response<ReplyBody>, Infallible>> + Send>>),
}

/// A key that is judged by the reply.
pub(super) struct Shown {
    digest: u64,
    terms: Arc<Terms>,
    from: IpAddr,
}

/// Wrong keys that are looked at, a minute and address: many clients of one program may have an old one.
const GUESSES_A_MINUTE: NonZeroU32 = NonZeroU32::new(60).unwrap();
/// How often the log is told of pages.
const COMPLAINTS: Quota = Quota::per_minute(NonZeroU32::MIN);
/// How long a browser may keep in mind what a page may do.
const MAX_AGE: Duration = Duration::from_secs(600);
/// What an invited page's script may read besides what all may.
const EXPOSED: [&str; 15] = [
    "cf-aig-cache-status",
    "cf-aig-log-id",
    "cf-aig-step",
    "cf-ai-neurons",
    "cf-ai-req-id",
    "cf-ray",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "x-should-retry",
    "x-tollgate-budget-remaining",
    "x-tollgate-budget-reset",
    "x-tollgate-cache-tier",
    "x-tollgate-cost-usd",
    "x-tollgate-neurons",
];

// === impl Terms ===

impl Terms {
    /// Where keys are asked for, guesses are slowed: those who were held back `before` still are.
    pub(super) fn new(config: &Config, asks_for_keys: bool, before: Option<&Self>) -> Self {
        let hosts = Hosts::new(&config.allowed_hosts);
        let origins: Vec<_> = config.cors.origins.iter().filter_map(|origin| origin.header()).collect();
        let asks_for_hosts = config.listen.ip().is_loopback() || !hosts.is_empty();
        Self {
            cors: cors(&origins),
            origins,
            hosts: asks_for_hosts.then_some(hosts),
            guesses: asks_for_keys.then(|| {
                let known = before.and_then(|before| before.guesses.clone());
                known.unwrap_or_else(|| Arc::new(Guesses::new(GUESSES_A_MINUTE)))
            }),
            complaints: before
                .map_or_else(|| Arc::new(RateLimiter::direct(COMPLAINTS)), |before| before.complaints.clone()),
        }
    }

    /// Why nobody looks at this request. `Ok(true)` where an invited page sent it.
    fn admit<B>(&self, request: &Request<B>) -> Result<bool, Error> {
        let headers = request.headers();
        if let Some(host) = self.hosts.as_ref().and_then(|hosts| hosts.strange(request)) {
            return Err(self.refuse(format!(
                "the gate does not go by the name {host:?}: call it as localhost or by its loopback address, or add the name \
                 to allowed_hosts in its config"
            )));
        }
        if self.invites(headers) {
            return Ok(true);
        }
        match page(headers) {
            None => Ok(false),
            Some(page) => Err(self.refuse(format!(
                "a web page sent this request ({page}), and it is not invited: add its origin to [cors] origins in the \
                 gate's config if it should be"
            ))),
        }
    }

    fn invites(&self, headers: &HeaderMap) -> bool {
        let mut sent = headers.get_all(header::ORIGIN).iter();
        match (sent.next(), sent.next()) {
            (Some(origin), None) => self.origins.contains(origin),
            _ => false,
        }
    }

    fn refuse(&self, why: String) -> Error {
        if self.complaints.check().is_ok() {
            tracing::warn!(why, "a request was refused at the entrance");
        }
        Error::Forbidden(why)
    }
}

/// Answers preflights, which come without a key, and tells browsers that these pages may read.
fn cors(origins: &[HeaderValue]) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins.iter().cloned()))
        .allow_methods(AllowMethods::list([Method::GET, Method::POST]))
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(ExposeHeaders::list(EXPOSED.map(HeaderName::from_static)))
        .allow_private_network(AllowPrivateNetwork::yes())
        .max_age(MAX_AGE)
}

/// Where a request may have a key.
const KEYS: [HeaderName; 5] =
    [header::AUTHORIZATION, CF_AIG_AUTHORIZATION, X_API_KEY, API_KEY, header::SEC_WEBSOCKET_PROTOCOL];

// === impl Entrance ===

impl<S> Entrance<S> {
    pub(super) fn new(inner: S, terms: Arc<Terms>) -> Self {
        Self { inner, terms }
    }

    /// What of the request may be a key, if one is asked for; an error where nothing new from there is looked at.
    fn shown<B>(&self, request: &Request<B>) -> Result<Option<Shown>, Error> {
        let Some(guesses) = &self.terms.guesses else { return Ok(None) };
        let headers = request.headers();
        let sent = KEYS.each_ref().map(|name| headers.get(name).map(HeaderValue::as_bytes));
        if sent.iter().all(Option::is_none) {
            return Ok(None);
        }
        let digest = guesses.digest(sent);
        let from = request.extensions().get().map_or(Ipv4Addr::UNSPECIFIED.into(), |Peer(peer)| peer.ip());
        if let Some(retry_after) = guesses.hold(from, digest) {
            let what = "too many wrong keys came from this address, so no new one is looked at".to_owned();
            return Err(Error::RateLimited { what, retry_after, limit: None });
        }
        Ok(Some(Shown { digest, terms: self.terms.clone(), from }))
    }
}

impl<S, B> Service<Request<B>> for Entrance<S>
where
    S: Service<Request<B>, Response = Response<ReplyBody>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + Unpin + 'static,
{
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let admitted = self.terms.admit(&request).and_then(|is_invited| Ok((is_invited, self.shown(&request)?)));
        match admitted {
            Err(error) => {
                let form = ErrorForm::of_path(request.uri().path());
                Answer::Refused(Some(error.response(form).map(ReplyBody::unmetered)))
            }
            Ok((false, shown)) => Answer::Asked(self.inner.call(request), shown),
            Ok((true, shown)) => {
                let reply = self.terms.cors.layer(self.inner.clone()).call(request);
                Answer::Invited(Box::pin(async move {
                    let reply = reply.await;
                    if let (Some(shown), Ok(reply)) = (shown, &reply) {
                        shown.judge(reply);
                    }
                    reply
                }))
            }
        }
    }
}

// === impl Answer, Shown ===

impl<F> Future for Answer<F>
where
    F: Future<Output = Result<Response<ReplyBody>, Infallible>> + Unpin,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Refused(reply) => Poll::Ready(Ok(reply.take().unwrap_or_default())),
            Self::Invited(reply) => reply.as_mut().poll(cx),
            Self::Asked(reply, shown) => {
                let reply = ready!(Pin::new(reply).poll(cx));
                if let (Some(shown), Ok(reply)) = (shown.take(), &reply) {
                    shown.judge(reply);
                }
                Poll::Ready(reply)
            }
        }
    }
}

impl Shown {
    fn judge(self, reply: &Response<ReplyBody>) {
        let Some(guesses) = &self.terms.guesses else { return };
        if matches!(reply.extensions().get(), Some(Error::Unauthorized(_))) {
            guesses.wrong(self.from);
        } else {
            guesses.right(self.from, self.digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(text: &str) -> Terms {
        Terms::new(&Config::parse(text, "t").unwrap(), false, None)
    }

    fn admitted(terms: &Terms, pairs: &[(&str, &str)]) -> Option<bool> {
        let mut request = Request::post("/v1/chat/completions");
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        terms.admit(&request.body(()).unwrap()).ok()
    }

    #[test]
    fn a_page_is_no_client_unless_it_is_invited() {
        let terms = terms("[cors]\norigins = [\"https://app.example\"]");
        let here = ("host", "localhost:8787");
        for (pairs, is) in [
            (&[here][..], Some(false)),
            (&[here, ("sec-fetch-site", "none")], Some(false)),
            (&[here, ("sec-fetch-site", "cross-site")], None),
            (&[here, ("origin", "https://evil.example")], None),
            (&[here, ("origin", "null")], None),
            (&[here, ("origin", "https://app.example"), ("sec-fetch-site", "cross-site")], Some(true)),
            (&[here, ("origin", "https://app.example"), ("origin", "https://evil.example")], None),
            (&[("host", "evil.example"), ("origin", "https://app.example")], None),
            (&[("host", "evil.example")], None),
            (&[], Some(false)),
        ] {
            assert_eq!(admitted(&terms, pairs), is, "{pairs:?}");
        }
    }

    #[test]
    fn beyond_loopback_any_name_will_do_until_some_are_listed() {
        let name = [("host", "gate.cluster.local:8787")];
        assert_eq!(admitted(&terms("listen = \"0.0.0.0:1\""), &name), Some(false));
        let listed = terms("listen = \"0.0.0.0:1\"\nallowed_hosts = [\"gate.cluster.local\"]");
        assert_eq!(admitted(&listed, &name), Some(false));
        assert_eq!(admitted(&listed, &[("host", "evil.example")]), None);
    }
}
