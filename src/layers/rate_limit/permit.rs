//! What a call took of its limits, to be given back or set right.

use super::window::Taken;

/// What a call took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permit {
    pub(super) caller: u64,
    pub(super) requests: Taken,
    pub(super) tokens: Option<Taken>,
    pub(super) own_requests: Option<Taken>,
    pub(super) own_tokens: Option<Taken>,
}

impl Permit {
    pub(super) fn counts_tokens(&self) -> bool {
        self.tokens.is_some() || self.own_tokens.is_some()
    }
}
