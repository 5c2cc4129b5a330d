//! One connection, from its first byte to its end, within its limits.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower::Service;

use super::activity::{Activity, InCall, Limits, Phase, Version};
use super::room::ConnectionSlot;
use super::socket::Socket;
use super::stopping::Stopping;
use super::stream::{Served, Streams};
use super::transport::Transport;
use super::upload::Upload;
use crate::peer::{Certified, Peer};
use crate::sidecar::tls::{Acceptor, name_of};
use crate::socket::{Connected, Connection};

/// A connection of either version, which can be told to end.
trait Ending: Future<Output = hyper::Result<()>> {
    /// The client can be told that nothing more is taken by the end alone, and what it sends at that moment is lost. So it ends
    /// when the client asks for nothing.
    const IS_ABRUPT: bool;

    fn begin_to_end(self: Pin<&mut Self>);
}

/// Keeps a connection's place for as long as the WebSocket is open that it became.
struct Kept {
    _place: Arc<ConnectionSlot>,
    /// The connection is in a call, and makes no room for others.
    _call: InCall,
    _open: TaskTrackerToken,
    closing: CancellationToken,
}

/// How connections are served.
#[derive(Clone)]
pub(super) struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<Streams>,
    limits: Limits,
    tls: Option<Acceptor>,
}

/// Where a connection came from, and whether its requests are told.
pub(super) struct PeerInfo {
    pub(super) peer: Peer,
    pub(super) is_asked_for: Arc<AtomicBool>,
}

pin_project! {
    /// Drives a connection within its limits. Where it has to end it is told so first, and dropped if it does not.
    struct Driven<'a, C> {
        #[pin]
        connection: C,
        #[pin]
        timer: Sleep,
        #[pin]
        stopping: WaitForCancellationFuture<'a>,
        activity: &'a Activity,
        limits: Limits,
        is_told: bool,
        // It ends as soon as its client does not seem to ask again.
        ends_when_idle: bool,
        has_looked: bool,
        // When it has to be gone, once it has been idle for too long.
        leaves_at: Option<Instant>,
    }
}

/// More header lines, or a longer head, is no request but an attack; hyper answers 431.
const MAX_HEADERS: usize = 100;
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Calls at once on one connection.
const MAX_STREAMS: u32 = 128;
/// What a client may send before we read it, in bytes: on one stream, and on a connection.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
/// What a stream's reply may fill before the client takes it, in bytes.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// An HTTP/2 client that does not answer a ping is gone.
const PING_EVERY: Duration = Duration::from_secs(30);
/// For the last words of a connection that is told to end.
const LEAVING: Duration = Duration::from_secs(5);
/// A client that asked as short a while ago is likely to ask once more; it is answered, with `connection: close`.
const LAST_ORDERS: Duration = Duration::from_secs(1);
/// Within which the runtime tells of what is there.
const BEFORE_THE_NEXT_LOOK: Duration = Duration::from_millis(10);
/// A client that connects and says nothing is waited for, at the end; where it was slow to begin, it is answered.
const LAST_ARRIVALS: Duration = Duration::from_secs(5);
const CLOSE: HeaderValue = HeaderValue::from_static("close");

// === impl Protocols ===

impl Protocols {
    pub(super) fn new(limits: Limits, tls: Option<Acceptor>) -> Self {
        let mut http1 = http1::Builder::new();
        // Heads are timed by `Limited`, together with all else.
        http1.header_read_timeout(None).max_headers(MAX_HEADERS).max_buf_size(MAX_HEAD_BYTES);
        let mut http2 = http2::Builder::new(Streams(limits));
        http2
            .timer(TokioTimer::new())
            .max_header_list_size(MAX_HEAD_BYTES as u32)
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .keep_alive_interval(Some(PING_EVERY))
            .enable_connect_protocol();
        Self { http1, http2, limits, tls }
    }

    /// Serves a connection to its end. Each request is told its peer, where somebody asks for it by then.
    pub(super) async fn serve<S, B>(
        &self,
        stream: TcpStream,
        told: PeerInfo,
        place: Arc<ConnectionSlot>,
        service: S,
        stopping: &Stopping,
    ) where
        S: Service<Request<Upload>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let activity = place.activity.clone();
        let Some((socket, version, certified)) = self.open(stream, &activity, &stopping.stop).await else { return };
        let (called, linger, stop) = (activity.clone(), self.limits.linger, &stopping.stop);
        let is_over = stopping.is_over.clone();
        let stopping = stopping.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            if told.is_asked_for.load(Ordering::Relaxed) {
                request.extensions_mut().insert(told.peer);
            }
            if let Some(certified) = &certified {
                request.extensions_mut().insert(certified.clone());
            }
            let (mut head, body) = request.into_parts();
            // A call has a body as a rule, and most that have none are no sockets.
            if matches!(head.method, Method::GET | Method::CONNECT) && crate::socket::is_upgrade(&head) {
                head.extensions.insert(Connected(Arc::new(Kept::new(&place, &stopping))));
            }
            let body = Upload::new(body, &head.headers, linger);
            let (call, reply) = (called.begin_call(), service.clone().call(Request::from_parts(head, body)));
            let is_over = is_over.clone();
            async move {
                reply.await.map(|mut reply| {
                    if version == Version::Http1 && is_over.load(Ordering::Relaxed) {
                        say_close(&mut reply);
                    }
                    reply.map(|body| Served::new(body, call))
                })
            }
        });
        let io = TokioIo::new(socket);
        match version {
            // Boxed, for a silent connection should not take the room that the larger of the two needs.
            Version::Http1 => {
                Box::pin(self.drive(self.http1.serve_connection(io, service).with_upgrades(), &activity, stop)).await
            }
            Version::Http2 => Box::pin(self.drive(self.http2.serve_connection(io, service), &activity, stop)).await,
        }
    }

    /// The TLS handshake, where there is one, and as much of the connection as tells its version; within the limit for that.
    async fn open(
        &self,
        stream: TcpStream,
        activity: &Arc<Activity>,
        stop: &CancellationToken,
    ) -> Option<(Socket, Version, Option<Certified>)> {
        // Who is silent is not waited for at the end, but in a handshake there is always something to be said.
        let silent = async {
            stop.cancelled().await;
            tokio::time::sleep_until(activity.phase().1 + LAST_ARRIVALS).await;
        };
        let opening = async {
            let (transport, certified) = match &self.tls {
                None => (Transport::Plain { stream }, None),
                Some(tls) => secure(tls, stream).await?,
            };
            let opened = Socket::open(transport, activity.clone(), self.limits.send).await?;
            std::io::Result::Ok(opened.map(|(socket, version)| (socket, version, certified)))
        };
        let opening = tokio::time::timeout_at(activity.deadline(&self.limits).1, opening);
        let evicted = std::future::poll_fn(|cx| activity.poll_evicted(cx));
        tokio::select! {
            opened = opening => opened.ok()?.ok()?,
            () = evicted => None,
            () = silent, if self.tls.is_none() => None,
        }
    }

    fn drive<'a, C>(&self, connection: C, activity: &'a Activity, stop: &'a CancellationToken) -> Driven<'a, C>
    where
        C: Ending,
    {
        Driven {
            connection,
            timer: tokio::time::sleep_until(activity.deadline(&self.limits).1),
            stopping: stop.cancelled(),
            activity,
            limits: self.limits,
            is_told: false,
            ends_when_idle: false,
            has_looked: false,
            leaves_at: None,
        }
    }
}

/// Has the client use another connection for its next request.
fn say_close<B>(reply: &mut Response<B>) {
    // An upgrade's own value is what makes it one.
    if reply.status() != StatusCode::SWITCHING_PROTOCOLS {
        reply.headers_mut().insert(header::CONNECTION, CLOSE);
    }
}

async fn secure(tls: &Acceptor, stream: TcpStream) -> std::io::Result<(Transport, Option<Certified>)> {
    let stream =
        Box::pin(tls.accept(stream)).await.inspect_err(|error| tracing::debug!(%error, "a TLS handshake failed"))?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| name_of(chain.first()?));
    Ok((Transport::Tls { stream: Box::new(stream) }, shown.map(Certified)))
}

// === impl Ending, Kept ===

impl<I, B, S> Ending for http1::UpgradeableConnection<I, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    const IS_ABRUPT: bool = true;

    fn begin_to_end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, B, S, E> Ending for http2::Connection<I, S, E>
where
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    const IS_ABRUPT: bool = false;

    fn begin_to_end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl Kept {
    fn new(place: &Arc<ConnectionSlot>, stopping: &Stopping) -> Self {
        Self {
            _place: place.clone(),
            _call: place.activity.begin_call(),
            _open: stopping.connections.token(),
            closing: stopping.last_call.clone(),
        }
    }
}

impl Connection for Kept {
    fn closing(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.closing.clone().cancelled_owned())
    }
}

// === impl Driven ===

impl<C> Future for Driven<'_, C>
where
    C: Ending,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let is_evicted = this.activity.poll_evicted(cx).is_ready();
        if is_evicted {
            *this.is_told = true;
            this.connection.as_mut().begin_to_end();
        } else if !*this.is_told && this.stopping.poll(cx).is_ready() {
            *this.is_told = true;
            match C::IS_ABRUPT {
                true => *this.ends_when_idle = true,
                false => this.connection.as_mut().begin_to_end(),
            }
        }
        loop {
            if let Poll::Ready(ended) = this.connection.as_mut().poll(cx) {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended badly");
                }
                return Poll::Ready(());
            }
            if is_evicted {
                return Poll::Ready(());
            }
            let (phase, limit) = this.activity.deadline(this.limits);
            let deadline = this.leaves_at.filter(|_| phase != Phase::Calls).unwrap_or(limit);
            let is_ending = *this.ends_when_idle && phase == Phase::Idle;
            *this.has_looked &= is_ending;
            let last_orders = is_ending.then(|| this.activity.phase().1 + LAST_ORDERS);
            let deadline = last_orders.map_or(deadline, |at| at.min(deadline));
            // A limit that lies later than the one before is looked at when the timer goes off.
            if deadline < this.timer.deadline() {
                this.timer.as_mut().reset(deadline);
            }
            ready!(this.timer.as_mut().poll(cx));
            let now = Instant::now();
            if now < deadline {
                this.timer.as_mut().reset(deadline);
                continue;
            }
            if phase != Phase::Idle || this.leaves_at.is_some() {
                tracing::debug!(?phase, "a connection was closed at its limit ([timeouts])");
                return Poll::Ready(());
            }
            if *this.ends_when_idle {
                // What has come in meanwhile would be lost.
                if !std::mem::replace(this.has_looked, true) {
                    this.activity.look();
                    continue;
                }
                if this.activity.found_more() {
                    *this.has_looked = false;
                    this.timer.as_mut().reset(now + BEFORE_THE_NEXT_LOOK);
                    ready!(this.timer.as_mut().poll(cx));
                }
                *this.ends_when_idle = false;
            }
            *this.leaves_at = Some(now + LEAVING);
            this.connection.as_mut().begin_to_end();
            this.timer.as_mut().reset(now + LEAVING);
        }
    }
}
