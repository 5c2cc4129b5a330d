//! The stand-in's thread, and what a test may ask of it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio_util::sync::CancellationToken;

use super::books::Counts;
use super::books_trouble::BooksTrouble;
use super::fault::FaultRule;
use super::seen::Seen;
use super::server;
use super::settings::Settings;
use super::state::State;
use crate::catalogue::Entry;
use crate::neurons::Neurons;
use crate::usage::Usage;

/// A stand-in that answers. Dropping it closes it.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    state: Arc<State>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
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
