//! A stand-in for Workers AI on loopback, for the demo, the tests and the benches. No account, no internet, no bill.
//!
//! It has the vendor's books, too: the list of models with prices in dollars, and analytics that lag and settle, with Workers'
//! calls that no gate sees.
//!
//! It knows the vendor's routes, reply shapes, three ways of telling usage in a stream, rate limits, free allocation and
//! errors (documentation of 2026-08 to 2026-10, and captures from the wire), and it is exact: the same question gets the same answer, byte by byte, and
//! [`Running::counts`] tells what it charged, so that whoever stands before it can be checked.
//!
//! It reads bodies as JavaScript would (`JSON.parse`, `FormData`, `Number`), with code of its own, and has no default for
//! `max_tokens` where the vendor has none. What the vendor's schemas leave open it takes plainly, or in the way that costs
//! most: see [`Coercion`] and [`Writes`].
//!
//! A request can ask for trouble with the header `x-simulate`, and so can a test with [`Running::fault`]: see [`Fault`].
//! `x-simulate-usage: end|running|increments|none` chooses when a stream tells its usage, and
//! `chat|responses|both|strings|in-choice|absurd` in which words; a comma stands between. `x-simulate-batch` chooses when and in which
//! shape a batch is answered.
//!
//! # What it does not do
//! It thinks nothing: its words are drawn from a list, its pictures are all the same. It keeps nothing across a restart.

mod analytics;
mod answer;
mod answers;
mod batch;
mod binary;
mod books;
mod books_trouble;
mod coerce;
mod connection;
mod dice;
mod encoding;
mod envelope;
mod errors;
mod event;
mod fault;
mod form;
mod hearing;
mod js;
mod limits;
mod media;
mod messages;
mod moondream;
mod pace;
mod picture;
mod pictures;
mod prompt;
mod received;
mod reply;
mod route;
mod router;
mod running;
mod search;
mod seen;
mod server;
mod settings;
mod sockets;
mod sound;
mod state;
mod stream;
mod streamed;
mod text;
mod tokenizer;
#[cfg(feature = "reqwest")]
pub mod traffic;
mod usage;
mod vectors;
pub mod voice;
mod window;
mod writer;

#[cfg(test)]
mod tests;

pub use self::books::{Counts, ModelCounts};
pub use self::books_trouble::BooksTrouble;
pub use self::coerce::Coercion;
pub use self::errors::Form;
pub use self::event::Framing;
pub use self::fault::{Fault, FaultRule, Trouble};
pub use self::running::{Running, start};
pub use self::seen::Seen;
pub use self::settings::{Settings, Writes};
