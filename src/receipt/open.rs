//! A receipt that is open, and its seal.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::facts::Facts;
#[cfg(feature = "sockets")]
use super::facts::SocketFacts;
use super::reader::Readers;
use crate::catalogue::Model;
use crate::endpoint::Endpoint;
#[cfg(feature = "sockets")]
use crate::usage::Usage;

/// An open receipt. Cloning shares it.
#[derive(Clone)]
pub struct Receipt(Arc<Open>);

struct Open {
    facts: Mutex<Facts>,
    /// What layers hold for the call until its cost is known.
    closing: Mutex<Vec<Closing>>,
    readers: Readers,
}

type Closing = Box<dyn FnOnce(&Facts) + Send>;

/// A call's stay in one of the gate's queues. Its time is noted however it ends: by a turn, or because the client's patience did.
pub struct Queued {
    receipt: Receipt,
    began: Instant,
}

// === impl Receipt ===

impl Receipt {
    /// Opens a receipt for a call on this model; `readers` get it when it is sealed.
    pub fn open(readers: Readers, model: Arc<Model>) -> Self {
        for reader in readers.iter() {
            reader.opened();
        }
        Self(Arc::new(Open { facts: Mutex::new(Facts::new(model)), closing: Mutex::default(), readers }))
    }

    /// Opens one for a call that the gate makes for this one: of the same account and client, for the same readers.
    pub(crate) fn beside(&self, model: Arc<Model>, endpoint: Endpoint) -> Self {
        let beside = Self::open(self.0.readers.clone(), model);
        let common = self.read(|own| {
            (
                own.account.clone(),
                own.key.clone(),
                own.labels.clone(),
                own.metadata.clone(),
                own.trace,
                own.attempts.len(),
            )
        });
        beside.identify(|facts| {
            let (account, key, labels, metadata, trace, attempts) = common;
            (facts.account, facts.key, facts.labels, facts.metadata) = (account, key, labels, metadata);
            (facts.endpoint, facts.trace) = (Some(endpoint), trace.map(|trace| trace.attempt(attempts)));
        });
        beside
    }

    /// Has this done when the receipt is sealed, before any reader sees it: how a layer gives back what it took for a call
    /// (a budget's reservation, a limit's tokens), however the call ends. The same rules hold as for a [`Reader`](super::Reader).
    pub fn on_seal(&self, close: impl FnOnce(&Facts) + Send + 'static) {
        self.0.closing.lock().push(Box::new(close));
    }

    /// Writes what is asked on it, and lets the readers know. Once a call.
    pub fn identify<T>(&self, write: impl FnOnce(&mut Facts) -> T) -> T {
        let mut facts = self.0.facts.lock();
        let written = write(&mut facts);
        for reader in self.0.readers.iter() {
            reader.identified(&facts);
        }
        written
    }

    /// The call begins to wait for a turn.
    pub fn queue(&self) -> Queued {
        self.note(|facts| facts.is_queued = true);
        Queued { receipt: self.clone(), began: Instant::now() }
    }

    /// Notes that its WebSocket is open, and lets the readers know.
    #[cfg(feature = "sockets")]
    pub(crate) fn upgraded(&self) {
        let mut facts = self.0.facts.lock();
        facts.socket = Some(Box::new(SocketFacts { opened_at: Instant::now(), ended_by: None, close_code: None }));
        for reader in self.0.readers.iter() {
            reader.upgraded(&facts);
        }
    }

    /// Writes how its WebSocket stands, and lets the readers know what is `new` since the last time.
    #[cfg(feature = "sockets")]
    pub(crate) fn flow(&self, new: &Usage, write: impl FnOnce(&mut Facts)) {
        let mut facts = self.0.facts.lock();
        write(&mut facts);
        for reader in self.0.readers.iter() {
            reader.flowed(&facts, new);
        }
    }

    /// Writes on it, and may read what was there.
    pub fn note<T>(&self, write: impl FnOnce(&mut Facts) -> T) -> T {
        write(&mut self.0.facts.lock())
    }

    /// Reads from it.
    pub fn read<T>(&self, read: impl FnOnce(&Facts) -> T) -> T {
        read(&self.0.facts.lock())
    }
}

// === impl Queued ===

impl Queued {
    /// So long.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The call has its turn, or was refused one.
    pub fn leave(self) {
        self.receipt.note(|facts| facts.is_queued = false);
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.receipt.note(|facts| facts.waited += self.began.elapsed());
    }
}

impl std::fmt::Debug for Queued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queued(for {:?})", self.began.elapsed())
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.facts.lock().fmt(f)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let facts = self.facts.get_mut();
        facts.duration = facts.opened_at.elapsed();
        for close in self.closing.get_mut().drain(..) {
            close(facts);
        }
        for reader in self.readers.iter() {
            reader.sealed(facts);
        }
    }
}
