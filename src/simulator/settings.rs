//! How the stand-in behaves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::coerce::Coercion;
use crate::catalogue::Entry;
use crate::neurons::Neurons;

/// How the stand-in behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// Its pace: 1.0 is that of the real thing by the model's size, 0.0 answers at once.
    pub latency: f64,
    /// Each model's requests a minute are enforced, in a window that slides.
    pub rate_limits: bool,
    /// The minute of those limits, which a test may shorten.
    pub window: Duration,
    /// What an account has free each UTC day; `None` is the paid plan, which has no end.
    pub free_neurons: Option<Neurons>,
    /// The one token that is accepted; `None` accepts any.
    pub token: Option<String>,
    /// Models beyond or over the built-in table, by name.
    pub models: BTreeMap<String, Entry>,
    /// The share of each account's spending that its Workers make through their binding, where no gate stands: 0.3 is 30%.
    pub elsewhere: f64,
    /// How long the models go on.
    pub writes: Writes,
    /// How figures of the wrong kind are taken.
    pub coercion: Coercion,
    /// How long a socket may be silent.
    pub socket_idle: Duration,
    /// How far the analytics lag: what is half as old as this is seen now and then, what is as old is settled.
    pub analytics_lag: Duration,
}

/// How long the models go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Writes {
    /// Until they have said what they have to say, or are cut off.
    #[default]
    Usual,
    /// Until their limit, or their window where there is none: they think unseen until then, and that is charged.
    ToTheLimit,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            latency: 1.0,
            rate_limits: true,
            window: Duration::from_secs(60),
            free_neurons: None,
            token: None,
            models: BTreeMap::new(),
            elsewhere: 0.0,
            writes: Writes::default(),
            coercion: Coercion::default(),
            socket_idle: Duration::from_secs(10),
            analytics_lag: Duration::ZERO,
        }
    }
}
