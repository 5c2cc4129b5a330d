//! How budgets stand, and their buckets.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::amount::Currency;
use crate::neurons::Neurons;

/// How a budget stands.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// The budget's name.
    pub name: String,
    /// What its limit is written in.
    pub currency: Currency,
    /// Of each bucket.
    pub limit: Neurons,
    /// All buckets together.
    pub spent: Neurons,
    /// All buckets together.
    pub reserved: Neurons,
    /// What the vendor's books have beyond that, all buckets together: see [`Budgets::book`](super::Budgets::book).
    pub elsewhere: Neurons,
    /// What the fullest bucket has left.
    pub left: Neurons,
    /// How many buckets there are.
    pub buckets: usize,
    /// Calls refused.
    pub rejected: u64,
    /// Calls sent to a cheaper model instead.
    pub diverted: u64,
    /// Neurons a second, all buckets together, over the last minutes.
    pub pace_per_second: f64,
    /// When `left` will be gone at this pace; `None` where nothing is being spent.
    pub lasts: Option<Duration>,
    /// When the window ends, or its oldest part.
    pub resets_at: SystemTime,
}

/// How one bucket stands.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BucketStatus {
    /// The values that the budget is split by, as a JSON array; empty where it is not split.
    pub bucket: Arc<str>,
    /// What it may spend.
    pub limit: Neurons,
    /// What it has spent, with what the vendor's books have beyond that.
    pub spent: Neurons,
    /// What calls that run may cost.
    pub reserved: Neurons,
}
