//! What the door needs to know.

use std::sync::Arc;
use std::time::Duration;

use super::complaints::Complaints;
use super::keys::{Keys, Turns};
use super::pass_through::PassThrough;
use crate::affinity::Affinity;
use crate::batches::Batches;
use crate::catalogue::{Aliases, Catalogue};
use crate::memory::Memory;
use crate::openai;
use crate::pace::Pace;
use crate::payload::Payloads;
use crate::preview::Foresee;
use crate::receipt::Readers;
use crate::socket;

/// How the door works.
#[derive(Clone)]
pub struct Settings {
    /// The models.
    pub catalogue: Arc<Catalogue>,
    /// The account of the short routes, and the only one that the gate's own token is for.
    pub account: Option<Arc<str>>,
    /// Further accounts that paths may name, each with limits and a free allocation of its own, and with clients' tokens. All
    /// that are not listed share one; where the gate has an account and a token they are refused.
    pub accounts: Vec<Arc<str>>,
    /// The largest body that is read, in bytes.
    pub max_body: u64,
    /// How slowly a client may send its body.
    pub body_pace: Pace,
    /// What all large bodies together may take.
    pub memory: Memory,
    /// How long a large body waits for its part of that.
    pub body_queue: Duration,
    /// How long a call for a stream may stay without an answer before its client is sent a comment, and then another; the
    /// reply's status is 200 from then on. `None` sends none.
    pub keepalive: Option<Duration>,
    /// The gate has a token of its own, so that a client needs none.
    pub has_token: bool,
    /// What leaves with that token besides calls.
    pub pass_through: Vec<PassThrough>,
    /// A budget can refuse calls, so that nothing may pass uncounted. [`stack`](crate::gateway::stack) sets it.
    pub has_budgets: bool,
    /// Calls leave through an AI Gateway of the config's, whatever gateway a request names. [`stack`](crate::gateway::stack)
    /// sets it.
    pub has_gateway: bool,
    /// Clients' own keys. With any, a client needs one, and its Authorization is not the vendor's.
    pub keys: Keys,
    /// Where several gates share the turns of keys.
    pub turns: Option<Arc<dyn Turns>>,
    /// Which bodies are kept on the receipt, for its readers.
    pub payloads: Payloads,
    /// Who reads the receipts.
    pub readers: Readers,
    /// Other names of models, on the short routes.
    pub aliases: Arc<Aliases>,
    /// Which routes answer as OpenAI does, and how.
    pub openai: openai::Settings,
    /// The batches that wait for their answers: one who asks for these need not say so in the query.
    pub batches: Batches,
    /// How WebSockets are held.
    pub sockets: socket::Settings,
    /// Puts digests of what was asked on the receipts, by which their readers tell repeats; `None` puts none.
    pub digests: Option<Affinity>,
    /// Traces are followed: `traceparent` is taken from clients and handed upstream, and this share of the calls that come
    /// without one is kept. `None` hands on what clients send, as any other header.
    pub traces: Option<f64>,
    /// What the log is told of headers.
    pub complaints: Arc<Complaints>,
    /// Tells what a dry run would meet. [`stack`](crate::gateway::stack) sets it; without it, only what the call would cost is told.
    pub ahead: Option<Arc<dyn Foresee>>,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            catalogue: Arc::default(),
            account: None,
            accounts: Vec::new(),
            max_body: 32 << 20,
            body_pace: Pace::new(Duration::from_secs(30), 16 * 1024),
            memory: Memory::default(),
            body_queue: Duration::from_secs(10),
            keepalive: None,
            has_token: false,
            pass_through: PassThrough::usual(),
            has_budgets: false,
            has_gateway: false,
            keys: Keys::default(),
            turns: None,
            payloads: Payloads::default(),
            readers: Arc::new([]),
            aliases: Arc::default(),
            openai: openai::Settings::default(),
            batches: Batches::default(),
            sockets: socket::Settings::default(),
            digests: None,
            traces: None,
            complaints: Arc::default(),
            ahead: None,
        }
    }
}

impl Settings {
    /// What may run a model must not pass uncounted.
    pub(super) fn must_count(&self) -> bool {
        self.has_token || self.has_budgets || !self.keys.is_empty()
    }
}
