//! A call to a model: what the inner layers are given.
//!
//! A [`Call`] is identified by construction: there is none without an account, a model and a measured body. It is made from
//! an HTTP request by [`Identify`](crate::layers::identify). Cloning one is cheap: the body is shared.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method};
use serde::Serialize;
use tokio::time::Instant;

use crate::Error;
use crate::audio::Length;
use crate::batches::Held;
use crate::catalogue::{Model, Text};
use crate::ceiling::Ceiling;
use crate::departure::Departure;
pub use crate::endpoint::Endpoint;
use crate::neurons::Neurons;
use crate::openai::Face;
use crate::peer::Peer;
use crate::receipt::{Facts, Receipt};
use crate::socket::Opening;
use crate::trace::TraceContext;
use crate::usage::Size;

/// One call, as often as it is tried.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call {
    /// The account that pays.
    pub account: Arc<str>,
    /// The gate's config does not name that account: see [`counted_as`](Self::counted_as).
    pub is_unlisted: bool,
    /// Whose token it leaves with.
    pub credentials: Credentials,
    /// The client's key, by its name; `None` where the gate asks for none.
    pub key: Option<Arc<str>>,
    /// The models that the client's key is for, whoever else may be asked instead; `None` is all.
    pub models: Option<Arc<[String]>>,
    /// The model that is asked.
    pub model: Arc<Model>,
    /// The form of request and reply.
    pub endpoint: Endpoint,
    /// Which side of the gate it came to.
    pub face: Face,
    /// The reply is wanted as a stream of events.
    pub stream: bool,
    /// What the body asks for.
    pub ask: Arc<Ask>,
    /// The caller's own wishes, from `cf-aig-*` headers.
    pub options: Arc<Options>,
    /// How it came in: method, query, headers.
    pub head: Arc<Head>,
    /// The body, as it goes upstream.
    pub body: Bytes,
    /// The same without its content encoding, where it has one.
    pub decoded: Option<Bytes>,
    /// Where in the body, without its encoding, the model's name stands, quotes included; absent where the path has it.
    pub model_in_body: Option<Range<usize>>,
    /// What it asks for where it opens a WebSocket.
    pub socket: Option<Arc<Opening>>,
    /// Another listed model that the body names beside the path's: the vendor may run that one.
    pub named_beside: Option<Arc<Model>>,
    /// The listed models of which the vendor's router is to run one, where the request names them: the dearest bounds the call.
    pub routed_to: Option<Arc<[Arc<Model>]>>,
    /// What is written about it.
    pub receipt: Receipt,
    /// What it is charged where nobody says what it cost: a ceiling that the config sets for models without a price.
    pub assumed: Option<Neurons>,
    /// Who answers for what it costs, where anyone does.
    pub allowance: Option<Arc<dyn Allowance>>,
    /// The most that it may cost, where its caller says.
    pub ceiling: Option<Arc<Ceiling>>,
    /// Tells whether this attempt's request has gone out, where anyone asks: see [`departure`](crate::departure).
    pub departure: Option<Departure>,
    /// Where it goes, where that is another provider behind an AI Gateway.
    pub elsewhere: Option<Arc<Elsewhere>>,
    /// Its place in a trace, where anyone follows traces: the call's own, and below the meter the attempt's.
    pub trace: Option<TraceContext>,
    /// Until when its client wants the reply to begin, whatever it waits for and however often it is tried.
    pub deadline: Option<Deadline>,
}

/// Another provider than Workers AI, behind an AI Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Elsewhere {
    /// The gateway that the request names.
    pub gateway: Box<str>,
    /// The provider and the path below it, encoded, such as `openai/chat/completions`.
    pub path: Box<str>,
}

/// When a client's patience ends (`cf-aig-request-timeout`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deadline {
    /// Then.
    pub at: Instant,
    /// How long it was when the call was made.
    pub after: Duration,
}

/// Answers for what a call costs: a budget's reservation.
pub trait Allowance: Send + Sync + std::fmt::Debug {
    /// An attempt went out and was never heard of again, so it may have cost all that was put aside for the call. True
    /// where as much is put aside again, and the call may be tried once more.
    fn again(&self) -> bool;

    /// The call was only queued, and is to be paid when its answers come: what was put aside for it stays so until then. `None`
    /// where nothing was.
    fn hold(self: Arc<Self>) -> Option<Arc<dyn Held>> {
        None
    }

    /// What is put aside for it.
    fn held(&self) -> Neurons {
        Neurons::MAX
    }

    /// For a call that goes on for long, and has cost `spent` so far: puts aside `more`, or as much as there is and no less than
    /// `least`. Says how much that was.
    fn extend(&self, spent: Neurons, more: Neurons, least: Neurons) -> Extending<'_> {
        let _ = (spent, least);
        Box::pin(std::future::ready(Ok(more)))
    }
}

/// What is put aside further, or why nothing is.
pub type Extending<'a> = Pin<Box<dyn Future<Output = Result<Neurons, Error>> + Send + 'a>>;

/// Whose authorisation a request leaves with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// What the client sent. Nothing of the gate's own goes with it.
    #[default]
    Client,
    /// The gate's own tokens, where it has any, in the place of what the client sent.
    Gate,
}

/// The parts of the HTTP request that are handed on.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// POST, for all that is known.
    pub method: Method,
    /// What stood after the `?`.
    pub query: Option<String>,
    /// The client's headers, less the hop-by-hop ones.
    pub headers: HeaderMap,
    /// The other end of its connection, where the server told.
    pub peer: Option<Peer>,
}

/// What a request's body asks for, measured once, when it was read.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Ask {
    /// The text to be read.
    pub text: Text,
    /// `max_tokens` or its other names, the largest of several; for show. What bounds the answer is [`reach`](Self::reach).
    pub max_tokens: Option<u32>,
    /// The picture that is wanted, where the request says.
    pub image: ImageWish,
    /// Pictures to be read.
    pub input_images: Vec<Size>,
    /// Milliseconds of audio to be heard.
    pub audio_ms: u64,
    /// The same at most, where the sound cannot be read to its end.
    pub audio_upper_ms: u64,
    /// Characters to be spoken.
    pub characters: u64,
    /// `temperature`, where given.
    pub temperature: Option<f64>,
    /// A `seed` was given.
    pub seeded: bool,
    /// The asynchronous batch form: a list of `requests`, or `queueRequest=true` as the query has it.
    pub batch: bool,
    /// The `request_id` of a batch, where the body asks for nothing else.
    pub poll_of: Option<Box<str>>,
    /// How far the dearest reading of the body goes.
    pub reach: Reach,
}

/// How far a body may go where it can be read in several ways, or not at all: every part of it is the dearest reading's. No
/// field of a body makes any of this smaller, but for the limits that the vendor is sure to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reach {
    /// The tokens of its answers.
    pub output: OutputReach,
    /// The picture's size and steps.
    pub image: ImageReach,
    /// The requests of a batch; zero counts as one.
    pub requests: u32,
    /// Bytes of text outside the fields that are known to be read: names, labels, fields that no schema has.
    pub other_text_bytes: u64,
    /// Bytes of text that may be read once more with each of the other texts: a reranker's query, an instruction.
    pub repeated_text_bytes: u64,
    /// How many of the pictures to be read have a size that nothing in the body tells.
    pub unsized_pictures: u32,
    /// Sounds, videos and files of which nothing in the body tells how much there is to be read.
    pub unsized_media: u32,
    /// The body, or a part of it, could not be read.
    pub is_unread: bool,
    /// It was read, but `JSON.parse` refuses it: what it says may be nothing to the vendor.
    pub is_doubted: bool,
    /// It has OpenAI's chat form, or Anthropic's.
    pub is_chat: bool,
}

/// The tokens that a body's answers may have, in sum over all answers of all requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutputReach {
    /// How many answers there are: `n`, and the requests of a batch.
    pub answers: u64,
    /// Tokens by the limits that the body sets.
    pub limited_tokens: u64,
    /// Answers that have the model's default besides, or all of its window where it has none.
    pub by_default: u64,
    /// Answers limited by `max_completion_tokens` alone, which models with a default may not read: those have it besides.
    pub by_completion_limit: u64,
    /// Answers that nothing in the body limits, also not for a model with a default.
    pub open: u64,
}

/// A picture's size and steps in the dearest reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageReach {
    /// Pixels across.
    pub width: Side,
    /// Pixels down.
    pub height: Side,
    /// `steps`.
    pub steps: Side,
    /// `num_steps`.
    pub num_steps: Side,
}

/// One measure of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Side {
    /// The largest that was given; zero where none was.
    pub given: u32,
    /// The model's default may count instead.
    pub or_default: bool,
    /// As much as the model takes may be meant: what was given is no count at all.
    pub or_most: bool,
}

/// A picture's size and steps as far as the request names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageWish {
    /// Pixels across.
    pub width: Option<u32>,
    /// Pixels down.
    pub height: Option<u32>,
    /// `steps`.
    pub steps: Option<u32>,
    /// `num_steps`.
    pub num_steps: Option<u32>,
}

/// What a request's `cf-aig-*` headers ask for. `None` leaves it to the config.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// `cf-aig-skip-cache`.
    pub skip_cache: bool,
    /// `cf-aig-cache-ttl`.
    pub cache_ttl: Option<Duration>,
    /// `cf-aig-cache-key`.
    pub cache_key: Option<String>,
    /// `cf-aig-custom-cost`: the caller's own price.
    pub custom_cost: Option<CustomCost>,
    /// `cf-aig-request-timeout`: until the first byte of the reply.
    pub request_timeout: Option<Duration>,
    /// `cf-aig-max-attempts`.
    pub max_attempts: Option<u32>,
    /// `cf-aig-retry-delay`.
    pub retry_delay: Option<Duration>,
    /// `cf-aig-backoff`.
    pub backoff: Option<Backoff>,
    /// `x-tollgate-stream-cost`: close a stream with a comment that tells its cost.
    pub stream_cost: bool,
    /// `x-tollgate-semantic-cache`: take the answer to a question that means the same.
    pub semantic: Option<bool>,
}

/// A caller's own price, in US dollars. Each figure is finite, and none is negative.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum CustomCost {
    /// By what is read and written.
    PerToken {
        /// A token read.
        usd_per_token_in: f64,
        /// A token read that was in the vendor's prefix cache.
        usd_per_cached_token_in: f64,
        /// A token written.
        usd_per_token_out: f64,
    },
    /// For the whole call, whatever it used.
    Total(f64),
}

/// How the pause grows from one retry to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Backoff {
    /// It does not.
    Constant,
    /// By the first pause each time.
    Linear,
    /// It doubles.
    #[default]
    Exponential,
}

// === impl Call ===

/// What all accounts together are counted as that the gate's config does not name. No account has such a name.
pub const UNLISTED: &str = "(unlisted)";

impl Call {
    /// The account as limits and budgets count it. Accounts that the config does not name share one count, so that
    /// made-up names get no limits of their own and take up no memory.
    pub fn counted_as(&self) -> &str {
        if self.is_unlisted { UNLISTED } else { &self.account }
    }

    /// Whether the client's key is for this model.
    pub fn may_ask(&self, model: &str) -> bool {
        self.models.as_ref().is_none_or(|models| models.iter().any(|allowed| allowed == model))
    }

    /// The body without its content encoding.
    pub fn plain_body(&self) -> &Bytes {
        self.decoded.as_ref().unwrap_or(&self.body)
    }

    /// Puts another body in the place of the call's; it has no content encoding.
    pub(crate) fn replace_body(&mut self, body: Bytes) {
        self.body = body;
        if self.decoded.take().is_some() {
            let mut head = Head::clone(&self.head);
            head.headers.remove(http::header::CONTENT_ENCODING);
            self.head = Arc::new(head);
        }
    }

    /// Whether another model of Workers AI takes its body as it is.
    pub fn can_change_model(&self) -> bool {
        self.socket.is_none() && (self.elsewhere.is_none() || !self.endpoint.is_native())
    }

    /// The same call for another model of Workers AI, which gets the same input.
    pub fn with_model(&self, model: Arc<Model>) -> Self {
        let mut call = Self { model, named_beside: None, routed_to: None, elsewhere: None, ..self.clone() };
        if let Some(name) = &self.model_in_body {
            // A model's name has no character that JSON would escape, but a config may name anything.
            let quoted = serde_json::Value::from(&*call.model.id).to_string();
            call.replace_body(spliced(self.plain_body(), name, &quoted));
            call.model_in_body = Some(name.start..name.start + quoted.len());
        }
        call
    }
}

/// A body with another text in a place of it.
fn spliced(body: &[u8], place: &Range<usize>, text: &str) -> Bytes {
    let mut spliced = BytesMut::with_capacity(body.len() + text.len());
    spliced.extend_from_slice(&body[..place.start]);
    spliced.extend_from_slice(text.as_bytes());
    spliced.extend_from_slice(&body[place.end..]);
    spliced.freeze()
}

// === impl Deadline ===

impl Deadline {
    /// So long from now; `None` where that is beyond what a clock can tell.
    pub fn after(after: Duration) -> Option<Self> {
        Some(Self { at: Instant::now().checked_add(after)?, after })
    }

    /// What is told where it has passed, by what is on the call's receipt. `was_sent`: an attempt had gone out.
    pub fn passed(self, facts: &Facts, was_sent: bool) -> Error {
        let (after, setting) = (self.after, "cf-aig-request-timeout");
        match facts.is_queued && facts.attempts.is_empty() {
            true => Error::QueueTimeout { after, setting },
            false => Error::Timeout { after, setting, was_sent },
        }
    }
}

// === impl Ask ===

impl Ask {
    /// Adds a sound to be heard.
    pub fn add_sound(&mut self, length: Length) {
        self.audio_ms = self.audio_ms.saturating_add(length.likely_ms);
        self.audio_upper_ms = self.audio_upper_ms.saturating_add(length.upper_ms);
    }

    /// A batch that is to be queued, and would run once more if it were sent once more.
    pub fn is_submit(&self) -> bool {
        self.batch && self.poll_of.is_none()
    }

    /// The fetching of a batch's answers, which were counted when it was queued: the body asks for nothing but a
    /// `request_id`, and the query says `queueRequest=true`.
    pub fn is_poll(&self) -> bool {
        self.batch && self.poll_of.is_some()
    }
}

// === impl Reach ===

impl Default for OutputReach {
    /// One answer, by the model's default.
    fn default() -> Self {
        Self { answers: 1, by_default: 1, ..Self::NONE }
    }
}

impl OutputReach {
    /// No answers at all.
    pub const NONE: Self = Self { answers: 0, limited_tokens: 0, by_default: 0, by_completion_limit: 0, open: 0 };

    /// One answer that nothing limits.
    pub const OPEN: Self = Self { answers: 1, open: 1, ..Self::NONE };

    /// Those of both.
    pub(crate) fn and(self, other: Self) -> Self {
        self.combine(other, u64::saturating_add)
    }

    /// Those of whichever is the dearer, in each of its parts.
    pub(crate) fn or(self, other: Self) -> Self {
        self.combine(other, u64::max)
    }

    /// As many times these.
    pub(crate) fn times(self, count: u64) -> Self {
        self.combine(Self::NONE, |part, _| part.saturating_mul(count))
    }

    fn combine(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            answers: with(self.answers, other.answers),
            limited_tokens: with(self.limited_tokens, other.limited_tokens),
            by_default: with(self.by_default, other.by_default),
            by_completion_limit: with(self.by_completion_limit, other.by_completion_limit),
            open: with(self.open, other.open),
        }
    }
}

impl ImageReach {
    /// Whichever is the dearer.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            width: self.width.or(other.width),
            height: self.height.or(other.height),
            steps: self.steps.or(other.steps),
            num_steps: self.num_steps.or(other.num_steps),
        }
    }
}

impl Side {
    /// The model's default may count.
    pub fn is_by_default(self) -> bool {
        self.given == 0 || self.or_default
    }

    /// The largest that it may be, for a model with this default and this most.
    pub fn at_most(self, default: u32, most: Option<u32>) -> u32 {
        let default = if self.is_by_default() { default } else { 0 };
        let most = most.filter(|_| self.or_most).unwrap_or(0);
        self.given.max(default).max(most)
    }

    fn or(self, other: Self) -> Self {
        Self {
            given: self.given.max(other.given),
            or_default: self.is_by_default() || other.is_by_default(),
            or_most: self.or_most || other.or_most,
        }
    }
}
