//! `[timeouts]`: how long the gate waits for a client, on the clients' port and on the admin port.
//!
//! The names are nginx's and Envoy's. What is waited for on the other side is in `[upstream]`.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// How long the gate waits for a client. Each has an end, so that no connection holds its place for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Timeouts {
    /// From a connection's first moment to the first byte of a request; in HTTP/2 to the end of the preface.
    #[serde(with = "super::duration")]
    pub handshake: Duration,
    /// From the first byte of a request's head to its last. nginx: `client_header_timeout`; Envoy: `request_headers_timeout`.
    #[serde(with = "super::duration")]
    pub header: Duration,
    /// How long a client may pause within its request's body. nginx: `client_body_timeout`.
    #[serde(with = "super::duration")]
    pub body: Duration,
    /// The least rate of a request's body, in bytes a second: a body may take `body`, and a second more for each so many
    /// bytes. `0B` sets none.
    pub body_min_rate: ByteSize,
    /// How long a large body waits for its turn where `max_body_memory` is taken, before it is refused with 503.
    #[serde(with = "super::duration")]
    pub body_queue: Duration,
    /// How long a client may take nothing of its reply. nginx: `send_timeout`.
    #[serde(with = "super::duration")]
    pub send: Duration,
    /// The least rate at which a reply is taken while it is held up by the client, in bytes a second. `0B` sets none.
    pub send_min_rate: ByteSize,
    /// How long the rest of a body is read and thrown away that was refused before it was all here, so that the client sees the
    /// reason and no reset; at most 64 MiB of it, and no longer than it pauses for 5 seconds. `0s` reads none. nginx:
    /// `lingering_time`.
    #[serde(with = "super::duration")]
    pub linger: Duration,
    /// How long a connection may stay open without a call. nginx: `keepalive_timeout`; Envoy: `idle_timeout`.
    #[serde(with = "super::duration")]
    pub idle: Duration,
    /// From a request's head to the last byte of its reply; `0s` sets no end. Envoy: `timeout` of a route.
    #[serde(with = "super::duration")]
    pub call: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(30),
            body: Duration::from_secs(30),
            body_min_rate: ByteSize::kib(16),
            body_queue: Duration::from_secs(10),
            send: Duration::from_secs(60),
            send_min_rate: ByteSize::kib(1),
            linger: Duration::from_secs(30),
            idle: Duration::from_secs(75),
            call: Duration::from_secs(3600),
        }
    }
}
