//! What is made of sealed receipts.

pub mod log;
pub mod metrics;
#[cfg(feature = "sidecar")]
pub mod records;
