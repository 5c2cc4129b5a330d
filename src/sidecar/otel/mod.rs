//! `[otel]`: traces, metrics and the log for a collector of OpenTelemetry's, over OTLP.
//!
//! Each sealed receipt is put in short into a queue. A thread of its own makes spans of them, of what `/metrics` has metrics,
//! and of the log's lines log records, and sends them by POST in protobuf. All that waits is bounded: what finds no room is
//! lost and counted, and a collector that is slow, wrong or dead costs calls nothing.
//!
//! # What it does not do
//! It asks nothing of a collector but that it takes what is sent: no sampling from afar, no profiles. It keeps nothing over a
//! restart. OTLP over gRPC is not spoken.

#[cfg(feature = "otel")]
mod calls;
#[cfg(feature = "otel")]
mod counts;
#[cfg(feature = "otel")]
mod figures;
#[cfg(feature = "otel")]
mod genai;
#[cfg(feature = "otel")]
mod lines;
#[cfg(not(feature = "otel"))]
mod off;
#[cfg(feature = "otel")]
mod run;
#[cfg(feature = "otel")]
mod send;
mod settings;
#[cfg(feature = "otel")]
mod spans;

#[cfg(feature = "otel")]
use self::counts::{Counts, Fate};
#[cfg(feature = "otel")]
pub use self::lines::LogLines;
#[cfg(not(feature = "otel"))]
pub use self::off::LogLines;
#[cfg(not(feature = "otel"))]
pub(super) use self::off::Telemetry;
#[cfg(feature = "otel")]
pub(super) use self::run::Telemetry;
pub use self::settings::Otel;
#[cfg(feature = "otel")]
use self::settings::Signal;
