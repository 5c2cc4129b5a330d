//! `[otel]`: traces, metrics and the log for a collector of OpenTelemetry's, over OTLP.
//!
//! Each sealed receipt is put in short into a queue. A thread of its own makes spans of them, of what `/metrics` has metrics,
//! and of the log's lines log records, and sends them by POST in protobuf. All that waits is bounded: what finds no room is
//! lost and counted, and a collector that is slow, wrong or dead costs calls nothing.
//!
//! # What it does not do
//! It asks nothing of a collector but that it takes what is sent: no sampling from afar, no profiles. It keeps nothing over a
//! restart. OTLP over gRPC is not spoken.

mod collector;
mod log_lines;
#[cfg(not(feature = "otel"))]
mod off;
#[cfg(feature = "otel")]
mod on;

#[cfg(not(feature = "otel"))]
use self::off as built;
#[cfg(feature = "otel")]
use self::on as built;

pub use self::built::LogLines;
pub(super) use self::built::Telemetry;
