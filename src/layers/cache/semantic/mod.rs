//! Answers a question as one that means the same was answered before. Off unless it is set, and asked for.
//!
//! A vector of the last user's message, made by an embeddings model, is compared with those of messages that were answered before.
//! Everything else has to be the same: account, AI Gateway, route, model, the caller (a key's name, or else the token), `stream`, the
//! system prompt, all messages before, every setting. The nearest one from [`Settings::threshold`] on whose answer is still kept is
//! the answer: [`CacheStatus::SemanticHit`](crate::receipt::CacheStatus::SemanticHit).
//!
//! The vector's call goes the way of every call, with a receipt, a permit and a budget of its own; what it cost also stands on the
//! receipt of the call that it was made for, and is taken off what a hit saved. One that fails, or takes longer than
//! [`Settings::wait`], is no error: the call goes on without.
//!
//! # What it does not do
//! It looks for nothing where a call has tools, pictures, a `seed`, a cache key or a ceiling of its own, or does not end with one text
//! of a user's. It compares nobody's messages with another's. Vectors are kept in memory alone.

mod embedding;
mod index;
mod question;
mod standing;
mod vector;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;
use tower::Service;

use self::index::Slot;
pub(super) use self::question::Question;
pub(super) use self::standing::State;
pub use self::standing::{Pair, Standing};
use super::key::Key;
use super::landed::{Landed, Similar};
use super::store::Store;
use crate::Error;
use crate::call::Call;
use crate::catalogue::{Catalogue, Task};
use crate::layers::Reply;

/// What is taken for the same, and for whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The model that makes vectors of texts.
    pub model: Arc<str>,
    /// From this cosine of two vectors on, two messages mean the same: above 0, at most 1.
    pub threshold: f32,
    /// The models whose calls are looked for without asking by `x-tollgate-semantic-cache`; where there are `keys`, none are all.
    pub models: Vec<Arc<str>>,
    /// The keys whose calls are, by their names; where there are `models`, none are all.
    pub keys: Vec<Arc<str>>,
    /// A call waits no longer for the vector of its message.
    pub wait: Duration,
    /// The messages that are remembered, of all callers; the oldest go first. Each takes its vector, four bytes a dimension.
    pub max_entries: usize,
    /// The pairs that were taken for the same of which the texts are kept, to be judged by a person; 0 keeps no text.
    pub samples: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model: "@cf/baai/bge-m3".into(),
            threshold: 0.95,
            models: Vec::new(),
            keys: Vec::new(),
            wait: Duration::from_secs(1),
            max_entries: 10_000,
            samples: 20,
        }
    }
}

/// Where it is set.
#[derive(Debug)]
pub(super) struct Semantic {
    pub(super) settings: Settings,
    pub(super) catalogue: Arc<Catalogue>,
}

/// A question on its way.
pub(super) struct Asking {
    semantic: Arc<Semantic>,
    store: Store,
    state: Arc<State>,
    text: Box<str>,
    /// All but the message.
    group: Key,
    /// The answer's own place.
    key: Key,
    vector: OnceLock<Arc<[f32]>>,
}

// === impl Semantic ===

impl Semantic {
    /// What a call asks, where it is looked for.
    pub(super) fn question(&self, call: &Call) -> Option<Question> {
        if self.is_asked(call) { Question::of(call) } else { None }
    }

    fn is_asked(&self, call: &Call) -> bool {
        let Settings { models, keys, .. } = &self.settings;
        call.options.semantic.unwrap_or_else(|| {
            let of_these = |names: &[Arc<str>], name: Option<&Arc<str>>| {
                names.is_empty() || name.is_some_and(|name| names.contains(name))
            };
            !(models.is_empty() && keys.is_empty())
                && of_these(models, Some(&call.model.id))
                && of_these(keys, call.key.as_ref())
        })
    }
}

// === impl Asking ===

impl Asking {
    pub(super) fn new(
        semantic: Arc<Semantic>,
        store: Store,
        state: Arc<State>,
        text: Box<str>,
        group: Key,
        key: Key,
    ) -> Self {
        Self { semantic, store, state, text, group, key, vector: OnceLock::new() }
    }

    /// The answer to a question that means the same.
    async fn look<S>(&self, inner: S, call: &Call) -> Option<Landed>
    where
        S: Service<Call, Response = Reply, Error = Error>,
    {
        let Settings { model, wait, threshold, samples, .. } = &self.semantic.settings;
        let state = &self.state;
        let model = self.semantic.catalogue.find(model, Task::TextEmbeddings);
        let asked = call.beside(model, embedding::body(&self.text)?);
        let receipt = asked.receipt.clone();
        state.pays_for(&receipt);
        let began = Instant::now();
        let made = tokio::time::timeout(*wait, embedding::make(inner, asked)).await;
        let cost = receipt.read(|facts| facts.cost.neurons);
        drop(receipt);
        call.receipt.note(|facts| {
            facts.embedding += cost;
            // It is no time of the gate's own.
            facts.upstream += began.elapsed();
        });
        let vector = match made {
            Ok(Some(vector)) => vector,
            Ok(None) => return state.none_came(),
            Err(_) => return state.came_late(),
        };
        let vector = self.vector.get_or_init(|| vector);
        for near in state.nearest(&self.group, vector, *threshold) {
            let Some(entry) = self.store.get(&near.answer) else { continue };
            if entry.model != call.model.id {
                continue;
            }
            let similar = Similar { similarity: near.similarity, embedding: cost };
            state.hit(&self.text, &near, &entry.model, entry.cost, *samples);
            return Some(Landed { entry, similar: Some(similar) });
        }
        state.missed()
    }

    /// Its answer is kept from now on: who asks the same in other words may have it.
    pub(super) fn remember(&self, model: &Arc<str>) {
        let Some(vector) = self.vector.get() else { return };
        let Settings { max_entries, samples, .. } = &self.semantic.settings;
        let text = if *samples == 0 { "" } else { standing::shortened(&self.text) };
        let slot = Slot {
            group: self.group,
            answer: self.key,
            model: model.clone(),
            vector: vector.clone(),
            text: text.into(),
        };
        self.state.remember(slot, *max_entries);
    }
}

/// The answer to a question that means the same, or what the call itself brings.
pub(super) async fn or_call<S>(asking: Arc<Asking>, inner: S, call: Call) -> Result<Reply, Error>
where
    S: Service<Call, Response = Reply, Error = Error> + Clone,
{
    match asking.look(inner.clone(), &call).await {
        Some(landed) => Ok(landed.reply()),
        None => tower::ServiceExt::oneshot(inner, call).await,
    }
}
