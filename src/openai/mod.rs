//! OpenAI's forms over the vendor's.
//!
//! The gate has two faces. The short routes `/v1/…` are its own, and give what OpenAI's documentation promises of them; the
//! vendor's paths are the vendor's, byte for byte. [`Face`] tells which one a call came to, and [`Answer`] what its caller
//! expects there; [`Settings`] choose otherwise.
//!
//! # What it does not do
//! It sends nothing and holds nothing: [`Identify`](crate::layers::identify) makes the calls, and
//! [`Compat`](crate::layers::compat) mends their replies.

pub(crate) mod completions;
mod convert;
mod face;
mod form;
mod formats;
mod images;
pub(crate) mod models;
mod moderations;
mod native;
pub(crate) mod object;
mod reply;
pub(crate) mod request;
mod rerank;
mod route;
mod settings;
mod speech;
mod transcriptions;

pub use self::face::{Answer, Face};
pub use self::formats::{SpeechFormat, TranscriptFormat};
pub(crate) use self::reply::NativeReply;
pub(crate) use self::route::Route;
pub use self::settings::{Form, Reasoning, Settings};
