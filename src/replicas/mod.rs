//! Several gates before one account: its limits are held by all of them together.
//!
//! What a limit has let through stands at a [`Store`], kept by owner. Each gate has a [`Session`] with it, which says what the
//! gate's lanes have to say and hears what they are granted, all at once and off the calls' way. See [`Sharing`] for the rules, and
//! `docs/replicas.md` for what is exact and what is not.
//!
//! There are two stores: [`Local`], in this process, and [`Link`], a Valkey or Redis, which does the same steps in a script.
//!
//! # What it does not do
//! It does not share records, and it does not elect anybody: every gate is as good as another.
//!
//! # Example
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use tollgate::layers::rate_limit::{OnStoreLoss, RateLimitLayer, Settings, Sharing};
//! use tollgate::replicas::{Local, Session};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let store = Arc::new(Local::default());
//! let gate = |name: &str| {
//!     let sharing = Sharing::new(OnStoreLoss::Keep, Duration::from_secs(30));
//!     let limits = RateLimitLayer::shared(Settings::default(), sharing.clone());
//!     tokio::spawn(Session::new(name, store.clone(), sharing, limits.clone()).run());
//!     limits
//! };
//! // Each goes into the stack of a gate of its own, and together they hold to one limit.
//! let (one, other) = (gate("one"), gate("other"));
//! # drop((one, other));
//! # });
//! ```

mod board;
#[cfg(test)]
mod budget_faults;
mod cache;
mod clock;
#[cfg(test)]
mod faults;
mod link;
mod local;
mod packed;
mod present;
mod route;
#[cfg(test)]
mod script_tests;
mod session;
mod store;
#[cfg(test)]
mod storm;
#[cfg(test)]
mod world;

pub use self::board::{FIRST, MOST_PLACES, Notice, Noticed, Notices, Tags};
pub use self::cache::{
    CacheLink, LocalShelf, Look, Put, Seen as ShelfSeen, SharedCache, SharedCounts, SharedSettings, Shelf, Stored,
};
pub use self::clock::{FAR, FleetClock};
pub use self::link::{Link, Server};
pub use self::local::Local;
pub use self::present::{Held, Present, Registered};
pub use self::route::LinkError;
pub use self::session::{Seen, Session, Wanted};
pub use self::store::{AGAIN_MS, Answer, Answering, Away, Exchange, FORGET_MS, JUMP_MS, LEARN_MS, Store};
#[cfg(doc)]
use crate::layers::rate_limit::Sharing;
