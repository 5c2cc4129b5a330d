//! The gate in front of Cloudflare Workers AI: it paces, retries, meters, prices, budgets and caches every call.
//!
//! Workers AI bills in neurons and limits each model's requests a minute. Tollgate stands between a service and the vendor,
//! as tower layers inside a Rust service or as a sidecar beside services in any language, hands the bytes on untouched, and
//! knows of each call what it used, what it cost, and who says so.
//!
//! # The stack
//! ```text
//!  http::Request
//!    │  Identify     which account, model, task: a `Call` from here on, with an open `Receipt`
//!    │  Compat       mends for clients that choke on what the vendor sends
//!    │  Cache        repeats cost nothing; twins in flight share one call
//!    │  Fallback     the next model of a chain, where one cannot answer
//!    │  Budget       reserves before the call, settles after
//!    │  Retry        what a retry can mend, within a budget
//!    │  RateLimit    a permit for every attempt
//!    │  Meter        usage and cost, read off the reply as it passes
//!    ▼
//!  Upstream          the vendor's API, or an AI Gateway
//! ```
//! [`gateway`] composes it; each layer is a module of [`layers`] with an example of its own. The nouns it speaks in:
//! [`Call`], [`Receipt`], [`Neurons`], [`Usage`](usage::Usage), and the [`Catalogue`] of models. When a call is over, its receipt
//! goes to the [`Reader`]s: `readers::metrics` is Prometheus.
//!
//! # Ten lines
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use tollgate::{client::WorkersAi, gateway::Gateway, readers::metrics::Metrics};
//!
//! let metrics = Arc::new(Metrics::new()?);
//! let gate = Gateway::builder()
//!     .account("023e105f4ecef8ad9ca31a8372d0c353")
//!     .token("<Workers AI API token>")
//!     .reader(metrics.clone())
//!     .build()?;
//! let ai = WorkersAi::new(gate);
//! let inputs = serde_json::json!({"prompt": "Why is the sky blue?"});
//! let answer = ai.run("@cf/meta/llama-3.2-1b-instruct", &inputs).await?;
//! println!("{:?} for {} neurons\n{}", answer.text(), answer.receipt.cost.neurons, metrics.render()?);
//! # Ok(()) }
//! ```
//!
//! # Where to look
//! | you want | look at |
//! |---|---|
//! | the whole gate, in axum, hyper or around reqwest | [`gateway`] |
//! | to ask models from Rust | [`client`] |
//! | one layer alone, or in another order | [`layers`]: [`rate_limit`](layers::rate_limit), [`retry`](layers::retry), [`budget`](layers::budget), [`cache`](layers::cache), [`fallback`](layers::fallback), [`meter`](layers::meter), [`compat`](layers::compat), [`identify`](layers::identify) |
//! | what a call used and cost | [`receipt`], and [`Reader`] for a reader of your own |
//! | prices, limits and tasks of models | [`catalogue`] |
//! | what a call would cost | [`estimate`] |
//! | live prices, the account's whole spend, a reconciliation | [`books`] |
//! | Prometheus | `readers::metrics` |
//!
//! # Features
//! | | brings |
//! |---|---|
//! | `sidecar` (on by default) | the binary with all it needs: config, listeners, command line, records, and all below |
//! | `reqwest` | the gate's own HTTP client ([`Gateway::builder`]'s `build`); without it a gate is built [around](upstream::Around) one of yours |
//! | `prometheus` | `readers::metrics` |
//! | `simulator` | Workers AI on loopback |
//! | `encodings` | request bodies in gzip, deflate, br and zstd are measured; without it they are refused with 415 |
//! | `sockets` | speech over WebSockets: see [`socket`] |
//! | `sound` | how long Ogg, WebM, MP4 and FLAC last; without it they are bounded by their bytes |
//! | `replicas` | several gates share limits, budgets and answers through a Valkey or Redis |
//!
//! A library takes `default-features = false` and what it uses of these: `features = ["reqwest"]` for most.
//!
//! # What it does not do
//! It is for Workers AI alone, directly or through Cloudflare's AI Gateway. It does not translate between vendors, choose
//! models by itself, or change what a client sent.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod affinity;
pub mod amount;
pub mod audio;
pub mod batches;
pub mod body;
pub mod books;
pub mod call;
pub mod catalogue;
pub mod ceiling;
#[cfg(feature = "sidecar")]
#[doc(hidden)]
// What it says is a terminal's help.
#[allow(rustdoc::bare_urls)]
pub mod cli;
pub mod client;
pub mod departure;
mod endpoint;
mod error;
pub mod estimate;
pub mod gateway;
mod headers;
mod json;
pub mod layers;
pub mod memory;
pub mod neurons;
pub mod openai;
pub mod pace;
pub mod payload;
pub mod peer;
pub mod preview;
#[cfg(feature = "sidecar")]
mod priority;
pub mod readers;
pub mod receipt;
#[cfg(feature = "replicas")]
pub mod replicas;
mod reply;
#[cfg(feature = "sidecar")]
#[doc(hidden)]
pub mod sidecar;
#[cfg(feature = "simulator")]
pub mod simulator;
pub mod socket;
mod sse;
pub mod trace;
pub mod upstream;
pub mod usage;
pub mod vendor_error;

// The name that these books had before.
#[doc(hidden)]
pub use books as vendor;
pub use call::Call;
pub use catalogue::Catalogue;
pub use client::WorkersAi;
pub use endpoint::ErrorForm;
pub use error::Error;
pub use gateway::Gateway;
pub use neurons::Neurons;
pub use receipt::{Facts, Reader, Receipt};
