//! One call, one receipt: what happened to it and what it cost.
//!
//! [`Identify`](crate::layers::identify) opens the receipt, each layer writes its line, and whoever works on the call
//! (the request, then the reply's body) holds a handle. The receipt is **sealed when the last handle goes**: when the last
//! byte has left, when the client has gone, when a task panics. So it is sealed exactly once, by construction, and a
//! streamed reply's cost is on it. Sealed receipts go to the [`Reader`]s.
//!
//! # What it does not do
//! It decides nothing. A layer that wants to know what another did is in the wrong place in the stack.

mod cost;
mod facts;
mod id;
mod open;
mod outcome;
mod reader;

pub use self::cost::{Cost, Source};
pub use self::facts::{Attempt, BudgetLeft, Estimate, Facts, Metadatum, SocketFacts};
pub use self::id::CallId;
pub use self::open::{Queued, Receipt};
pub use self::outcome::{CacheStatus, Ending, Outcome};
pub use self::reader::{ReadBy, Reader, Readers};
