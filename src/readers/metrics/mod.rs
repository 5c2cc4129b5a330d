//! Receipts, counted for Prometheus.
//!
//! Every series has labels from bounded sets: a model's label is its catalogue name or `other`; never a user's id, a path,
//! a key or a prompt. Handles are resolved once a model, so that a call looks no label up.

mod books;
mod budgets;
mod counting;
#[cfg(feature = "sidecar")]
pub(crate) mod events;
mod families;
mod gate;
mod kinds;
#[cfg(feature = "sidecar")]
mod outlook;
#[cfg(feature = "sidecar")]
mod records;
mod register;
#[cfg(feature = "sidecar")]
pub(crate) mod reloads;
mod semantic;
#[cfg(feature = "replicas")]
mod shared_cache;
mod speech;
mod standing;
#[cfg(feature = "replicas")]
mod store;
#[cfg(feature = "otel")]
pub(crate) mod telemetry;
pub mod totals;
mod watched;
mod watching;

pub use self::gate::Metrics;
pub use self::register::MetricsError;
