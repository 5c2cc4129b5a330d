//! What a call asks of its lane, and within which bounds it may wait.

use super::window::Rate;

/// What a model or a key may have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rates {
    pub(super) requests: Option<Rate>,
    pub(super) tokens: Option<Rate>,
}

/// What a call asks of its lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneRequest {
    pub(super) caller: u64,
    /// The caller has no key of the gate's, so that nothing bounds how many there are.
    pub(super) is_keyless: bool,
    /// The model's limits, as they are now.
    pub(super) requests_limit: Rate,
    pub(super) tokens_limit: Option<Rate>,
    /// Input and output, as estimated; zero where nothing limits them.
    pub(super) tokens: u32,
    /// The key's own limits.
    pub(super) own: Rates,
}

/// How long and how many may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitLimits {
    pub(super) max_wait: u64,
    pub(super) max_queue: usize,
}

impl Rates {
    pub(super) fn is_any(self) -> bool {
        self.requests.is_some() || self.tokens.is_some()
    }
}
