//! `[cache]`: what repeats are answered from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::replicas::StoreUrl;
use crate::layers::cache::{self, semantic};
use crate::replicas::SharedSettings;

/// `[cache]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Cache {
    /// How long an answer is kept; `0s` keeps only what a request asks to keep.
    #[serde(with = "super::duration")]
    pub ttl: Duration,
    /// What all answers together may weigh in memory.
    pub max_bytes: ByteSize,
    /// The largest answer that is kept.
    pub max_entry: ByteSize,
    /// Keep and share also what another call would get another answer to: texts without a seed whose temperature is not 0,
    /// pictures without a seed.
    pub sampled: bool,
    /// Gates of one `[replicas] fleet` that have the same `[replicas] secret` keep answers for each other, at the store.
    pub shared: bool,
    /// A Valkey or Redis for answers alone; that of `[replicas]` where none is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreUrl>,
    /// How long a call that this gate has no answer to waits for the store's.
    #[serde(with = "super::duration")]
    pub shared_wait: Duration,
    /// The largest answer that is shared.
    pub shared_max_entry: ByteSize,
    /// What this gate writes there a second, at most.
    pub shared_write_rate: ByteSize,
    /// A file that keeps the cache warm over a restart: written when the sidecar stops, and every five minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Other times for single models, by name.
    pub models: BTreeMap<String, ModelCache>,
    /// Answers to questions that mean the same; there are none where it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub semantic: Option<SemanticCache>,
}

/// `[cache.models."…"]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ModelCache {
    /// How long this model's answers are kept.
    #[serde(with = "super::duration")]
    pub ttl: Duration,
}

/// `[cache.semantic]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct SemanticCache {
    /// The model that makes vectors of messages.
    pub model: String,
    /// From this cosine of two vectors on, two messages mean the same.
    pub threshold: f32,
    /// The models whose calls are looked for without asking.
    pub models: Vec<String>,
    /// The keys whose calls are, by their names.
    pub keys: Vec<String>,
    /// How long a call waits for the vector of its message.
    #[serde(with = "super::duration")]
    pub wait: Duration,
    /// The messages that are remembered.
    pub max_entries: usize,
    /// The pairs that were taken for the same of which the page shows the texts.
    pub samples: usize,
}

impl Default for SemanticCache {
    fn default() -> Self {
        let semantic::Settings { model, threshold, wait, max_entries, samples, .. } = semantic::Settings::default();
        let (models, keys) = (Vec::new(), Vec::new());
        Self { model: model.to_string(), threshold, models, keys, wait, max_entries, samples }
    }
}

impl Default for Cache {
    fn default() -> Self {
        let (cache, shared) = (cache::Settings::default(), SharedSettings::default());
        Self {
            ttl: cache.ttl,
            max_bytes: ByteSize::b(cache.max_bytes),
            max_entry: ByteSize::b(cache.max_entry_bytes as u64),
            sampled: cache.sampled,
            shared: false,
            store: None,
            shared_wait: shared.wait,
            shared_max_entry: ByteSize::b(shared.max_entry_bytes as u64),
            shared_write_rate: ByteSize::b(shared.max_write_bytes as u64),
            path: None,
            models: BTreeMap::new(),
            semantic: None,
        }
    }
}

impl Cache {
    /// As the layer takes it.
    pub fn settings(&self) -> cache::Settings {
        cache::Settings {
            ttl: self.ttl,
            models: self.models.iter().map(|(model, own)| (model.as_str().into(), own.ttl)).collect(),
            max_bytes: self.max_bytes.as_u64(),
            max_entry_bytes: usize::try_from(self.max_entry.as_u64()).unwrap_or(usize::MAX),
            sampled: self.sampled,
            ..cache::Settings::default()
        }
    }
}
