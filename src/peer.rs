//! Where a request came from.

use std::net::SocketAddr;
use std::sync::Arc;

/// The other end of the connection that a request came on: a client, or the proxy before it. A server that knows it puts it
/// into the request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer(pub SocketAddr);

/// The name of a client whose certificate was verified: the common name of its subject. A server that asks for certificates puts
/// it into the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Certified(pub Arc<str>);
