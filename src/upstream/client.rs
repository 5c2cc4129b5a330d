//! reqwest, as the client of the layers: HTTP/1.1 and HTTP/2, TLS by rustls with ring, connections kept. One of your own goes
//! in by [`Around::reqwest`](super::Around::reqwest).
//!
//! Cargo builds one reqwest 0.13 for a whole program, and this crate asks it for rustls without a provider. Where yours has
//! `rustls` or `native-tls`, nothing changes. Where it has no TLS at all, a client of yours panics when it is made, by reqwest's own
//! word, unless a provider is there: `rustls::crypto::ring::default_provider().install_default()`, or reqwest's feature `rustls`.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body_util::BodyExt;
use tower::Service;

use super::causes::{OWN_TIMEOUT, causes};
use super::tls::tls;
use crate::Error;
use crate::body::{Body, BoxError, TooLong};
use crate::layers::{Reply, ReplyFuture};

/// A reqwest client as a tower service. Cloning shares its connections.
#[derive(Clone, Debug)]
pub struct Client {
    client: reqwest::Client,
    /// For WebSockets, which HTTP/1.1 alone opens.
    #[cfg(feature = "sockets")]
    http1: reqwest::Client,
}

/// The system refuses what TLS needs.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot be made: {0}")]
pub struct ClientError(#[source] reqwest::Error);

/// How long until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl Client {
    /// Around a client of your own, with its proxies, time-outs and connections. Let it not follow redirects, and not decode
    /// bodies: replies are handed on as they are.
    ///
    /// For a WebSocket it has to speak HTTP/1.1 with the vendor (`http1_only`).
    pub fn of(client: reqwest::Client) -> Self {
        Self {
            #[cfg(feature = "sockets")]
            http1: client.clone(),
            client,
        }
    }

    /// With rustls and Mozilla's roots. Fails where the system refuses what TLS needs, such as randomness.
    pub fn new() -> Result<Self, ClientError> {
        Self::with_tls(tls())
    }

    /// With TLS as it is set up there.
    pub(crate) fn with_tls(tls: rustls::ClientConfig) -> Result<Self, ClientError> {
        #[cfg(feature = "sockets")]
        let mut http1_tls = tls.clone();
        #[cfg(feature = "sockets")]
        {
            http1_tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        let builder = |tls| {
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls)
                .connect_timeout(CONNECT_TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
        };
        Ok(Self {
            client: builder(tls).build().map_err(ClientError)?,
            #[cfg(feature = "sockets")]
            http1: builder(http1_tls).http1_only().build().map_err(ClientError)?,
        })
    }

    fn client_for(&self, request: &Request<Body>) -> reqwest::Client {
        #[cfg(feature = "sockets")]
        if request.headers().contains_key(http::header::UPGRADE) {
            return self.http1.clone();
        }
        let _ = request;
        self.client.clone()
    }
}

impl Service<Request<Body>> for Client {
    type Response = Reply;
    type Error = Error;
    type Future = ReplyFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ReplyFuture {
        let client = self.client_for(&request);
        let sent_at = Instant::now();
        Box::pin(async move {
            let host = request.uri().authority().map_or_else(String::new, ToString::to_string);
            request.body().note_handed_over();
            let departure = request.body().departure().cloned();
            let request = reqwest::Request::try_from(request.map(sendable));
            let reply = match request {
                Ok(request) => client.execute(request).await,
                Err(error) => Err(error),
            };
            let reply = reply.map_err(|error| {
                // A request that could not be made, for which no connection stood, or that nobody read has not gone out.
                let has_left = departure.is_none_or(|departure| departure.may_have_left());
                let was_sent = has_left && !error.is_connect() && !error.is_builder();
                if error.is_timeout() && !error.is_connect() {
                    return Error::Timeout { after: sent_at.elapsed(), setting: OWN_TIMEOUT, was_sent };
                }
                Error::Unreachable { host, why: causes(&error), was_sent }
            })?;
            Ok(Response::from(reply).map(|body| Body::stream(body.map_err(move |error| broken_off(error, sent_at)))))
        })
    }
}

/// Why a reply's body ended early.
fn broken_off(error: reqwest::Error, sent_at: Instant) -> BoxError {
    if error.is_timeout() {
        return TooLong { what: "all of it", limit: sent_at.elapsed(), setting: OWN_TIMEOUT }.into();
    }
    error.into()
}

fn sendable(body: Body) -> reqwest::Body {
    match body.as_bytes() {
        Some(bytes) => bytes.clone().into(),
        None => reqwest::Body::wrap(body),
    }
}
