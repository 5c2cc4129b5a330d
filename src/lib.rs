//! Tollgate
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod audio;
pub mod body;
pub mod call;
pub mod catalogue;
#[cfg(feature = "sidecar")]
pub mod cli;
mod error;
pub mod estimate;
pub mod gateway;
pub mod layers;
pub mod neurons;
pub mod readers;
pub mod receipt;
#[cfg(feature = "sidecar")]
pub mod sidecar;
pub mod upstream;
pub mod usage;
pub mod vendor_error;

pub use error::Error;
