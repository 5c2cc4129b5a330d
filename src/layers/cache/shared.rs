//! What all clones of a layer share.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

use dashmap::DashMap;

use super::flight::Flight;
use super::key::{Key, Taken};
use super::semantic::{Semantic, State};
use super::settings::Settings;
use super::store::Store;
use super::tier::Tier;
use crate::memory::Memory;

/// The answers, and the calls on their way.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) settings: Settings,
    /// For answers on their way.
    pub(super) memory: Memory,
    pub(super) store: Store,
    /// Where other gates' answers are.
    pub(super) tier: Option<Arc<dyn Tier>>,
    /// How often something was purged.
    pub(super) purges: Arc<AtomicU64>,
    pub(super) flights: Arc<DashMap<Key, Weak<Flight>, Taken>>,
    /// How many flights have brought something to keep.
    pub(super) landings: Arc<AtomicU64>,
    /// Where questions are answered as others that mean the same.
    pub(super) semantic: Option<Arc<Semantic>>,
    /// What is remembered of questions, and how it goes.
    pub(super) semantics: Arc<State>,
}
