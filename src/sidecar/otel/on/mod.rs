//! Telemetry in a program that was built with it.

mod calls;
mod counts;
mod figures;
mod genai;
mod lines;
mod run;
mod send;
mod spans;

pub use self::lines::LogLines;
pub(in crate::sidecar) use self::run::Telemetry;
