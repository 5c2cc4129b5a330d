//! Any tower service of HTTP requests as the client of the layers.
//!
//! Whatever sends HTTP will do, in whatever version: a hyper client, a reqwest client of your own (`Around::reqwest`), a service in a test, with
//! layers of tower-http around it or none.
//!
//! ```
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tollgate::body::Body;
//! use tollgate::gateway::Gateway;
//! use tollgate::upstream::Around;
//! use tower::{ServiceExt, service_fn};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let vendor = service_fn(|request: Request<Body>| async move {
//!     let path = request.uri().path().to_owned();
//!     Ok::<_, std::io::Error>(Response::new(Full::<bytes::Bytes>::from(path)))
//! });
//! let gate = Gateway::builder().account("023e").token("t").build_around(Around::new(vendor)).unwrap();
//! let request = Request::post("/run/@cf/meta/llama-3.2-1b-instruct").body(Body::from("{}")).unwrap();
//! assert_eq!(gate.oneshot(request).await.unwrap().status(), 200);
//! # });
//! ```
//!
//! # What it does not do
//! It cannot know of every error whether the request had gone out. It believes so where the service has read the request's
//! body, and a call that may have run is charged what was reserved for it, unless the error or one of its causes says that no
//! connection stood. A service that reads the body before it has a connection makes calls cost that never left.

use std::error::Error as StdError;
use std::io::{self, ErrorKind};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use tower::Service;

use super::causes::{OWN_TIMEOUT, causes};
#[cfg(feature = "reqwest")]
use super::client::Client;
use crate::Error;
use crate::body::{Body, BoxError};
use crate::layers::{Reply, ReplyFuture};

/// A service of HTTP requests, as [`Upstream`](super::Upstream) wants it: see the [module](self).
#[derive(Clone, Debug)]
pub struct Around<S>(S);

impl<S> Around<S> {
    /// Let the service not follow redirects, and not decode bodies: replies are handed on as they are.
    pub fn new(service: S) -> Self {
        Self(service)
    }
}

#[cfg(feature = "reqwest")]
impl Around<Client> {
    /// A reqwest client of your own. Its time-outs are told as such.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use tollgate::gateway::Gateway;
    /// use tollgate::upstream::Around;
    ///
    /// let redirects = reqwest::redirect::Policy::none();
    /// let client = reqwest::Client::builder().read_timeout(Duration::from_secs(60)).redirect(redirects).build()?;
    /// let gate = Gateway::builder().account("023e").token("t").build_around(Around::reqwest(client))?;
    /// # Ok(()) }
    /// ```
    pub fn reqwest(client: reqwest::Client) -> Self {
        Self(Client::of(client))
    }
}

impl<S, B> Service<Request<Body>> for Around<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Reply;
    type Error = Error;
    type Future = ReplyFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready(cx).map_err(|error| failed(String::new(), error.into(), false, Duration::ZERO))
    }

    fn call(&mut self, request: Request<Body>) -> ReplyFuture {
        let host = request.uri().authority().map_or_else(String::new, ToString::to_string);
        request.body().note_handed_over();
        let departure = request.body().departure().cloned();
        let sent_at = Instant::now();
        let reply = self.0.call(request);
        Box::pin(async move {
            match reply.await {
                Ok(reply) => Ok(reply.map(Body::stream)),
                Err(error) => {
                    let error = error.into();
                    let has_left = departure.is_none_or(|departure| departure.may_have_left());
                    let was_sent = has_left && !is_before_sending(&*error);
                    Err(failed(host, error, was_sent, sent_at.elapsed()))
                }
            }
        })
    }
}

fn failed(host: String, error: BoxError, was_sent: bool, after: Duration) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => *ours,
        Err(error) if is_timeout(&*error) => Error::Timeout { after, setting: OWN_TIMEOUT, was_sent },
        Err(error) => Error::Unreachable { host, why: causes(&*error), was_sent },
    }
}

/// The service gave up because it took too long, by the error's own word or by that of one of its causes.
fn is_timeout(error: &(dyn StdError + 'static)) -> bool {
    error.is::<tower::timeout::error::Elapsed>()
        || error.downcast_ref().is_some_and(|error: &io::Error| error.kind() == ErrorKind::TimedOut)
        || of_reqwest(error) == Some(Reqwest::TimedOut)
        || error.source().is_some_and(is_timeout)
}

/// No connection stood, by the error's own word or by that of one of its causes.
fn is_before_sending(error: &(dyn StdError + 'static)) -> bool {
    let of_io = |error: &io::Error| {
        matches!(
            error.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::AddrNotAvailable
        )
    };
    error.downcast_ref().is_some_and(of_io)
        || of_reqwest(error) == Some(Reqwest::NotSent)
        || error.source().is_some_and(is_before_sending)
}

/// What an error of reqwest's is to us.
#[derive(PartialEq)]
enum Reqwest {
    NotSent,
    TimedOut,
}

#[cfg(feature = "reqwest")]
fn of_reqwest(error: &(dyn StdError + 'static)) -> Option<Reqwest> {
    match error.downcast_ref::<reqwest::Error>()? {
        error if error.is_connect() || error.is_builder() => Some(Reqwest::NotSent),
        error => error.is_timeout().then_some(Reqwest::TimedOut),
    }
}

#[cfg(not(feature = "reqwest"))]
fn of_reqwest(_: &(dyn StdError + 'static)) -> Option<Reqwest> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_was_not_sent_however_deep_it_lies() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);
        let refused = Outer(ErrorKind::ConnectionRefused.into());
        assert!(is_before_sending(&refused));
        assert!(!is_before_sending(&Outer(ErrorKind::ConnectionReset.into())));
    }
}
