//! What of a budget outlives the process.
//!
//! A bucket may spend what its **lease** covers, and a lease is written ahead of the spending: whatever has been spent when
//! the process is killed, the books have at least that much, and no call waits for a disk. A lease runs about 1% of the
//! budget ahead of what is spent and reserved; it is renewed before it runs out, and lowered again when reservations turn
//! out to have been too high. A ledger that is shared by several replicas grants slices of one limit in the same way.
//!
//! Where the books cannot be written (a full disk), a bucket spends what its last lease covers; then calls that it counts are
//! refused with 503 until they can. A budget that only counts refuses nothing, and may have spent more than its books tell
//! after a kill. Where the books cannot be read, a budget that refuses is not set up at all: it would begin anew.

use std::sync::Arc;

use crate::neurons::Neurons;

/// A bucket, as a [`Ledger`] knows it.
pub trait Lessee: Send + Sync + 'static {
    /// What to write now; asked from one thread at a time. When the process `is_closing`, that is what was spent, and no lead.
    fn leases(&self, is_closing: bool) -> Vec<Lease>;

    /// These are on the books.
    fn written(&self, leases: &[Lease]);

    /// The books cannot be written. They have at least what the last lease covers, and no more is spent until they can.
    fn unwritten(&self);
}

/// Where leases are written.
pub trait Ledger: Send + Sync + 'static {
    /// What the books have of a budget, by [`Lease::budget`], at a moment in milliseconds since 1970, UTC. Leases that have
    /// expired by then, or begin later, may be among them, and should be for a while: the clock may be wrong at this moment.
    fn load(&self, budget: &str, now_ms: u64) -> Result<Vec<Lease>, LedgerError>;

    /// Has a bucket's leases written soon: [`Lessee::leases`] says what, and [`Lessee::written`] or [`Lessee::unwritten`]
    /// is to be told. Called on a request's path: it must not block. A bucket is not named again until it was asked.
    fn renew(&self, bucket: Arc<dyn Lessee>);

    /// What people have changed of a budget, by its name, that may be in force at this moment or later; oldest first.
    fn changes(&self, budget: &str, now_ms: u64) -> Result<Vec<Change>, LedgerError> {
        let _ = (budget, now_ms);
        Ok(Vec::new())
    }

    /// Keeps what a person has changed. Not called on a request's path: it may block.
    fn keep(&self, change: &Change) -> Result<(), LedgerError> {
        let _ = change;
        Ok(())
    }
}

/// What a person has changed of a budget while it was in force.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The budget's name.
    pub budget: String,
    /// The bucket: `None` is the whole budget, each bucket of it.
    pub bucket: Option<String>,
    /// When, in milliseconds since 1970, UTC.
    pub at_ms: u64,
    /// Raised to this; `None` is what was spent of it forgotten.
    pub raised_to: Option<Neurons>,
    /// Until when it is raised, in milliseconds since 1970, UTC.
    pub until_ms: u64,
    /// Who did it.
    pub who: String,
    /// Why.
    pub reason: String,
}

impl Change {
    /// Of a budget, or of one of its buckets: its limit is `raised_to` until then, or where that is `None` what was spent is
    /// forgotten.
    pub fn new(
        budget: &str,
        bucket: Option<&str>,
        at_ms: u64,
        raised: Option<(Neurons, u64)>,
        by: (&str, &str),
    ) -> Self {
        let (raised_to, until_ms) = raised.map_or((None, 0), |(to, until)| (Some(to), until));
        let (who, reason) = (by.0.into(), by.1.into());
        Self { budget: budget.into(), bucket: bucket.map(Into::into), at_ms, raised_to, until_ms, who, reason }
    }
}

/// What a bucket may spend in one window (or one slice of a sliding one), as the books have it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// The budget: its name, and what else makes it count differently.
    pub budget: Arc<str>,
    /// The bucket: empty for a budget that is not split.
    pub bucket: Arc<str>,
    /// When the window began, in milliseconds since 1970, UTC.
    pub start_ms: u64,
    /// When it counts no more, in milliseconds since 1970, UTC.
    pub expires_ms: u64,
    /// Spent and settled when it was written.
    pub spent: Neurons,
    /// Spending up to this is on the books.
    pub upto: Neurons,
}

/// Why a ledger cannot tell what was spent.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct LedgerError(Box<dyn std::error::Error + Send + Sync>);

impl LedgerError {
    /// For this reason.
    pub fn new(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(why.into())
    }
}

impl Lease {
    /// As it was read from the books.
    pub fn new(budget: &str, bucket: &str, window_ms: (u64, u64), spent: Neurons, upto: Neurons) -> Self {
        let (start_ms, expires_ms) = window_ms;
        Self { budget: budget.into(), bucket: bucket.into(), start_ms, expires_ms, spent, upto }
    }
}
