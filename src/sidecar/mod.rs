//! The gate as a program of its own, beside services in any language.
//!
//! Each worker is a thread with a runtime, a listener and upstream connections of its own; workers share only the layers'
//! state. The admin port has a thread to itself, so that a scrape holds no call up.

mod admin;
mod admin_state;
pub(crate) mod advice;
mod background;
pub mod books;
pub mod browsers;
mod budget_changes;
mod changes;
mod check;
mod compress;
pub mod config;
mod door;
mod entrance;
pub mod exposure;
mod generation;
pub mod guard;
mod guesses;
pub mod handover;
mod key_api;
mod key_rows;
pub mod key_store;
mod listen;
mod logs;
pub mod machine;
mod notices;
pub mod otel;
pub(crate) mod outlook;
pub(crate) mod page;
mod plan;
mod rate_limits;
mod records_copy;
mod reload;
pub(crate) mod replayed;
pub mod replicas;
mod road;
mod running;
mod runtimes;
mod semantic_cache;
pub mod service;
pub mod shared_cache;
pub mod spending;
mod threads;
pub mod tls;
mod warm;
pub mod webhooks;

pub use self::check::check;
pub(crate) use self::check::check_with_files;
pub use self::reload::{ReloadError, Reloaded};
pub use self::running::{Sidecar, StartError};
