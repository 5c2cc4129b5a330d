//! Speech over WebSockets: opened like any call, metered as it flows, ended where its money ends.
//!
//! A request for an upgrade becomes a [`Call`](crate::call::Call) with an [`Opening`], and passes the same layers as any other: it
//! is identified, takes a permit, reserves its first stretch, and is tried again where its refusal can be mended. Its reply is
//! `101`. From then on the bytes of both sides pass as they come, frame by frame and unchanged, and the receipt stays open
//! until the socket ends.
//!
//! # How it is metered
//! Audio that is heard is counted by the vendor's own word first (`Metadata.duration`), else by whichever is more: what the
//! vendor has told of (`start + duration`, `audio_window_end`) or what was sent, by its encoding and rate. Most clients never
//! send `CloseStream`, so the count stands without it. Speech that is made is counted by the characters of `Speak`, also of those
//! that a `Clear` took back.
//!
//! # How it is held to budgets
//! A stretch ([`Settings::stretch`], or as much of it as is left) is reserved when it opens, and the next one before the last is
//! half used. A frame that no stretch covers is not passed on: the vendor is asked to finish, its last words are passed, and the
//! client gets a message in the model's own dialect and close code 1008.
//!
//! # What it does not do
//! It takes no compression (`permessage-deflate` is not offered to the vendor), for what it cannot read it could not count. It
//! answers no pings: they pass, too.

mod audio;
mod dialect;
#[cfg(feature = "sockets")]
mod ended;
#[cfg(feature = "sockets")]
mod frames;
#[cfg(feature = "sockets")]
mod handshake;
#[cfg(feature = "sockets")]
mod lane;
#[cfg(feature = "sockets")]
mod meter;
#[cfg(feature = "sockets")]
mod tunnel;
#[cfg(feature = "sockets")]
mod words;

#[cfg(feature = "sockets")]
use std::sync::Arc;
use std::time::Duration;

pub use self::audio::Audio;
#[cfg(feature = "sockets")]
pub(crate) use self::audio::pairs;
pub use self::dialect::Dialect;
#[cfg(feature = "sockets")]
pub(crate) use self::handshake::{Handshake, is_upgrade, take_protocol_token};
#[cfg(feature = "sockets")]
pub(crate) use self::meter::Meter;
#[cfg(feature = "sockets")]
pub(crate) use self::tunnel::Tunnel;
use crate::usage::Usage;

/// What a call for a socket asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opening {
    /// What is said on it.
    pub dialect: Dialect,
    /// How the client's audio is counted.
    pub audio: Audio,
    /// How it is held.
    pub settings: Settings,
}

/// How sockets are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// How much speech is reserved at a time, where a budget counts it.
    pub stretch: Duration,
    /// How long until the vendor has accepted it.
    pub open_timeout: Duration,
    /// How long nothing may pass, either way; zero sets no end. The vendor has limits of its own, of about 10 s.
    pub idle_timeout: Duration,
    /// How long it may stay open; zero sets no end.
    pub max_duration: Duration,
    /// The longest frame that passes, in bytes.
    pub max_frame: u64,
    /// Opening one takes a turn of its model's requests a minute. Whether the vendor counts connections is not known.
    pub takes_turn: bool,
}

/// No less than so much speech is reserved: where less is left, the socket ends.
pub(crate) const LEAST: Duration = Duration::from_secs(1);

#[cfg(feature = "sockets")]
/// What a socket's connection tells it: kept in the extensions of the request that opens it.
pub(crate) trait Connection: Send + Sync {
    /// Ready once the connection has to end.
    fn closing(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
}

#[cfg(feature = "sockets")]
/// What is held as long as the socket is open: its place among the clients' connections.
#[derive(Clone)]
pub(crate) struct Connected(pub(crate) Arc<dyn Connection>);

#[cfg(feature = "sockets")]
/// The same on the other side: in the extensions of the reply.
#[derive(Clone)]
pub(crate) struct Held(#[allow(dead_code, reason = "it is kept, and not looked at")] pub(crate) Arc<dyn Send + Sync>);

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            stretch: Duration::from_secs(30),
            open_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(300),
            max_duration: Duration::from_secs(4 * 3600),
            max_frame: 16 << 20,
            takes_turn: true,
        }
    }
}

// === impl Opening ===

impl Default for Opening {
    fn default() -> Self {
        Self { dialect: Dialect::Audio, audio: Audio::of(Dialect::Audio, ""), settings: Settings::default() }
    }
}

impl Opening {
    /// What it uses in so long a time of speech.
    pub(crate) fn usage(&self, time: Duration) -> Usage {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        match self.dialect {
            Dialect::Speak => Usage { characters: millis.saturating_mul(SPEECH) / 1000, ..Usage::default() },
            _ => Usage { audio_ms: millis.saturating_mul(self.audio.channels.into()), ..Usage::default() },
        }
    }
}

/// A usual speech, in characters a second.
const SPEECH: u64 = 15;
