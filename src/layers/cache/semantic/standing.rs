//! What is remembered of questions, and how it goes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};

use super::super::key::Key;
use super::super::landed::Landed;
use super::index::{Index, Near, Slot};
use crate::neurons::Neurons;
use crate::receipt::Receipt;

/// How much of a text a person needs to judge it, in bytes.
const SAMPLE_BYTES: usize = 240;

/// See the [module](self).
#[derive(Debug, Default)]
pub(in crate::layers::cache) struct State {
    index: RwLock<Index>,
    pairs: Mutex<VecDeque<Pair>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    failed: AtomicU64,
    late: AtomicU64,
    saved: AtomicU64,
    paid: AtomicU64,
}

/// Two messages that were taken for the same.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Pair {
    /// When.
    pub at: SystemTime,
    /// The model that had answered.
    pub model: Arc<str>,
    /// What was asked, or its beginning.
    pub asked: Box<str>,
    /// What had been answered, or its beginning.
    pub answered: Arc<str>,
    /// The cosine of their vectors.
    pub similarity: f32,
}

/// How it goes, since the start.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Standing {
    /// Questions that were answered as one before.
    pub hits: u64,
    /// Those for which nothing was near enough.
    pub misses: u64,
    /// Those of which no vector came.
    pub failed: u64,
    /// Those whose vector was not there in time.
    pub late: u64,
    /// What the answers would have cost.
    pub saved: Neurons,
    /// What all vectors have cost, those of misses too.
    pub paid: Neurons,
    /// Messages that are remembered.
    pub entries: usize,
    /// The last ones that were taken for the same, the newest first.
    pub pairs: Vec<Pair>,
}

// === impl State ===

impl State {
    /// Counts what a vector costs when that is known, also where nobody waits for it any more.
    pub(super) fn pays_for(&self, receipt: &Receipt) {
        let counts = self.counts.clone();
        receipt.on_seal(move |facts| add(&counts.paid, facts.cost.neurons.micro()));
    }

    pub(super) fn none_came(&self) -> Option<Landed> {
        add(&self.counts.failed, 1);
        None
    }

    pub(super) fn came_late(&self) -> Option<Landed> {
        add(&self.counts.late, 1);
        None
    }

    pub(super) fn missed(&self) -> Option<Landed> {
        add(&self.counts.misses, 1);
        None
    }

    pub(super) fn hit(&self, asked: &str, near: &Near, model: &Arc<str>, saved: Neurons, samples: usize) {
        add(&self.counts.hits, 1);
        add(&self.counts.saved, saved.micro());
        let mut pairs = self.pairs.lock();
        if samples > 0 {
            let (at, asked) = (SystemTime::now(), shortened(asked).into());
            let (answered, similarity) = (near.text.clone(), near.similarity);
            pairs.push_front(Pair { at, model: model.clone(), asked, answered, similarity });
        }
        pairs.truncate(samples);
    }

    pub(super) fn nearest(&self, group: &Key, vector: &[f32], threshold: f32) -> Vec<Near> {
        self.index.read().nearest(group, vector, threshold)
    }

    pub(super) fn remember(&self, slot: Slot, most: usize) {
        self.index.write().put(slot, most);
    }

    /// Forgets one model's messages, or all of them, and their texts.
    pub(in crate::layers::cache) fn forget(&self, model: Option<&str>) {
        self.index.write().forget(model);
        self.pairs.lock().retain(|pair| model.is_some_and(|model| *pair.model != *model));
    }

    pub(in crate::layers::cache) fn standing(&self) -> Standing {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { hits, misses, failed, late, saved, paid } = &*self.counts;
        Standing {
            hits: read(hits),
            misses: read(misses),
            failed: read(failed),
            late: read(late),
            saved: Neurons::from_micro(read(saved)),
            paid: Neurons::from_micro(read(paid)),
            entries: self.index.read().len(),
            pairs: self.pairs.lock().iter().cloned().collect(),
        }
    }
}

/// As much of a text as is kept to be judged.
pub(super) fn shortened(text: &str) -> &str {
    let end = text.char_indices().map(|(at, _)| at).find(|at| *at >= SAMPLE_BYTES);
    end.map_or(text, |end| &text[..end])
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}
