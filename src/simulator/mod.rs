//! A stand-in for Workers AI on loopback, for the demo, the tests and the benches. No account, no internet, no bill.
//!
//! It knows the vendor's routes, reply shapes, three ways of telling usage in a stream, rate limits, free allocation and
//! errors (documentation of 2026-08 to 2026-10, and captures from the wire), and it is exact: the same question gets the same answer, byte by byte, and
//! [`Running::counts`] tells what it charged, so that whoever stands before it can be checked.
//!
//! A request can ask for trouble with the header `x-simulate`, and so can a test with [`Running::fault`]: see [`Fault`].
//! `x-simulate-usage: end|running|increments|none` chooses how a stream tells its usage.
//!
//! # What it does not do
//! It thinks nothing: its words are drawn from a list, its pictures are all the same. It keeps nothing across a restart.

mod batch;
mod books;
mod dice;
mod fault;
mod media;
mod picture;
mod prompt;
mod route;
mod search;
mod server;
mod sound;
mod stream;
mod text;
mod tokenizer;
pub mod traffic;
mod vectors;
mod window;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use self::books::{Counts, ModelCounts};
pub use self::fault::{Fault, FaultRule, Form, Trouble};
use self::server::State;
use crate::catalogue::Entry;
use crate::neurons::Neurons;

/// How the stand-in behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// Its pace: 1.0 is that of the real thing by the model's size, 0.0 answers at once.
    pub latency: f64,
    /// Each model's requests a minute are enforced, in a window that slides.
    pub rate_limits: bool,
    /// The minute of those limits, which a test may shorten.
    pub window: Duration,
    /// What an account has free each UTC day; `None` is the paid plan, which has no end.
    pub free_neurons: Option<Neurons>,
    /// The one token that is accepted; `None` accepts any.
    pub token: Option<String>,
    /// Models beyond or over the built-in table, by name.
    pub models: BTreeMap<String, Entry>,
}

/// A stand-in that answers. Dropping it closes it.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    state: Arc<State>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// A request as it came.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Seen {
    /// Path and query.
    pub path: String,
    /// Its headers.
    pub headers: http::HeaderMap,
    /// Its body.
    pub body: bytes::Bytes,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            latency: 1.0,
            rate_limits: true,
            window: Duration::from_secs(60),
            free_neurons: None,
            token: None,
            models: BTreeMap::new(),
        }
    }
}

/// Starts it on a thread of its own, and returns when it accepts connections.
pub fn start(settings: Settings) -> io::Result<Running> {
    let listener = std::net::TcpListener::bind(settings.address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let state = Arc::new(State::new(settings));
    let stop = CancellationToken::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (serving, stopping) = (state.clone(), stop.clone());
    let thread = std::thread::Builder::new().name("simulator".into()).spawn(move || {
        runtime.block_on(stopping.run_until_cancelled(server::serve(listener, serving)));
        runtime.shutdown_background();
    })?;
    Ok(Running { address, state, stop, thread: Some(thread) })
}

// === impl Running ===

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as a base URL for `[upstream] base_url`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it has answered and charged so far.
    pub fn counts(&self) -> Counts {
        self.state.books.counts()
    }

    /// What an account was charged since 00:00 UTC.
    pub fn spent(&self, account: &str) -> Neurons {
        self.state.books.spent(account)
    }

    /// Makes trouble from now on, until the rule is used up or the faults are cleared.
    pub fn fault(&self, rule: FaultRule) {
        self.state.faults.add(rule);
    }

    /// No more trouble.
    pub fn clear_faults(&self) {
        self.state.faults.clear();
    }

    /// The latest requests, oldest first; at most 256 are kept, with bodies of at most 64 KiB.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}
