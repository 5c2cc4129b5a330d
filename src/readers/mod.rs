//! What is made of sealed receipts.

pub mod metrics;
