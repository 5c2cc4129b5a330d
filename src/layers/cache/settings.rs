//! What is kept, for how long, and how much of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How the cache keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How long an answer is kept; zero keeps only what a request asks to keep.
    pub ttl: Duration,
    /// The same for single models, by name.
    pub models: HashMap<Arc<str>, Duration>,
    /// What all answers together may weigh, in bytes, with all that is kept about them.
    pub max_bytes: u64,
    /// The largest answer that is kept, in bytes. [`max_bytes`](Self::max_bytes) lie in parts of 64 to 128 MiB, and what is over 60 MiB may
    /// find none that it fits into.
    pub max_entry_bytes: usize,
    /// Keep and share also answers that another call would get another of: texts without a `seed` whose `temperature` is not
    /// 0, pictures without a `seed`.
    pub sampled: bool,
    /// Where calls go, such as a base URL. It tells apart in a further tier what gates before different upstreams keep; an answer
    /// in memory is not told apart by it.
    pub upstream: Arc<str>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(300),
            models: HashMap::new(),
            max_bytes: 256 << 20,
            max_entry_bytes: 8 << 20,
            sampled: false,
            upstream: "".into(),
        }
    }
}
