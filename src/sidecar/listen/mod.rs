//! The front door: connections are accepted, held to their limits, and turned away where there is no room.
//!
//! A connection passes through phases, each with a limit of its own ([`activity`]); its socket fails where the client takes
//! nothing ([`socket`]), and so does each stream of an HTTP/2 connection ([`stream`]). Where every place is taken,
//! connections without a call make room ([`room`]). The clients' port and the admin port are served alike, each with
//! places of its own.
//!
//! # What it does not do
//! It reads no bodies that anybody else reads ([`upload`] has the rest of what was refused): how slowly a request's body may
//! come is [`identify`](crate::layers::identify)'s to say.

mod accept;
mod activity;
mod bind;
mod connection;
mod room;
mod socket;
mod stopping;
mod stream;
mod transport;
mod upload;

pub(super) use self::accept::{Serving, serve};
pub(super) use self::activity::Limits;
pub(super) use self::bind::{BoundSockets, bind};
pub(super) use self::room::Addresses;
pub(super) use self::upload::Upload;
