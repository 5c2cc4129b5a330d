//! wip
mod after;
pub(super) use after::retry_after;
