//! Opens a port: one listener a worker, so that the kernel spreads the connections and no worker waits for another.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel holds while the worker is busy; the kernel's own most (`somaxconn`) is 4,096.
const BACKLOG: i32 = 4096;

/// An address that is taken, and not listened on yet: whoever connects is refused.
pub(in crate::sidecar) struct BoundSockets {
    sockets: Vec<Socket>,
    workers: usize,
}

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
    let sockets = std::iter::once(Ok(first)).chain(rest).collect::<io::Result<_>>()?;
    Ok(BoundSockets { sockets, workers })
}

impl BoundSockets {
    /// Sockets that listen already. None of their queues may be left out, however many workers there are.
    pub(in crate::sidecar) fn handed(sockets: Vec<TcpListener>, workers: usize) -> io::Result<Self> {
        let sockets: Vec<_> = sockets.into_iter().map(Socket::from).collect();
        sockets.iter().try_for_each(|socket| socket.set_nonblocking(true))?;
        Ok(Self { sockets, workers })
    }

    /// The same sockets again, for the next gate.
    pub(in crate::sidecar) fn copies(&self) -> io::Result<Vec<TcpListener>> {
        self.sockets.iter().map(|socket| socket.try_clone().map(Into::into)).collect()
    }

    /// What each worker accepts from. All are bound before the first one listens: a connection is given to a listener that stays,
    /// and the kernel spreads connections over all of them from the first one on.
    pub(in crate::sidecar) fn listen(self) -> io::Result<Vec<Vec<TcpListener>>> {
        let Self { sockets, workers } = self;
        sockets.iter().try_for_each(|socket| socket.listen(BACKLOG))?;
        let mut each: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
        let count = sockets.len();
        // Workers beyond the sockets share those of others.
        for extra in count..workers {
            each[extra].push(sockets[extra % count].try_clone()?.into());
        }
        for (n, socket) in sockets.into_iter().enumerate() {
            each[n % workers].push(socket.into());
        }
        Ok(each)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_has_a_socket_and_each_socket_a_worker() {
        for (handed, workers) in [(1, 3), (3, 1), (2, 2), (5, 2), (2, 5)] {
            let sockets: Vec<_> = (0..handed).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
            let mut ports: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
            let each = BoundSockets::handed(sockets, workers).unwrap().listen().unwrap();
            assert!(each.len() == workers && each.iter().all(|sockets| !sockets.is_empty()), "{handed} for {workers}");
            let mut served: Vec<_> = each.iter().flatten().map(|socket| socket.local_addr().unwrap().port()).collect();
            for ports in [&mut ports, &mut served] {
                ports.sort_unstable();
                ports.dedup();
            }
            assert_eq!(ports, served, "{handed} for {workers}");
        }
    }
}
