//! Why a call gets no permit, in words that follow from it.

use std::time::Duration;

use crate::Error;
use crate::call::Call;
use crate::error::Quota;

/// Why a call gets no permit, and how the limit stands that holds it up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    pub(super) why: Why,
    pub(super) limit: Held,
    pub(super) retry_after: Duration,
    /// Calls that wait for the model.
    pub(super) waiting: usize,
}

/// Why it does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Nothing comes free within `max_wait`.
    TooLong,
    /// It waited `max_wait`.
    Waited,
    /// The queue is full.
    Full,
}

/// The limit that has its next turn last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) by: By,
    pub(super) units: u32,
    pub(super) per: Duration,
    /// Units that upstream was last found to have room for.
    pub(super) cap: u32,
    /// Units of the window that nothing has taken.
    pub(super) left: u32,
    /// Units that the call needs.
    pub(super) needed: u32,
    /// There would be a turn now, if it were not another's.
    pub(super) is_open: bool,
}

/// Which limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Requests,
    Tokens,
    KeyRequests,
    KeyTokens,
    /// A key's requests of all models.
    KeyDoor,
    /// The pause that upstream asked for.
    Upstream,
}

// === impl Refusal ===

impl Refusal {
    pub(super) fn error(self, call: &Call, max_wait: Duration) -> Error {
        let Self { limit, retry_after, waiting, .. } = self;
        let max_wait = max_wait.as_secs_f64();
        let why = match self.why {
            Why::TooLong => format!("the next turn is further off than max_wait ({max_wait} s)"),
            Why::Waited => format!("no turn came within max_wait ({max_wait} s)"),
            Why::Full => format!("{waiting} calls wait already (max_queue)"),
        };
        let what = format!("{}, and {why}", limit.describe(call));
        Error::RateLimited { what, retry_after, limit: Some(limit.quota()) }
    }
}

// === impl Held ===

impl Held {
    fn quota(self) -> Quota {
        let left = if self.by == By::Upstream { 0 } else { self.left };
        Quota { policy: self.by.policy(), units: self.units, per: self.per, left }
    }

    fn describe(self, call: &Call) -> String {
        let id = &call.model.id;
        if self.by == By::Upstream {
            return format!("Workers AI has asked for a pause in the calls of {id}");
        }
        let whose = match (self.by, &call.key) {
            (By::KeyRequests | By::KeyTokens, Some(key)) => format!("the limit of the key {key:?} for {id}"),
            _ => format!("the limit of {id}"),
        };
        let (units, unit) = (self.units, self.by.unit());
        let limit = match self.per.as_secs() {
            60 => format!("{whose}, {units} {unit} a minute"),
            _ => format!("{whose}, {units} {unit} in {} s", self.per.as_secs_f64()),
        };
        let limit = if self.cap < units {
            format!("{limit}, of which Workers AI has lately had room for {}", self.cap)
        } else {
            limit
        };
        match self.left {
            0 => format!("{limit}, is used up"),
            left if left < self.needed => {
                format!("{limit}, has {left} left of the {} that this call may take", self.needed)
            }
            left if self.is_open => {
                format!("{limit}, has {left} left, and callers who were told to come back go first")
            }
            left => format!("{limit}, has {left} left, which are spread over the time to come"),
        }
    }
}

// === impl By ===

impl By {
    fn unit(self) -> &'static str {
        match self {
            Self::Requests | Self::KeyRequests | Self::KeyDoor | Self::Upstream => "requests",
            Self::Tokens | Self::KeyTokens => "tokens",
        }
    }

    /// Its name in the `ratelimit` headers.
    fn policy(self) -> &'static str {
        match self {
            Self::Requests | Self::Upstream => "model",
            Self::Tokens => "model-tokens",
            Self::KeyRequests | Self::KeyDoor => "key",
            Self::KeyTokens => "key-tokens",
        }
    }
}
