//! Tollgate
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod audio;
pub mod body;
pub mod call;
pub mod catalogue;
mod error;
pub mod estimate;
pub mod gateway;
pub mod layers;
pub mod neurons;
pub mod readers;
pub mod receipt;
pub mod upstream;
pub mod usage;
pub mod vendor_error;

pub use error::Error;
