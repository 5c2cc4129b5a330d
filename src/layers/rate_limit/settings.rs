//! How calls are held to their limits.

use std::collections::HashMap;
use std::time::Duration;

use super::caller::FairBy;
use crate::catalogue::{Limit, Slot};

/// How calls are held to their limits. The limits themselves are the catalogue's, unless changed here.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How long a call may wait for its turn; zero refuses at once.
    pub max_wait: Duration,
    /// How many calls may wait for one model of one account.
    pub max_queue: usize,
    /// Other limits for models, by name.
    pub models: HashMap<String, Quota>,
    /// Limits of keys, by name, on each model, besides the model's own.
    pub keys: HashMap<String, Quota>,
    /// What tells callers apart who have no key.
    pub fair_by: FairBy,
}

/// What a model or a key may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Requests a time; `None` leaves the catalogue's limit.
    pub requests: Option<Limit>,
    /// Input and output tokens a time; `None` leaves them free.
    pub tokens: Option<Limit>,
}

impl From<Limit> for Quota {
    /// Of requests.
    fn from(requests: Limit) -> Self {
        Self { requests: Some(requests), tokens: None }
    }
}

/// How a model stands. Where several accounts are served, that of the account that has least.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ModelStanding {
    /// The model; unlisted ones share one.
    pub slot: Slot,
    /// Its limit, in requests a window.
    pub limit: u32,
    /// What is left of it in the window that ends now.
    pub remaining: u32,
    /// Calls that wait, of all accounts.
    pub waiting: usize,
    /// The share of the limit that upstream was last found to have room for: 1 is all.
    pub pace: f64,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_wait: Duration::from_secs(10),
            max_queue: 1000,
            models: HashMap::default(),
            keys: HashMap::default(),
            fair_by: FairBy::default(),
        }
    }
}
