//! One connection of HTTP/1.1 to upstream, driven by the call that is on it.
//!
//! hyper's client gives each connection a task of its own, a channel to it, and a read buffer for its life. Here whoever waits
//! for the reply polls the socket: nothing is woken twice, and a stream that waits for its next event keeps no buffer, for what
//! is read goes through one buffer of its thread and is copied once into bytes as long as they are.
//!
//! Heads are parsed by [`httparse`], as hyper's are.
//!
//! # What it does not do
//! It sends one request after the other, never two at once, and opens no WebSocket: see [`pool`](super::pool), which also has
//! the connections that lie idle.

mod broken;
mod chunked;
mod connection;
mod framing;
mod head;
mod outgoing;
mod part;
#[cfg(test)]
mod tests;
mod transport;

pub(super) use self::broken::Broken;
pub(super) use self::connection::{Connection, Incoming};
pub(super) use self::transport::Transport;
