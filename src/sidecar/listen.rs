//! Listeners: one a worker on the same port, so that the kernel spreads the connections and no worker waits for another.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::{Quota, RateLimiter};
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::layers::identify::ReplyBody;
use crate::peer::Peer;

/// How a worker serves its connections.
#[derive(Clone, Debug)]
pub(super) struct Serving {
    /// Open at once, on this worker.
    pub(super) max_connections: usize,
    /// Requests carry the address that they came from.
    pub(super) tells_peer: bool,
    /// For a request's head.
    pub(super) head_timeout: Duration,
    /// For what still runs when it stops.
    pub(super) shutdown_timeout: Duration,
}

/// How often the log is told that connections cannot be accepted.
const COMPLAINTS: Quota = Quota::per_minute(NonZeroU32::MIN);
/// Connections that the kernel holds while the worker is busy.
const BACKLOG: i32 = 1024;
/// More header lines, or a longer head, is no request but an attack; hyper answers 431.
const MAX_HEADERS: usize = 100;
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// As many listeners on one address as there are workers. For port 0 the first one chooses.
pub(super) fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    // A port that may be shared could be another gate's, and each would get some of the other's calls.
    if address.port() != 0 {
        drop(TcpListener::bind(address)?);
    }
    let first = bind_one(address)?;
    let address = first.local_addr()?;
    let rest = (1..workers).map(|_| bind_one(address));
    std::iter::once(Ok(first)).chain(rest).collect()
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// HTTP/2 begins with this, and no method of HTTP/1.
const PREFACE: &[u8; 4] = b"PRI ";
/// A client that sends its first letters one by one is looked at again after so long.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Serves until `stop`, then lets what runs end, for at most [`Serving::shutdown_timeout`].
pub(super) async fn serve<S>(
    listener: TcpListener,
    service: S,
    serving: Serving,
    stop: CancellationToken,
) -> io::Result<()>
where
    S: Service<Request<Incoming>, Response = http::Response<ReplyBody>, Error = std::convert::Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(serving.max_connections));
    let complaints = RateLimiter::direct(COMPLAINTS);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(serving.head_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .keep_alive_interval(Some(Duration::from_secs(30)));
    // Told apart by a look at what has come: a connection whose version the builder finds out keeps a second buffer for good.
    let builders = Arc::new((builder.clone().http1_only(), builder.http2_only()));
    loop {
        let Some(accepted) = stop.run_until_cancelled(accept(&listener, &room)).await else { break };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, say: others may end meanwhile. The log is not to be filled with it.
                if complaints.check().is_ok() {
                    tracing::warn!(%error, "a connection could not be accepted");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (service, builders, watcher, stop) = (service.clone(), builders.clone(), graceful.watcher(), stop.clone());
        tokio::spawn(async move {
            let begun = tokio::time::timeout(serving.head_timeout, speaks_http2(&stream));
            let Some(Ok(Ok(is_http2))) = stop.run_until_cancelled(begun).await else { return drop(place) };
            let builder = if is_http2 { &builders.1 } else { &builders.0 };
            let peer = stream.peer_addr().ok().filter(|_| serving.tells_peer).map(Peer);
            let service = service_fn(move |mut request: Request<Incoming>| {
                if let Some(peer) = peer {
                    request.extensions_mut().insert(peer);
                }
                service.clone().call(request)
            });
            let connection = watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended badly");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(serving.shutdown_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!(after = ?serving.shutdown_timeout, "calls were still running and are cut off (shutdown_timeout)");
    }
    Ok(())
}

/// Whether a connection begins as HTTP/2 does, from its first bytes, which stay where they are.
async fn speaks_http2(stream: &tokio::net::TcpStream) -> io::Result<bool> {
    let mut first = [0; PREFACE.len()];
    loop {
        let seen = stream.peek(&mut first).await?;
        let may_be = seen > 0 && PREFACE.starts_with(&first[..seen]);
        if !may_be || seen == PREFACE.len() {
            return Ok(may_be);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn accept(
    listener: &tokio::net::TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = room.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, place))
}
