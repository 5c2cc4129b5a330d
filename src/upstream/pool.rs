//! The sidecar's own connections: a set a worker, shared with no other.
//!
//! A worker is one thread with one runtime, so a connection is driven on the thread that uses it and a call crosses none. Calls
//! go over connections that they drive themselves (`http1`); what is to become a WebSocket has a connection of its own, by hyper.
//! Measured against reqwest's pool in the same run, see `benches/`.
//!
//! # What it does not do
//! It speaks no HTTP/2 and asks no DNS twice in a connection's life.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Uri};
use http_body::Body as _;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tower::{Service, ServiceExt};

use super::causes::causes;
use super::http1::{Broken, Connection, Incoming, Transport};
use super::road::{Proxied, Road};
use crate::Error;
use crate::body::{Body, BoxError};
use crate::departure::Departure;
use crate::layers::{Reply, ReplyFuture};
use crate::socket::Held;

/// Connections to one upstream. Cloning shares them.
#[derive(Clone)]
pub struct Pool {
    road: Arc<Road>,
    connect_timeout: Duration,
    idle: IdleSet,
    /// Connections that may still be made.
    room: Arc<Semaphore>,
}

/// Connections that wait for a call. Cloning shares them.
#[derive(Clone, Default)]
struct IdleSet(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    /// The one used last at the end.
    connections: Mutex<VecDeque<Idle>>,
    /// One has come back, for a call that waits for a place.
    returned: Notify,
    /// A task looks after them.
    is_swept: AtomicBool,
}

/// What a call goes out by that had to wait.
enum Found {
    Idle(Connection),
    Place(OwnedSemaphorePermit),
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// A reply's body, which has its connection until it has been read to the end. Dropped before that, it takes the
/// connection with it.
struct PooledBody {
    /// `None` after the end.
    incoming: Option<Box<Incoming>>,
    idle: IdleSet,
}

/// A connection that lay idle longer may be dead on the other side.
const MAX_IDLE_TIME: Duration = Duration::from_secs(50);
/// More than this lie idle only after a burst.
const MAX_IDLE: usize = 256;
/// How often idle connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(15);

impl Pool {
    /// No connection is made before it is needed.
    pub fn new(connect_timeout: Duration) -> Self {
        let room = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        Self { road: Arc::default(), connect_timeout, idle: IdleSet::default(), room }
    }

    /// By this way.
    pub fn with_road(mut self, road: Road) -> Self {
        self.road = Arc::new(road);
        self
    }

    /// So many connections at once. A call that needs one more waits for it as long as for a connection.
    pub fn with_max_connections(mut self, max: usize) -> Self {
        self.room = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
        self
    }

    /// A connection, made where none lies idle.
    async fn connection(&self, uri: &Uri) -> Result<Connection, Error> {
        if let Some(connection) = self.idle.take() {
            return Ok(connection);
        }
        let place = match self.find().await? {
            Found::Idle(connection) => return Ok(connection),
            Found::Place(place) => place,
        };
        Ok(Connection::new(self.connect(uri).await?, place))
    }

    /// What comes first within the time for it: a place for another connection, or one that is free again.
    async fn find(&self) -> Result<Found, Error> {
        match self.room.clone().try_acquire_owned() {
            Ok(place) => Ok(Found::Place(place)),
            Err(_) => {
                let found = tokio::time::timeout(self.connect_timeout, self.wait()).await;
                found.map_err(|_| full(self.connect_timeout))
            }
        }
    }

    async fn wait(&self) -> Found {
        loop {
            if let Some(connection) = self.idle.take() {
                return Found::Idle(connection);
            }
            tokio::select! {
                Ok(place) = self.room.clone().acquire_owned() => return Found::Place(place),
                () = self.idle.0.returned.notified() => {}
            }
        }
    }

    async fn connect(&self, uri: &Uri) -> Result<Box<dyn Transport>, Error> {
        match self.road.proxied(uri) {
            None => self.open(uri, self.road.straight().oneshot(uri.clone())).await,
            Some(Proxied::Tunnel(tunnel)) => self.open(uri, tunnel.oneshot(uri.clone())).await,
            Some(Proxied::Socks(socks)) => self.open(uri, socks.oneshot(uri.clone())).await,
        }
    }

    async fn open<T>(
        &self,
        uri: &Uri,
        connecting: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<Box<dyn Transport>, Error>
    where
        T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let unreachable = |why: String| Error::Unreachable { host: host(uri), why, was_sent: false };
        match tokio::time::timeout(self.connect_timeout, connecting).await {
            Ok(Ok(stream)) => Ok(Box::new(TokioIo::new(stream))),
            Ok(Err(error)) => Err(unreachable(causes(&*error))),
            Err(_) => Err(unreachable(format!("no connection within {:?}", self.connect_timeout))),
        }
    }

    /// A connection of its own for what is to become a WebSocket. Its place is taken for as long as that is open.
    async fn upgrade(self, mut request: Request<Body>) -> Result<Reply, Error> {
        let uri = request.uri().clone();
        name_host(&mut request);
        let place = match self.find().await? {
            Found::Idle(connection) => connection.into_place(),
            Found::Place(place) => place,
        };
        let transport = self.connect(&uri).await?;
        let (place, broken) = (Arc::new(place), |error| broken(&uri, &error, None));
        let (mut sender, connection) = handshake(TokioIo::new(transport)).await.map_err(broken)?;
        let taken = place.clone();
        tokio::spawn(async move {
            // How a connection ends is told by the call that was on it.
            let _ = connection.with_upgrades().await;
            drop(taken);
        });
        let mut reply = sender.send_request(request).await.map_err(broken)?;
        reply.extensions_mut().insert(Held(place));
        Ok(reply.map(Body::stream))
    }

    async fn send(self, request: Request<Body>) -> Result<Reply, Error> {
        let departure = request.body().departure().cloned();
        let uri = request.uri().clone();
        let connection = self.connection(&uri).await?;
        request.body().note_handed_over();
        match connection.send(request).await {
            Ok(reply) => Ok(reply.map(|incoming| PooledBody::new(incoming, self.idle).into())),
            Err(error) => Err(broken(&uri, &error, departure.as_ref())),
        }
    }
}

// === impl IdleSet ===

impl IdleSet {
    /// The connection used last is the likeliest to be alive.
    fn take(&self) -> Option<Connection> {
        let mut connections = self.0.connections.lock();
        while let Some(mut last) = connections.pop_back() {
            if last.is_good() {
                return Some(last.connection);
            }
        }
        None
    }

    fn put_back(&self, connection: Connection) {
        {
            let mut connections = self.0.connections.lock();
            connections.push_back(Idle { connection, since: Instant::now() });
            if connections.len() > MAX_IDLE {
                connections.pop_front();
            }
        }
        self.0.returned.notify_one();
        if !self.0.is_swept.swap(true, Ordering::AcqRel) {
            tokio::spawn(sweep(Arc::downgrade(&self.0)));
        }
    }
}

impl Idle {
    fn is_good(&mut self) -> bool {
        self.since.elapsed() < MAX_IDLE_TIME && self.connection.is_open()
    }
}

/// Lets go of connections that lay idle for too long or that upstream has closed, as long as there are any: nobody polls them.
async fn sweep(idle: Weak<Waiting>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(idle) = idle.upgrade() else { return };
        let mut connections = idle.connections.lock();
        connections.retain_mut(Idle::is_good);
        if connections.is_empty() {
            idle.is_swept.store(false, Ordering::Release);
            return;
        }
    }
}

// === impl PooledBody ===

impl PooledBody {
    fn new(incoming: Incoming, idle: IdleSet) -> Self {
        let mut body = Self { incoming: Some(Box::new(incoming)), idle };
        body.give_back_when_over();
        body
    }

    /// The connection is free again when its reply has been read.
    fn give_back_when_over(&mut self) {
        if self.is_end_stream()
            && let Some(connection) = self.incoming.take().and_then(|incoming| incoming.into_reusable())
        {
            self.idle.put_back(connection);
        }
    }
}

impl From<PooledBody> for Body {
    fn from(body: PooledBody) -> Self {
        if body.is_end_stream() { Self::empty() } else { Self::stream(body) }
    }
}

impl http_body::Body for PooledBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Broken>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let polled = ready!(incoming.poll_frame(cx));
        match &polled {
            Some(Err(_)) => self.incoming = None,
            _ => self.give_back_when_over(),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(|incoming| incoming.is_over())
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.incoming.as_ref().map_or_else(|| http_body::SizeHint::with_exact(0), |incoming| incoming.size_hint())
    }
}

/// HTTP/1.1 names the host in a header and only the path in its first line.
fn name_host(request: &mut Request<Body>) {
    let uri = request.uri();
    if let Some(host) = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()) {
        request.headers_mut().insert(header::HOST, host);
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
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

fn broken(uri: &Uri, error: &dyn std::error::Error, departure: Option<&Departure>) -> Error {
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
        write!(f, "Pool({} idle)", self.idle.0.connections.lock().len())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::net::TcpListener;

    use super::*;

    async fn connection() -> (Connection, DuplexStream) {
        let (near, far) = duplex(1000);
        let place = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        (Connection::new(Box::new(near), place), far)
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_used_last_is_taken_and_none_that_is_closed_or_has_said_something_or_lay_idle_for_long() {
        let idle = IdleSet::default();
        let mut others = Vec::new();
        for _ in 0..4 {
            let (connection, far) = connection().await;
            idle.put_back(connection);
            others.push(far);
        }
        others.pop();
        others[2].write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
        let taken = idle.take().unwrap();
        assert_eq!(idle.0.connections.lock().len(), 1, "the closed one and the one that spoke are gone");
        idle.put_back(taken);
        tokio::time::advance(MAX_IDLE_TIME).await;
        assert!(idle.take().is_none());
        assert_eq!(idle.0.connections.lock().len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_upstream_closes_is_let_go_of_although_nobody_calls() {
        let idle = IdleSet::default();
        let ((first, closed), (second, _open)) = (connection().await, connection().await);
        idle.put_back(first);
        idle.put_back(second);
        drop(closed);
        tokio::time::sleep(SWEEP_EVERY + Duration::from_secs(1)).await;
        assert_eq!(idle.0.connections.lock().len(), 1);
        tokio::time::sleep(MAX_IDLE_TIME + SWEEP_EVERY).await;
        assert!(idle.0.connections.lock().is_empty() && !idle.0.is_swept.load(Ordering::Acquire));
        let (third, _open) = connection().await;
        idle.put_back(third);
        assert!(idle.0.is_swept.load(Ordering::Acquire), "the next one is looked after again");
    }

    #[tokio::test]
    async fn no_more_lie_idle_than_may() {
        let idle = IdleSet::default();
        let mut others = Vec::new();
        for _ in 0..MAX_IDLE + 10 {
            let (connection, far) = connection().await;
            idle.put_back(connection);
            others.push(far);
        }
        assert_eq!(idle.0.connections.lock().len(), MAX_IDLE);
    }

    /// Answers so many requests on each connection, and closes it then; how many connections there were.
    async fn upstream(requests_each: usize) -> (String, Arc<Mutex<usize>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (base, connections) = (format!("http://{}", listener.local_addr().unwrap()), Arc::new(Mutex::new(0)));
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                *counted.lock() += 1;
                tokio::spawn(async move {
                    for _ in 0..requests_each {
                        let mut read = Vec::new();
                        while !read.ends_with(b"{}") {
                            if stream.read_buf(&mut read).await.unwrap() == 0 {
                                return;
                            }
                        }
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                    }
                });
            }
        });
        (base, connections)
    }

    async fn ask(pool: &mut Pool, base: &str) -> Result<Bytes, Error> {
        let request = Request::post(base).body(Body::from("{}")).unwrap();
        Ok(pool.call(request).await?.into_body().collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn calls_share_a_connection_one_after_the_other_and_go_on_by_another_where_it_was_closed() {
        for (requests_each, expected) in [(100, 1), (1, 6), (3, 2)] {
            let (base, connections) = upstream(requests_each).await;
            let mut pool = Pool::new(Duration::from_secs(5));
            for _ in 0..6 {
                assert_eq!(ask(&mut pool, &base).await.unwrap(), "ok");
                // Long enough for the other side's end to be here.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(*connections.lock(), expected, "{requests_each} requests a connection");
        }
    }

    #[tokio::test]
    async fn no_more_connections_stand_than_may_and_one_more_is_refused_with_why() {
        let (base, _) = upstream(100).await;
        let mut pool = Pool::new(Duration::from_millis(50)).with_max_connections(1);
        let request = Request::post(&base).body(Body::from("{}")).unwrap();
        let unread = pool.call(request).await.unwrap();
        let refused = ask(&mut pool, &base).await.unwrap_err();
        assert!(refused.to_string().contains("ulimit -n"), "{refused}");
        drop(unread);
        assert_eq!(ask(&mut pool, &base).await.unwrap(), "ok");
    }

    #[tokio::test]
    async fn an_idle_connection_gives_its_place_to_one_that_is_to_become_a_socket() {
        let (base, connections) = upstream(100).await;
        let mut pool = Pool::new(Duration::from_secs(30)).with_max_connections(1);
        assert_eq!(ask(&mut pool, &base).await.unwrap(), "ok");
        let request = Request::get(&base).header("upgrade", "websocket").body(Body::from("{}")).unwrap();
        assert_eq!(pool.call(request).await.unwrap().status(), 200);
        assert_eq!(*connections.lock(), 2);
    }

    #[tokio::test]
    async fn who_waits_for_a_place_goes_on_by_the_connection_that_is_free_first() {
        let (base, connections) = upstream(100).await;
        let mut pool = Pool::new(Duration::from_secs(30)).with_max_connections(1);
        let request = Request::post(&base).body(Body::from("{}")).unwrap();
        let unread = pool.call(request).await.unwrap();
        let (mut other, other_base) = (pool.clone(), base.clone());
        let waits = tokio::spawn(async move { ask(&mut other, &other_base).await });
        tokio::task::yield_now().await;
        assert_eq!(unread.into_body().collect().await.unwrap().to_bytes(), "ok");
        assert_eq!(waits.await.unwrap().unwrap(), "ok");
        assert_eq!(*connections.lock(), 1);
    }
}
