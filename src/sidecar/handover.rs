//! One gate after the other on the same sockets, so that no connection finds nobody.
//!
//! A service manager keeps the listening sockets and hands them to each gate that it starts (systemd's socket activation:
//! `LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`). What connects between two gates waits in the socket's queue. The next gate may be
//! started while the one before still serves or ends its streams: only one may write the books, whoever holds the lock on the
//! records' file, and the next one waits for that before it accepts anything.
//!
//! # What it does not do
//! It takes no sockets from a gate that was started without a service manager: the queue of a socket that is closed is lost with
//! it, whoever else listens on the port.

use std::io;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use listenfd::ListenFd;

use super::config::{Config, Variables};
use super::listen;
use crate::readers::records;

/// The sockets that this process was started with.
#[derive(Debug, Default)]
pub struct Handed {
    pub(super) listen: Option<TcpListener>,
    pub(super) admin: Option<TcpListener>,
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
                (Some("listen"), _) | (None, 0) => handed.listen = socket,
                (Some("admin"), _) | (None, 1) => handed.admin = socket,
                _ => tracing::warn!(place, name, "a socket was handed over that nobody asked for: it is closed"),
            }
        }
        Ok(handed)
    }

    /// There are any.
    pub fn is_any(&self) -> bool {
        self.listen.is_some() || self.admin.is_some()
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
        config.records.path().is_some_and(|path| records::is_taken(path)) || self.admin.is_none() && is_admin_taken()
    }
}
