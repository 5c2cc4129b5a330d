//! Connections are accepted, or turned away where there is no room.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use governor::{Quota, RateLimiter};
use http::{Request, Response};
use http_body::Body;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::activity::Limits;
use super::connection::{PeerInfo, Protocols};
use super::room::{Addresses, Room};
use super::stopping::Stopping;
use super::upload::Upload;
use crate::peer::Peer;
use crate::sidecar::tls::Acceptor;

/// How a worker serves its connections.
#[derive(Clone, Debug)]
pub(in crate::sidecar) struct Serving {
    /// Open at once, on this worker.
    pub(in crate::sidecar) max_connections: usize,
    /// Open at once for each address, on all workers.
    pub(in crate::sidecar) addresses: Addresses,
    /// How long each thing may take that a client does.
    pub(in crate::sidecar) limits: Limits,
    /// Requests are told where they came from ([`Peer`]); on a busy port nobody asks.
    pub(in crate::sidecar) tells_peer: Arc<AtomicBool>,
    /// For what still runs when it stops.
    pub(in crate::sidecar) shutdown_timeout: Duration,
    /// Connections are TLS.
    pub(in crate::sidecar) tls: Option<Acceptor>,
}

/// What WebSockets have of the shutdown's time to be ended in.
const FAREWELL: Duration = Duration::from_secs(4);
/// How often the log is told that connections cannot be accepted, or are turned away.
const COMPLAINTS: Quota = Quota::per_minute(NonZeroU32::MIN);
/// Out of descriptors or memory: others may end meanwhile.
const BREATH: Duration = Duration::from_millis(50);
/// What a connection is told that is turned away.
const NO_ROOM: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
    content-type: text/plain\r\ncontent-length: 45\r\n\r\ntollgate: too many connections; retry later.\n";
/// How many of those are waited for at once, so that they can read it, and how long.
const MAX_LINGERING: usize = 64;
const LINGERING: Duration = Duration::from_secs(1);

/// Serves until `stop`, then lets what runs end, for at most [`Serving::shutdown_timeout`].
pub(in crate::sidecar) async fn serve<S, B>(
    listeners: Vec<TcpListener>,
    service: S,
    serving: Serving,
    stop: CancellationToken,
) -> io::Result<()>
where
    S: Service<Request<Upload>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut listeners = Listeners::new(listeners)?;
    let room = Room::new(serving.max_connections, serving.addresses);
    let lingering = Arc::new(Semaphore::new(MAX_LINGERING));
    let protocols = Arc::new(Protocols::new(serving.limits, serving.tls.clone()));
    let connections = TaskTracker::new();
    let stopping = Stopping {
        stop: stop.clone(),
        is_over: Arc::default(),
        last_call: CancellationToken::new(),
        connections: connections.clone(),
    };
    let complaints = RateLimiter::direct(COMPLAINTS);
    while let Some(accepted) = stop.run_until_cancelled(listeners.accept()).await {
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if complaints.check().is_ok() {
                    tracing::warn!(%error, "a connection could not be accepted");
                }
                if is_exhaustion(&error) {
                    tokio::time::sleep(BREATH).await;
                }
                continue;
            }
        };
        let place = match room.take(address.ip()).await {
            Ok(place) => place,
            Err(why) => {
                if complaints.check().is_ok() {
                    tracing::warn!(?why, %address, "connections are turned away (max_connections, max_connections_per_address)");
                }
                // A client that expects TLS could not read why.
                if serving.tls.is_none() {
                    turn_away(stream, &lingering);
                }
                continue;
            }
        };
        let peer = PeerInfo { peer: Peer(address), is_asked_for: serving.tells_peer.clone() };
        let (service, protocols, stopping) = (service.clone(), protocols.clone(), stopping.clone());
        connections.spawn(async move {
            // It fails where the client has gone again already.
            let _ = stream.set_nodelay(true);
            protocols.serve(stream, peer, Arc::new(place), service, &stopping).await;
        });
    }
    stopping.is_over.store(true, Ordering::Relaxed);
    drop(listeners);
    connections.close();
    // WebSockets would go on: shortly before the end each is told to open another.
    let farewell = FAREWELL.min(serving.shutdown_timeout / 2);
    let until_last_call = serving.shutdown_timeout - farewell;
    if tokio::time::timeout(until_last_call, connections.wait()).await.is_ok() {
        return Ok(());
    }
    stopping.last_call.cancel();
    if tokio::time::timeout(farewell, connections.wait()).await.is_err() {
        tracing::warn!(after = ?serving.shutdown_timeout, "calls were still running and are cut off (shutdown_timeout)");
    }
    Ok(())
}

/// What a worker accepts from: one socket, or several where a gate before had more workers.
struct Listeners {
    all: Vec<tokio::net::TcpListener>,
    /// Where it is looked first, so that a busy one keeps nobody waiting at the others.
    first: usize,
}

impl Listeners {
    fn new(listeners: Vec<TcpListener>) -> io::Result<Self> {
        let all = listeners.into_iter().map(tokio::net::TcpListener::from_std).collect::<io::Result<_>>()?;
        Ok(Self { all, first: 0 })
    }

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let Self { all, first } = self;
        *first = (*first + 1) % all.len().max(1);
        let (before, after) = all.split_at(*first);
        poll_fn(|context| {
            let mut each = after.iter().chain(before).map(|listener| listener.poll_accept(context));
            each.find(Poll::is_ready).unwrap_or(Poll::Pending)
        })
        .await
    }
}

/// Whether the next connection will fail in the same way, unless something is freed.
fn is_exhaustion(error: &io::Error) -> bool {
    let is_the_connections_own = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    );
    !is_the_connections_own
}

/// Says why, and waits a little so that it can be read: a socket that is closed with unread bytes in it takes back what it
/// has sent.
fn turn_away(mut stream: TcpStream, lingering: &Arc<Semaphore>) {
    let Ok(place) = lingering.clone().try_acquire_owned() else { return };
    tokio::spawn(async move {
        let words = async {
            // To a client that has not asked yet, an answer makes no sense.
            let mut unread = [0; 1024];
            stream.peek(&mut unread).await?;
            stream.write_all(NO_ROOM).await?;
            stream.shutdown().await?;
            while stream.read(&mut unread).await? > 0 {}
            io::Result::Ok(())
        };
        let _ = tokio::time::timeout(LINGERING, words).await;
        drop(place);
    });
}
