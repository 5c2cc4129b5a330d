//! A stand-in for Workers AI on loopback, for the demo, the tests and the benches. No account, no internet, no bill.
//!
//! It has the vendor's books, too: the list of models with prices in dollars, and analytics that lag and settle, with Workers'
//! calls that no gate sees.
//!
//! It knows the vendor's routes, reply shapes, three ways of telling usage in a stream, rate limits, free allocation and
//! errors (documentation of 2026-08 to 2026-10, and captures from the wire), and it is exact: the same question gets the same answer, byte by byte, and
//! [`Running::counts`] tells what it charged, so that whoever stands before it can be checked.
//!
//! It reads bodies as JavaScript would (`JSON.parse`, `FormData`, `Number`), with code of its own, and has no default for
//! `max_tokens` where the vendor has none. What the vendor's schemas leave open it takes plainly, or in the way that costs
//! most: see [`Coercion`] and [`Writes`].
//!
//! A request can ask for trouble with the header `x-simulate`, and so can a test with [`Running::fault`]: see [`Fault`].
//! `x-simulate-usage: end|running|increments|none` chooses when a stream tells its usage, and
//! `chat|responses|both|strings|in-choice|absurd` in which words; a comma stands between. `x-simulate-batch` chooses when and in which
//! shape a batch is answered.
//!
//! # What it does not do
//! It thinks nothing: its words are drawn from a list, its pictures are all the same. It keeps nothing across a restart.

mod analytics;
mod answers;
mod batch;
mod binary;
mod books;
mod books_trouble;
mod coerce;
mod connection;
mod dice;
mod encoding;
mod errors;
mod event;
mod fault;
mod form;
mod hearing;
mod js;
mod limits;
mod media;
mod messages;
mod moondream;
mod pace;
mod picture;
mod pictures;
mod prompt;
mod route;
mod search;
mod seen;
mod server;
mod sockets;
mod sound;
mod stream;
mod text;
mod tokenizer;
mod told;
pub mod traffic;
mod vectors;
pub mod voice;
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
pub use self::books_trouble::BooksTrouble;
pub use self::coerce::Coercion;
pub use self::errors::Form;
pub use self::event::Framing;
pub use self::fault::{Fault, FaultRule, Trouble};
pub use self::seen::Seen;
use self::server::State;
use crate::catalogue::Entry;
use crate::neurons::Neurons;
use crate::usage::Usage;

/// How the stand-in behaves.
#[derive(Clone, Debug)]
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
    /// The share of each account's spending that its Workers make through their binding, where no gate stands: 0.3 is 30%.
    pub elsewhere: f64,
    /// How long the models go on.
    pub writes: Writes,
    /// How figures of the wrong kind are taken.
    pub coercion: Coercion,
    /// How long a socket may be silent.
    pub socket_idle: Duration,
    /// How far the analytics lag: what is half as old as this is seen now and then, what is as old is settled.
    pub analytics_lag: Duration,
}

/// A stand-in that answers. Dropping it closes it.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    state: Arc<State>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// How long the models go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Writes {
    /// Until they have said what they have to say, or are cut off.
    #[default]
    Usual,
    /// Until their limit, or their window where there is none: they think unseen until then, and that is charged.
    ToTheLimit,
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
            elsewhere: 0.0,
            writes: Writes::default(),
            coercion: Coercion::default(),
            socket_idle: Duration::from_secs(10),
            analytics_lag: Duration::ZERO,
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

    /// Trouble with the list of models and the analytics from now on, or none any more.
    pub fn books_trouble(&self, trouble: Option<BooksTrouble>) {
        *self.state.books_trouble.lock() = trouble;
    }

    /// From now on these models are as this says, and all others as they were when it started.
    pub fn revise(&self, models: &BTreeMap<String, Entry>) {
        self.state.revise(models);
    }

    /// A Worker of the account's makes a call through its binding; tells what it cost. Unknown models cost nothing.
    pub fn spend_elsewhere(&self, account: &str, model: &str, usage: &Usage) -> Neurons {
        let model = self.state.catalogue().get(model);
        model.map_or(Neurons::ZERO, |model| self.state.books.charge_elsewhere(account, &model, usage))
    }

    /// No more trouble.
    pub fn clear_faults(&self) {
        self.state.faults.clear();
    }

    /// The latest requests, oldest first; at most 256 are kept, with bodies of at most 64 KiB.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.latest()
    }

    /// Tells of each request from now on, with its whole body, before it is answered. A second one takes the first one's place.
    pub fn tap(&self, tap: impl Fn(&Seen) + Send + Sync + 'static) {
        self.state.seen.tap(Arc::new(tap));
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
