//! `[sockets]`: how speech over WebSockets is held.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::socket;

/// How WebSockets are held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Sockets {
    /// How much speech is reserved at a time, where a budget counts it. Less is reserved where less is left, down to a second.
    #[serde(with = "super::duration")]
    pub stretch: Duration,
    /// How long until the vendor has accepted one.
    #[serde(with = "super::duration")]
    pub open_timeout: Duration,
    /// How long nothing may pass, either way; `0s` sets no end. The vendor has limits of its own.
    #[serde(with = "super::duration")]
    pub idle_timeout: Duration,
    /// How long one may stay open; `0s` sets no end.
    #[serde(with = "super::duration")]
    pub max_duration: Duration,
    /// The longest frame that passes, either way.
    pub max_frame: ByteSize,
    /// Opening one takes a turn of its model's requests a minute. Whether the vendor counts connections is not known.
    pub takes_turn: bool,
}

impl Default for Sockets {
    fn default() -> Self {
        let socket::Settings { stretch, open_timeout, idle_timeout, max_duration, max_frame, takes_turn } =
            socket::Settings::default();
        Self { stretch, open_timeout, idle_timeout, max_duration, max_frame: ByteSize::b(max_frame), takes_turn }
    }
}

impl Sockets {
    /// As the layers take it.
    pub fn settings(&self) -> socket::Settings {
        let Self { stretch, open_timeout, idle_timeout, max_duration, max_frame, takes_turn } = *self;
        // No shorter a stretch is worth reserving.
        let stretch = stretch.max(Duration::from_secs(1));
        socket::Settings {
            stretch,
            open_timeout,
            idle_timeout,
            max_duration,
            max_frame: max_frame.as_u64(),
            takes_turn,
        }
    }
}
