//! Opens a port: one listener a worker, so that the kernel spreads the connections and no worker waits for another.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel holds while the worker is busy; the kernel's own most (`somaxconn`) is 4,096.
const BACKLOG: i32 = 4096;

/// An address that is taken, and not listened on yet: whoever connects is refused.
pub(in crate::sidecar) struct BoundSockets(Vec<Socket>);

/// Takes an address for as many listeners as there are workers. For port 0 the first one chooses.
pub(in crate::sidecar) fn bind(address: SocketAddr, workers: usize) -> io::Result<BoundSockets> {
    // A port that may be shared could be another gate's, and each would get some of the other's calls. The probe is bound
    // and never listens, so that no connection can arrive at it and be lost.
    if address.port() != 0 {
        let probe = socket(address)?;
        probe.set_reuse_address(true)?;
        probe.bind(&address.into())?;
    }
    let first = bind_one(address)?;
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    let rest = (1..workers).map(|_| bind_one(address));
    std::iter::once(Ok(first)).chain(rest).collect::<io::Result<Vec<_>>>().map(BoundSockets)
}

impl BoundSockets {
    /// A socket that listens already, shared by the workers.
    pub(in crate::sidecar) fn handed(socket: TcpListener, workers: usize) -> io::Result<Self> {
        let first = Socket::from(socket);
        first.set_nonblocking(true)?;
        let rest: io::Result<Vec<_>> = (1..workers).map(|_| first.try_clone()).collect();
        Ok(Self(std::iter::once(first).chain(rest?).collect()))
    }

    /// All are bound before the first one listens: a connection is given to a listener that stays, and the kernel spreads
    /// connections over all of them from the first one on.
    pub(in crate::sidecar) fn listen(self) -> io::Result<Vec<TcpListener>> {
        self.0.iter().try_for_each(|socket| socket.listen(BACKLOG))?;
        Ok(self.0.into_iter().map(Into::into).collect())
    }
}

fn bind_one(address: SocketAddr) -> io::Result<Socket> {
    let socket = socket(address)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
}
