//! How connections are told of the end.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What every connection knows of the end.
#[derive(Clone)]
pub(super) struct Stopping {
    /// Nothing new is accepted.
    pub(super) stop: CancellationToken,
    /// The same for each reply to look at.
    pub(super) is_over: Arc<AtomicBool>,
    /// What is still open has to end.
    pub(super) last_call: CancellationToken,
    pub(super) connections: TaskTracker,
}
