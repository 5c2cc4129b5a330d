//! What is made of sealed receipts.

pub mod log;
#[cfg(feature = "prometheus")]
pub mod metrics;
pub mod ran;
pub mod recent;
#[cfg(feature = "sidecar")]
pub mod records;
pub mod running;
