//! `[reservations]`: what all budgets have in common.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::batches::RELEASE_AFTER;
use crate::layers::budget;

/// `[reservations]`: what all `[[budgets]]` have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Reservations {
    /// How long a call may wait for room that only calls still running take up; `0s` is not at all.
    #[serde(with = "super::duration")]
    pub max_wait: Duration,
    /// How many calls may wait in one bucket.
    pub max_waiting: usize,
    /// How many buckets a budget that is split may have; further values share one.
    pub max_buckets: usize,
    /// Admit a call that would be refused with a lower `max_tokens`, if that fits.
    pub clamp_max_tokens: bool,
    /// But not with less than this.
    pub min_tokens: u32,
    /// What becomes of a call whose cost nothing bounds, where a budget that refuses counts it: `"refuse"`, `"allow"`, or what
    /// it reserves, such as `"50 neurons"`.
    pub unpriced: budget::Unpriced,
    /// How long what a batch may cost stays reserved for one whose answers never come.
    #[serde(with = "super::duration")]
    pub release_batches: Duration,
    /// Replies tell what the budget that has least left has left, and for how long: `x-tollgate-budget-remaining`, `-reset`.
    pub headers: bool,
}

impl Default for Reservations {
    fn default() -> Self {
        let budget::Settings {
            max_wait,
            max_waiting,
            max_buckets,
            clamp_max_tokens,
            min_tokens,
            unpriced,
            headers,
            ..
        } = budget::Settings::default();
        Self {
            max_wait,
            max_waiting,
            max_buckets,
            clamp_max_tokens,
            min_tokens,
            unpriced,
            headers,
            release_batches: RELEASE_AFTER,
        }
    }
}
