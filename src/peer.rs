//! Where a request came from.

use std::net::SocketAddr;

/// The other end of the connection that a request came on: a client, or the proxy before it. A server that knows it puts it
/// into the request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer(pub SocketAddr);
