//! A budget that several gates share: what each may spend of it stands in a register at a store.
//!
//! A gate spends no more than its register says, and the registers of all gates together never pass the limit. A register is raised at
//! the store before it is raised here, and lowered here before it is lowered there; it is always told as a whole figure, so a word
//! that is lost or comes twice changes nothing. Reserving and settling stay here: only a raise asks the store. A gate that dies has
//! its register counted as spent until the window ends, or until it is back under its name with its records.

use std::sync::Arc;

use crate::neurons::Neurons;

/// A bucket, as the store that gates share knows it.
pub trait Registrant: Send + Sync + 'static {
    /// What is to be told the store now, if anything; also where nothing has changed here, to hear of the others.
    fn register(&self) -> Option<Register>;

    /// What came of a register that was told; `None` where no answer came.
    fn granted(&self, register: &Register, grant: Option<Grant>);

    /// The store cannot be reached: no more is spent than the register says.
    fn unreached(&self);
}

/// Who speaks with the store for buckets.
pub trait Registers: Send + Sync + 'static {
    /// Has a bucket's register told soon: [`Registrant::register`] says what, and [`Registrant::granted`] is to be told. Called on a
    /// request's path: it must not block. A bucket is not named again until it was asked.
    fn want(&self, bucket: Arc<dyn Registrant>);
}

/// What a bucket tells the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Register {
    /// The budget, by its name and what else makes it count differently.
    pub budget: Arc<str>,
    /// The bucket: empty for a budget that is not split.
    pub bucket: Arc<str>,
    /// What all gates together may spend.
    pub limit: Neurons,
    /// When it is by the gate's wall clock, in milliseconds since 1970, UTC.
    pub now_ms: u64,
    /// What was spent before a restart is among what is told.
    pub is_restored: bool,
    /// What counts now, oldest first; only the last may be raised.
    pub slots: Vec<Slot>,
}

/// One window, or a slice of one that slides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Slot {
    /// When it began, in milliseconds since 1970, UTC.
    pub start_ms: u64,
    /// When it counts no more.
    pub expires_ms: u64,
    /// Spent and settled.
    pub spent: Neurons,
    /// Spent or reserved.
    pub used: Neurons,
    /// What the register should be.
    pub upto: Neurons,
    /// What it is, as far as the gate knows.
    pub held: Neurons,
}

/// What the store answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// The register of the last slot from here on.
    pub upto: Neurons,
    /// What the other gates have spent.
    pub spent_elsewhere: Neurons,
    /// What they may spend, with what they have.
    pub upto_elsewhere: Neurons,
    /// Gates that have a register, this one among them.
    pub gates: u32,
}

// === impl Grant ===

impl Grant {
    /// As the store says.
    pub fn new(upto: Neurons, spent_elsewhere: Neurons, upto_elsewhere: Neurons, gates: u32) -> Self {
        Self { upto, spent_elsewhere, upto_elsewhere, gates }
    }
}
