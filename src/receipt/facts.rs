//! What is written on a receipt.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde::Serialize;
use tokio::time::Instant;

use super::cost::Cost;
use super::id::CallId;
use super::outcome::{CacheStatus, Ending, Outcome};
use crate::batches::Note;
use crate::catalogue::Model;
use crate::endpoint::Endpoint;
use crate::neurons::Neurons;
use crate::payload::{Collect, Payload};
use crate::trace::TraceContext;
use crate::usage::Usage;

/// All that is known of a call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Facts {
    /// Names this call: in `cf-aig-log-id`, in the records, in the log.
    pub id: CallId,
    /// When the request's head was here, by the wall clock.
    pub received_at: SystemTime,
    /// The same, by the clock that durations are measured on.
    pub opened_at: Instant,
    /// The account that pays.
    pub account: Arc<str>,
    /// The model that was asked for.
    pub asked: Arc<Model>,
    /// The name that it was asked for by, where that is not its own: an alias.
    pub asked_as: Option<Arc<str>>,
    /// The model that answered, or was last tried.
    pub model: Arc<Model>,
    /// The form of the request.
    pub endpoint: Option<Endpoint>,
    /// A stream was asked for.
    pub stream: bool,
    /// The client's key, by its name.
    pub key: Option<Arc<str>>,
    /// The key's labels, where it has any.
    pub labels: Option<Arc<BTreeMap<String, String>>>,
    /// `cf-aig-metadata`.
    pub metadata: Arc<[(String, Metadatum)]>,
    /// `cf-aig-event-id`.
    pub event_id: Option<Arc<str>>,
    /// Its place in a trace, where anyone follows traces.
    pub trace: Option<TraceContext>,
    /// `cf-aig-collect-log` and `-payload`: what the caller wants kept.
    pub collect: Collect,

    /// What the client was told.
    pub status: Option<StatusCode>,
    /// How the vendor's reply ended, by its own word.
    pub ending: Ending,
    /// The reply told a figure beyond all bounds, which was not believed.
    pub told_absurdly: bool,
    /// How it ended; [`Outcome::Aborted`] until someone knows better, so that a call that vanishes is told as such.
    pub outcome: Outcome,
    /// Why the gate refused it: the code of [`Error`](crate::Error).
    pub refused: Option<&'static str>,
    /// The attempts upstream, in order.
    pub attempts: Vec<Attempt>,
    /// Which model of a fallback chain answered: 0 is the one asked for.
    pub step: u8,
    /// What the cache had to say.
    pub cache: CacheStatus,
    /// How it went on, where it was an open WebSocket.
    pub socket: Option<Box<SocketFacts>>,
    /// What a cache hit would have cost.
    pub saved: Neurons,
    /// How near the question was that was answered before: the cosine of their vectors, where the cache compared any.
    pub similarity: Option<f32>,
    /// What it cost to compare them. It stands as the cost of a receipt of its own, and is taken off what this one saved.
    pub embedding: Neurons,
    /// The vendor's name for the call, `cf-ai-req-id` or `cf-ray`.
    pub vendor_id: Option<String>,

    /// `max_tokens`, where the request has it.
    pub max_tokens: Option<u32>,
    /// A keyed digest of all that was asked, where digests are kept: the same for the same call of the same client.
    pub digest: Option<u64>,
    /// The same of what the call begins with: see [`affinity`](crate::affinity).
    pub beginning: Option<u64>,
    /// What was thought before the call; absent where the cache answered first.
    pub estimate: Option<Estimate>,
    /// What the budget that has least left had left, where the reply tells it.
    pub budget: Option<BudgetLeft>,
    /// What it used.
    pub usage: Usage,
    /// What it cost.
    pub cost: Cost,
    /// What became of a batch by it.
    pub batch: Option<Note>,

    /// Time spent in queues: for a permit, a budget, or the pause before a retry.
    pub waited: Duration,
    /// It waits in one of those queues, or ended there.
    pub is_queued: bool,
    /// Time from each attempt's sending to its reply's head, all attempts together.
    pub upstream: Duration,
    /// From [`opened_at`](Self::opened_at) until the reply's head was handed to the client.
    pub first_byte: Option<Duration>,
    /// From [`opened_at`](Self::opened_at) until it was sealed.
    pub duration: Duration,
    /// Bytes of the reply's body that were handed to the client.
    pub reply_bytes: u64,
    /// The bodies, where they are kept.
    pub payload: Option<Box<Payload>>,
}

/// What is written of a WebSocket that was open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketFacts {
    /// When both sides had shaken hands.
    pub opened_at: Instant,
    /// Who ended it: `client`, `vendor` or `gate`; `None` while it is open, and where it was dropped.
    pub ended_by: Option<&'static str>,
    /// The close code, where there was one: 1006 where a connection was gone without a word.
    pub close_code: Option<u16>,
}

/// One attempt upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// Where it went.
    pub model: Arc<str>,
    /// The reply's status, or `None` where there was no reply.
    pub status: Option<StatusCode>,
    /// The vendor's error code.
    pub code: Option<u32>,
    /// Why it was tried again, where it was.
    pub retried: Option<&'static str>,
    /// From the call's beginning until it was handed to upstream.
    pub began: Duration,
    /// From then until its reply's head was here, or it failed; what it waited for on the way is in it.
    pub took: Duration,
    /// It was sent, may have run, and nobody will ever know what it cost.
    pub may_have_cost: bool,
}

/// A value of `cf-aig-metadata`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Metadatum {
    /// A text.
    String(String),
    /// A number, as it was written.
    Number(serde_json::Number),
    /// True or false.
    Bool(bool),
    /// A name without a value.
    Null,
}

/// What is thought of a call before it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Estimate {
    /// The likely cost.
    pub likely: Neurons,
    /// A bound that the real cost does not pass; `None` where neither the request nor the catalogue bounds it.
    pub upper: Option<Neurons>,
    /// The likely input tokens; zero for a task without tokens.
    pub input_tokens: u64,
}

/// How the budget stands that has least left of all that count a call and may refuse it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BudgetLeft {
    /// What is left, with the most that this and all running calls may cost taken off.
    pub left: Neurons,
    /// How long until there is more: the end of its window, or of the oldest part of one that slides.
    pub resets: Duration,
}

// === impl Facts ===

impl Facts {
    /// What the vendor's prefix cache saved: what its cached tokens would have cost beyond what they did, by the table.
    pub fn saved_by_prefix(&self) -> Neurons {
        if self.usage.cached_input_tokens == 0 {
            return Neurons::ZERO;
        }
        let (input, cached) = (self.usage.input_tokens, self.usage.cached_input_tokens);
        let cost = |cached| self.model.prices.cost(&Usage::tokens(input, cached, 0));
        cost(0).saturating_sub(cost(cached))
    }

    pub(super) fn new(model: Arc<Model>) -> Self {
        let received_at = SystemTime::now();
        Self {
            id: CallId::at(received_at),
            received_at,
            opened_at: Instant::now(),
            account: Arc::default(),
            asked: model.clone(),
            asked_as: None,
            model,
            endpoint: None,
            stream: false,
            key: None,
            labels: None,
            metadata: Arc::default(),
            event_id: None,
            trace: None,
            collect: Collect::default(),
            status: None,
            ending: Ending::default(),
            told_absurdly: false,
            outcome: Outcome::default(),
            refused: None,
            attempts: Vec::new(),
            step: 0,
            cache: CacheStatus::default(),
            socket: None,
            saved: Neurons::ZERO,
            similarity: None,
            embedding: Neurons::ZERO,
            vendor_id: None,
            max_tokens: None,
            digest: None,
            beginning: None,
            estimate: None,
            budget: None,
            usage: Usage::default(),
            cost: Cost::default(),
            batch: None,
            waited: Duration::ZERO,
            is_queued: false,
            upstream: Duration::ZERO,
            first_byte: None,
            duration: Duration::ZERO,
            reply_bytes: 0,
            payload: None,
        }
    }

    /// What the caller called the model.
    pub fn asked_name(&self) -> &str {
        self.asked_as.as_deref().unwrap_or(&self.asked.id)
    }

    /// Our own time: until the reply's head was out, less waits and upstream.
    pub fn overhead(&self) -> Option<Duration> {
        self.first_byte.map(|first_byte| first_byte.saturating_sub(self.waited + self.upstream))
    }
}
