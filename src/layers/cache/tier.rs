//! A further place where answers are kept: what other gates have kept, and what this one keeps for them.
//!
//! It is asked where this gate has nothing of its own, inside the call's [flight](super::flight): once for all who want the same at
//! once. A hit there goes no further than one here: no budget, no limit and no attempt knows of it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Where answers are kept beside this gate's memory. Whatever goes wrong there is nothing found and nothing kept, never an error.
pub trait Tier: fmt::Debug + Send + Sync + 'static {
    /// What digests are keyed with: the same at all gates, so that an answer has one key at all of them.
    fn secret(&self) -> [u8; 32];

    /// The largest thing that it takes, in bytes.
    fn max_bytes(&self) -> usize;

    /// Looks for what is kept of this model under these keys, in a bounded time.
    fn look(&self, model: &str, keys: Vec<[u8; 32]>) -> Looking;

    /// Keeps this for so long, behind the call's back; `mark` is what a [look](Self::look) from before the call told.
    fn keep(&self, key: [u8; 32], mark: &Mark, bytes: Vec<u8>, ttl: Duration);

    /// Forgets one model's answers, or all of them, also for gates that cannot be reached now. Tells whether that is done; where it
    /// is not, it is done as soon as it can be, and nothing is found before.
    fn purge(&self, model: Option<&str>) -> Purging;
}

/// What was found, to come.
pub type Looking = Pin<Box<dyn Future<Output = Looked> + Send>>;
/// Whether it has been forgotten, to come; in a bounded time.
pub type Purging = Pin<Box<dyn Future<Output = bool> + Send>>;

/// What came of a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// What to keep the call's answer under; `None` where it is not to be kept.
    pub mark: Option<Mark>,
    /// In the order of the keys.
    pub found: Vec<Option<Found>>,
}

/// Something that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// As they were given to be kept.
    pub bytes: Vec<u8>,
    /// How long it may still be given out.
    pub left: Duration,
}

/// What was not yet purged when it was looked. An answer whose call began before a purge is kept under an older one, and so found
/// by nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(pub Arc<[u8]>);
