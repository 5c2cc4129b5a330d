//! The sidecar's own connections: HTTP/1.1 straight on hyper, a set a worker, shared with no other.
//!
//! A worker is one thread with one runtime, so a connection is driven on the thread that uses it and a call crosses none.
//! Measured against reqwest's pool in the same run, see `benches/`.
//!
//! # What it does not do
//! It speaks no HTTP/2 and asks no DNS twice in a connection's life.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Service, ServiceExt};

use super::client::causes;
use super::road::{Proxied, Road};
use crate::Error;
use crate::body::{Body, BoxError};
use crate::departure::Departure;
use crate::layers::{Reply, ReplyFuture};
use crate::socket::Held;

/// Connections to one upstream. Cloning shares them.
#[derive(Clone)]
pub struct Pool {
    road: Road,
    connect_timeout: Duration,
    idle: Arc<Mutex<VecDeque<Idle>>>,
    /// Connections that may still be made.
    room: Arc<Semaphore>,
}

/// A connection that stands, and its place.
struct Connected {
    sender: SendRequest<Body>,
    place: Arc<OwnedSemaphorePermit>,
}

/// What a connection is for.
#[derive(Clone, Copy)]
enum Becomes {
    /// Calls, one after the other.
    Idle,
    Socket,
}

struct Idle {
    sender: SendRequest<Body>,
    since: Instant,
}

/// A reply's body, which has its connection until it has been read to the end. Dropped before that, it takes the
/// connection with it.
struct PooledBody {
    inner: Incoming,
    lent: Option<(Pool, SendRequest<Body>)>,
}

/// A connection that lay idle longer may be dead on the other side.
const MAX_IDLE_TIME: Duration = Duration::from_secs(50);
/// More than this lie idle only after a burst.
const MAX_IDLE: usize = 256;

impl Pool {
    /// No connection is made before it is needed.
    pub fn new(connect_timeout: Duration) -> Self {
        let room = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        Self { road: Road::default(), connect_timeout, idle: Arc::default(), room }
    }

    /// By this way.
    pub fn with_road(mut self, road: Road) -> Self {
        self.road = road;
        self
    }

    /// So many connections at once. A call that needs one more waits for it as long as for a connection.
    pub fn with_max_connections(mut self, max: usize) -> Self {
        self.room = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
        self
    }

    /// The connection used last is the likeliest to be alive. One whose reply was read just now may not be ready yet.
    fn take(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock();
        let ready = idle.iter().rposition(|i| i.sender.is_ready())?;
        let Idle { sender, since } = idle.remove(ready)?;
        if since.elapsed() < MAX_IDLE_TIME {
            return Some(sender);
        }
        // The ones before it have lain idle longer still.
        idle.drain(..ready);
        None
    }

    fn put_back(&self, sender: SendRequest<Body>) {
        let mut idle = self.idle.lock();
        idle.push_back(Idle { sender, since: Instant::now() });
        while idle.len() > MAX_IDLE
            || idle.front().is_some_and(|i| i.sender.is_closed() || i.since.elapsed() > MAX_IDLE_TIME)
        {
            idle.pop_front();
        }
    }

    async fn connect(&self, uri: &Uri, becomes: Becomes) -> Result<Connected, Error> {
        let place = tokio::time::timeout(self.connect_timeout, self.room.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(full(self.connect_timeout)) };
        let place = Arc::new(place);
        match self.road.proxied(uri) {
            None => self.open(uri, self.road.straight().oneshot(uri.clone()), place, becomes).await,
            Some(Proxied::Tunnel(tunnel)) => self.open(uri, tunnel.oneshot(uri.clone()), place, becomes).await,
            Some(Proxied::Socks(socks)) => self.open(uri, socks.oneshot(uri.clone()), place, becomes).await,
        }
    }

    async fn open<T>(
        &self,
        uri: &Uri,
        connecting: impl Future<Output = Result<T, BoxError>>,
        place: Arc<OwnedSemaphorePermit>,
        becomes: Becomes,
    ) -> Result<Connected, Error>
    where
        T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let unreachable = |why: String| Error::Unreachable { host: host(uri), why, was_sent: false };
        let stream = match tokio::time::timeout(self.connect_timeout, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(causes(&*error))),
            Err(_) => return Err(unreachable(format!("no connection within {:?}", self.connect_timeout))),
        };
        let (sender, connection) = http1::handshake(stream).await.map_err(|error| unreachable(causes(&error)))?;
        let taken = place.clone();
        tokio::spawn(async move {
            // How a connection ends is told by the call that was on it.
            let _ = match becomes {
                Becomes::Idle => connection.await,
                Becomes::Socket => connection.with_upgrades().await,
            };
            drop(taken);
        });
        Ok(Connected { sender, place })
    }

    /// A connection of its own for what is to become a WebSocket. Its place is taken for as long as that is open.
    async fn upgrade(self, mut request: Request<Body>) -> Result<Reply, Error> {
        let uri = name_host(&mut request);
        let Connected { mut sender, place } = self.connect(&uri, Becomes::Socket).await?;
        let reply = sender.send_request(request).await;
        let mut reply = reply.map_err(|error| broken(&uri, &error, None))?;
        reply.extensions_mut().insert(Held(place));
        Ok(reply.map(Body::stream))
    }

    async fn send(self, mut request: Request<Body>) -> Result<Reply, Error> {
        let departure = request.body().departure().cloned();
        let uri = name_host(&mut request);
        while let Some(mut sender) = self.take() {
            request.body().note_handed_over();
            match sender.try_send_request(request).await {
                Ok(reply) => return Ok(self.keep(reply, sender)),
                // Closed by the other side just now, before any of it was sent: the next connection, then.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(broken(&uri, &error.into_error(), departure.as_ref())),
                },
            }
        }
        let Connected { mut sender, .. } = self.connect(&uri, Becomes::Idle).await?;
        request.body().note_handed_over();
        match sender.send_request(request).await {
            Ok(reply) => Ok(self.keep(reply, sender)),
            Err(error) => Err(broken(&uri, &error, departure.as_ref())),
        }
    }

    /// The reply; its connection is free again when its body has been read.
    fn keep(self, reply: Response<Incoming>, sender: SendRequest<Body>) -> Reply {
        reply.map(|inner| {
            let mut body = PooledBody { inner, lent: Some((self, sender)) };
            if body.inner.is_end_stream() {
                body.give_back();
                return Body::empty();
            }
            Body::stream(body)
        })
    }
}

// === impl PooledBody ===

impl PooledBody {
    fn give_back(&mut self) {
        if let Some((pool, sender)) = self.lent.take() {
            pool.put_back(sender);
        }
    }
}

impl http_body::Body for PooledBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, hyper::Error>>> {
        let polled = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if polled.is_none() || self.inner.is_end_stream() {
            self.give_back();
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

/// HTTP/1.1 names the host in a header and only the path in its first line. Gives the whole.
fn name_host(request: &mut Request<Body>) -> Uri {
    let uri = request.uri().clone();
    if let Some(host) = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()) {
        request.headers_mut().insert(header::HOST, host);
    }
    *request.uri_mut() = uri.path_and_query().map_or_else(Uri::default, |path| Uri::from(path.clone()));
    uri
}

fn host(uri: &Uri) -> String {
    uri.authority().map_or_else(String::new, ToString::to_string)
}

fn full(waited: Duration) -> Error {
    let what = format!(
        "as many connections to upstream are busy as the limit of open files allows, and none was free within {waited:?} \
         (ulimit -n, LimitNOFILE)"
    );
    Error::Overloaded { what, retry_after: Duration::from_secs(1) }
}

fn broken(uri: &Uri, error: &hyper::Error, departure: Option<&Departure>) -> Error {
    let was_sent = departure.is_none_or(Departure::may_have_left);
    Error::Unreachable { host: host(uri), why: causes(error), was_sent }
}

impl Service<Request<Body>> for Pool {
    type Response = Reply;
    type Error = Error;
    type Future = ReplyFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ReplyFuture {
        if request.method() == Method::GET && request.headers().contains_key(header::UPGRADE) {
            return Box::pin(self.clone().upgrade(request));
        }
        Box::pin(self.clone().send(request))
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} idle)", self.idle.lock().len())
    }
}
