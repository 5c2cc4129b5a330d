//! The sockets that a gate does not open by itself.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use listenfd::ListenFd;

use super::pass::{self, Sockets};
use crate::readers::records;
use crate::sidecar::config::{Config, Variables};
use crate::sidecar::listen;

/// The sockets that this process was started with, or that the gate before has.
#[derive(Debug, Default)]
pub struct Handed {
    sockets: Sockets,
    /// The gate that serves on them, until it is told to end.
    before: Option<UnixStream>,
}

/// How often a waiting gate looks whether its turn has come.
const EVERY: Duration = Duration::from_millis(20);

impl Handed {
    /// Takes them. The first is the clients' port and the second the admin port, unless they are named `listen` and `admin`
    /// (`FileDescriptorName=`). A second call finds none.
    pub fn take(variables: &Variables) -> io::Result<Self> {
        let mut sockets = ListenFd::from_env();
        let names = variables.iter().find(|(name, _)| name == "LISTEN_FDNAMES");
        let names: Vec<_> = names.map(|(_, names)| names.split(':').collect()).unwrap_or_default();
        let is_named = names.iter().any(|name| matches!(*name, "listen" | "admin"));
        let mut handed = Self::default();
        for place in 0..sockets.len() {
            let name = names.get(place).copied().filter(|_| is_named);
            let socket = sockets.take_tcp_listener(place)?;
            match (name, place) {
                (Some("listen"), _) | (None, 0) => handed.sockets.listen.extend(socket),
                (Some("admin"), _) | (None, 1) => handed.sockets.admin.extend(socket),
                _ => tracing::warn!(place, name, "a socket was handed over that nobody asked for: it is closed"),
            }
        }
        Ok(handed)
    }

    /// Asks the gate that serves now, where one offers its sockets here (`handover_path`), for those that this config listens on.
    /// It goes on with all of them until it is [told](Self::take_over) to end.
    pub fn ask(path: &Path, config: &Config) -> io::Result<Self> {
        let stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            // None is there, or one that was killed was.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(Self::default());
            }
            Err(error) => return Err(error),
        };
        let mut sockets = pass::take(&stream)?;
        let is_ours = |socket: &TcpListener, address: SocketAddr| {
            socket.local_addr().is_ok_and(|is| is == address || address.port() == 0 && is.ip() == address.ip())
        };
        sockets.listen.retain(|socket| is_ours(socket, config.listen));
        sockets.admin.retain(|socket| is_ours(socket, config.admin));
        Ok(Self { sockets, before: Some(stream) })
    }

    /// Has the gate before end what it has begun, and no more: the sockets are this one's from here on. Does nothing for sockets of a
    /// service manager.
    pub fn take_over(&mut self) -> io::Result<()> {
        self.before.take().map_or(Ok(()), |before| pass::go(&before))
    }

    /// There are any, or a gate is there that has others.
    pub fn is_any(&self) -> bool {
        !self.sockets.listen.is_empty() || !self.sockets.admin.is_empty() || self.before.is_some()
    }

    /// Those of the clients' port, and of the admin port.
    pub(in crate::sidecar) fn into_sockets(self) -> (Vec<TcpListener>, Vec<TcpListener>) {
        (self.sockets.listen, self.sockets.admin)
    }

    /// Waits until another gate, if there is one, has let go of the books and of the admin port; blocks. False where it was told
    /// to `give_up` first.
    pub fn wait_for_turn(&self, config: &Config, mut give_up: impl FnMut() -> bool) -> bool {
        let began = Instant::now();
        let mut is_told = false;
        while self.is_before_us(config) {
            if give_up() {
                return false;
            }
            if !is_told {
                is_told = true;
                tracing::info!("another gate keeps the books: this one serves when that has ended");
            }
            std::thread::sleep(EVERY);
        }
        if is_told {
            tracing::info!(waited = ?began.elapsed(), "the gate before has ended");
        }
        true
    }

    fn is_before_us(&self, config: &Config) -> bool {
        let is_admin_taken = || {
            let bound = listen::bind(config.admin, 1);
            bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
        };
        config.records.path().is_some_and(|path| records::is_taken(path))
            || self.sockets.admin.is_empty() && is_admin_taken()
    }
}
