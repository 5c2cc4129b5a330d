//! What a store is to a gate: somebody who answers exchanges, each in one atomic step.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::layers::budget::{Grant, Register};
use crate::layers::rate_limit::{Heard, Word};

/// All that a gate has to say at once.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Exchange {
    /// This run of the gate.
    pub id: Arc<str>,
    /// The gate's name, which a restart keeps.
    pub who: Arc<str>,
    /// For how long it goes on with what it held, in milliseconds.
    pub keep_ms: u64,
    /// The store's memory as it last knew it; empty at first.
    pub fleet: Arc<str>,
    /// How much time has passed by its own clock since it sent the last one that was answered, in milliseconds; 0 where none was.
    pub since_ms: u64,
    /// It speaks for the last time.
    pub is_leaving: bool,
    /// One for each limit that has something to say.
    pub words: Vec<Word>,
    /// One for each bucket of a budget that has something to say, with its number: the store takes no older one.
    pub registers: Vec<(u64, Register)>,
}

/// What the store answers.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// The store's memory: another name means that it lost what it knew.
    pub fleet: Arc<str>,
    /// When it is by the store's clock, in milliseconds since 1970, UTC; 0 where it has none of its own.
    pub now_ms: u64,
    /// One for each word; `None` where the store has had a later one.
    pub heard: Vec<Option<Heard>>,
    /// One for each register; `None` where the store has had a later one.
    pub grants: Vec<Option<Grant>>,
}

/// Why no answer came. Whether the store has taken what was said is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Away(pub String);

/// The answer to come.
pub type Answering = Pin<Box<dyn Future<Output = Result<Answer, Away>> + Send>>;

/// Where limits are kept that several gates share.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Says all of it in one atomic step, and gives up in time where no answer comes. It may be asked again at once.
    fn exchange(&self, exchange: Exchange) -> Answering;
}

/// A store that finds its memory empty waits so long for gates that knew another, in milliseconds: each speaks once a second.
pub const LEARN_MS: u64 = 2_000;
/// A store that has lost its memory raises no budget for so long, in milliseconds: by then each gate has said again what it has.
pub const AGAIN_MS: u64 = 10_000;
/// The store's clock is set forth where a gate says that less time has passed, by more than this, in milliseconds.
pub const JUMP_MS: u64 = 500;
/// Where a gate was heard of is not written again for so long, in milliseconds: the fleet's time is exact to this.
pub(super) const FRESH_MS: u64 = 50;
/// A gate that has said nothing for so long is not listed any more, in milliseconds.
pub const FORGET_MS: u64 = 300_000;
