//! One call, one receipt: what happened to it and what it cost.
//!
//! [`Identify`](crate::layers::identify) opens the receipt, each layer writes its line, and whoever works on the call
//! (the request, then the reply's body) holds a handle. The receipt is **sealed when the last handle goes**: when the last
//! byte has left, when the client has gone, when a task panics. So it is sealed exactly once, by construction, and a
//! streamed reply's cost is on it. Sealed receipts go to the [`Reader`]s.
//!
//! # What it does not do
//! It decides nothing. A layer that wants to know what another did is in the wrong place in the stack.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

use crate::batches::Note;
use crate::catalogue::Model;
use crate::endpoint::Endpoint;
use crate::neurons::Neurons;
use crate::payload::{Collect, Payload};
use crate::trace::TraceContext;
use crate::usage::Usage;
use crate::vendor_error::Meaning;

/// Reads sealed receipts: metrics, records, a budget that settles, or your own.
///
/// Runs where the last handle is dropped, on the request's path: it must be quick, must not block and must not panic.
///
/// A reader is tested by a call through a gate around a vendor that is a function:
///
/// ```
/// use std::convert::Infallible;
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use http::{Request, Response};
/// use tollgate::body::Body;
/// use tollgate::receipt::{Facts, Reader};
/// use tollgate::upstream::Around;
/// use tollgate::{Gateway, WorkersAi};
/// use tower::service_fn;
///
/// #[derive(Default)]
/// struct Spent(AtomicU64);
///
/// impl Reader for Spent {
///     fn sealed(&self, receipt: &Facts) {
///         self.0.fetch_add(receipt.cost.neurons.micro(), Ordering::Relaxed);
///     }
/// }
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let vendor = service_fn(|_: Request<Body>| async {
///     let reply = r#"{"result": {"response": "Hi", "usage": {"prompt_tokens": 26, "completion_tokens": 18}}}"#;
///     Ok::<_, Infallible>(Response::builder().header("content-type", "application/json").body(Body::from(reply)).unwrap())
/// });
/// let spent = Arc::new(Spent::default());
/// let gate = Gateway::builder().account("023e").token("t").reader(spent.clone()).build_around(Around::new(vendor)).unwrap();
/// let inputs = serde_json::json!({"prompt": "Hello"});
/// WorkersAi::new(gate).run("@cf/meta/llama-3.2-1b-instruct", &inputs).await.unwrap();
/// assert_eq!(spent.0.load(Ordering::Relaxed), 392_418);
/// # });
/// ```
pub trait Reader: Send + Sync + 'static {
    /// A call is over.
    fn sealed(&self, receipt: &Facts);

    /// A call has begun.
    fn opened(&self) {}

    /// It is known what is asked: account, model, stream or not. Not every call comes so far.
    fn identified(&self, _: &Facts) {}

    /// Its WebSocket is open.
    fn upgraded(&self, _: &Facts) {}

    /// Its WebSocket goes on: what it used since it was told last. The receipt has what it used and cost so far.
    fn flowed(&self, _: &Facts, _: &Usage) {}
}

impl<R: Reader + ?Sized> Reader for Arc<R> {
    fn sealed(&self, receipt: &Facts) {
        (**self).sealed(receipt);
    }

    fn opened(&self) {
        (**self).opened();
    }

    fn identified(&self, receipt: &Facts) {
        (**self).identified(receipt);
    }

    fn upgraded(&self, receipt: &Facts) {
        R::upgraded(self, receipt);
    }

    fn flowed(&self, receipt: &Facts, new: &Usage) {
        R::flowed(self, receipt, new);
    }
}

/// Who reads.
pub type Readers = Arc<[Arc<dyn Reader>]>;

/// Reads the receipt of one call: put it into its request's [extensions](http::Request::extensions_mut).
#[derive(Clone)]
pub struct ReadBy(pub Arc<dyn Reader>);

/// An open receipt. Cloning shares it.
#[derive(Clone)]
pub struct Receipt(Arc<Open>);

struct Open {
    facts: Mutex<Facts>,
    /// What layers hold for the call until its cost is known.
    closing: Mutex<Vec<Closing>>,
    readers: Readers,
}

type Closing = Box<dyn FnOnce(&Facts) + Send>;

/// A call's stay in one of the gate's queues. Its time is noted however it ends: by a turn, or because the client's patience did.
pub struct Queued {
    receipt: Receipt,
    began: Instant,
}

/// What is written on a receipt.
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

/// A call's name: 32 hexadecimal digits, ordered by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(u128);

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

/// How a call ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// Answered.
    Ok,
    /// Answered from the cache.
    CacheHit,
    /// Refused for its rate, by us or upstream.
    RateLimited,
    /// Refused for its cost.
    BudgetExceeded,
    /// The request was wrong.
    ClientError,
    /// Upstream failed, could not be reached, or died in the middle.
    UpstreamError,
    /// Nobody answered in time.
    Timeout,
    /// The client went away.
    #[default]
    Aborted,
}

/// How a reply of the vendor's ended, by its own end and not the transport's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ending {
    /// It has not, or nobody could read it.
    #[default]
    Open,
    /// An answer, and all of it.
    Answer,
    /// All of it, without an error, and nothing that a client could use: no text, no tool, no vector.
    Empty,
    /// The vendor said in it that it failed, or it stopped before its end.
    Failed(Meaning),
}

/// What the cache had to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum CacheStatus {
    /// No cache was asked.
    #[default]
    None,
    /// Answered from it.
    Hit,
    /// Looked, was not there.
    Miss,
    /// Did not look, because the request or the kind of request said so.
    Bypass,
    /// Joined a twin already in flight.
    Coalesced,
    /// Some items of the request were there.
    Partial,
    /// Answered from what another gate had kept.
    Shared,
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

/// What a call cost, and who says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Cost {
    /// The figure that counts.
    pub neurons: Neurons,
    /// Who says so.
    pub source: Source,
    /// The vendor's own figure, where it gave one.
    pub reported: Option<Neurons>,
    /// Usage times the catalogue's prices, where there are any. `neurons` differs from it where the model's own
    /// [`Learned`](crate::catalogue::Learned) ratio says that the table is off.
    pub computed: Option<Neurons>,
    /// In US dollars at the caller's own price, `cf-aig-custom-cost`: for showing. Budgets count `neurons`.
    pub custom_usd: Option<f64>,
    /// The reply was cut off: this is for what flowed until then, and upstream may have gone on.
    pub is_partial: bool,
}

/// Where a cost comes from; a later one is better and wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Source {
    /// Nothing was used.
    #[default]
    None,
    /// From what flowed.
    Estimated,
    /// From the reported usage and the catalogue.
    Computed,
    /// The vendor's own figure.
    Reported,
}

// === impl Receipt ===

impl Receipt {
    /// Opens a receipt for a call on this model; `readers` get it when it is sealed.
    pub fn open(readers: Readers, model: Arc<Model>) -> Self {
        for reader in readers.iter() {
            reader.opened();
        }
        Self(Arc::new(Open { facts: Mutex::new(Facts::new(model)), closing: Mutex::default(), readers }))
    }

    /// Has this done when the receipt is sealed, before any reader sees it: how a layer gives back what it took for a call
    /// (a budget's reservation, a limit's tokens), however the call ends. The same rules hold as for a [`Reader`].
    pub fn on_seal(&self, close: impl FnOnce(&Facts) + Send + 'static) {
        self.0.closing.lock().push(Box::new(close));
    }

    /// Writes what is asked on it, and lets the readers know. Once a call.
    pub fn identify<T>(&self, write: impl FnOnce(&mut Facts) -> T) -> T {
        let mut facts = self.0.facts.lock();
        let written = write(&mut facts);
        for reader in self.0.readers.iter() {
            reader.identified(&facts);
        }
        written
    }

    /// The call begins to wait for a turn.
    pub fn queue(&self) -> Queued {
        self.note(|facts| facts.is_queued = true);
        Queued { receipt: self.clone(), began: Instant::now() }
    }

    /// Notes that its WebSocket is open, and lets the readers know.
    #[cfg(feature = "sockets")]
    pub(crate) fn upgraded(&self) {
        let mut facts = self.0.facts.lock();
        facts.socket = Some(Box::new(SocketFacts { opened_at: Instant::now(), ended_by: None, close_code: None }));
        for reader in self.0.readers.iter() {
            reader.upgraded(&facts);
        }
    }

    /// Writes how its WebSocket stands, and lets the readers know what is `new` since the last time.
    #[cfg(feature = "sockets")]
    pub(crate) fn flow(&self, new: &Usage, write: impl FnOnce(&mut Facts)) {
        let mut facts = self.0.facts.lock();
        write(&mut facts);
        for reader in self.0.readers.iter() {
            reader.flowed(&facts, new);
        }
    }

    /// Writes on it, and may read what was there.
    pub fn note<T>(&self, write: impl FnOnce(&mut Facts) -> T) -> T {
        write(&mut self.0.facts.lock())
    }

    /// Reads from it.
    pub fn read<T>(&self, read: impl FnOnce(&Facts) -> T) -> T {
        read(&self.0.facts.lock())
    }
}

// === impl Queued ===

impl Queued {
    /// So long.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The call has its turn, or was refused one.
    pub fn leave(self) {
        self.receipt.note(|facts| facts.is_queued = false);
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.receipt.note(|facts| facts.waited += self.began.elapsed());
    }
}

impl std::fmt::Debug for Queued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queued(for {:?})", self.began.elapsed())
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.facts.lock().fmt(f)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let facts = self.facts.get_mut();
        facts.duration = facts.opened_at.elapsed();
        for close in self.closing.get_mut().drain(..) {
            close(facts);
        }
        for reader in self.readers.iter() {
            reader.sealed(facts);
        }
    }
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

    fn new(model: Arc<Model>) -> Self {
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

// === impl CallId ===

const HEX: &[u8; 16] = b"0123456789abcdef";

impl CallId {
    fn at(time: SystemTime) -> Self {
        use std::hash::{BuildHasher, RandomState};
        use std::sync::LazyLock;
        use std::sync::atomic::{AtomicU64, Ordering};
        static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
        static NEXT: AtomicU64 = AtomicU64::new(0);

        let millis =
            time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() & 0xffff_ffff_ffff);
        let count = u128::from(NEXT.fetch_add(1, Ordering::Relaxed) & 0xffff_ffff);
        Self(millis << 80 | count << 48 | u128::from(*PROCESS & 0xffff_ffff_ffff))
    }

    /// Its 32 digits, in ASCII.
    pub fn digits(self) -> [u8; 32] {
        std::array::from_fn(|place| HEX[(self.0 >> (4 * (31 - place))) as usize & 0xf])
    }

    /// Its 16 bytes, in the order of its digits: sorted, they are in the order of time.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From its 16 bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// From its 32 digits.
    pub fn parse(digits: &str) -> Option<Self> {
        (digits.len() == 32).then(|| u128::from_str_radix(digits, 16).ok()).flatten().map(Self)
    }
}

impl std::fmt::Display for CallId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.digits()))
    }
}

// === impl Ending, Outcome, CacheStatus, Source ===

impl Ending {
    pub(crate) const CUT_OFF: Self = Self::Failed(Meaning::CutOff);
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 8] = [
        Self::Ok,
        Self::CacheHit,
        Self::RateLimited,
        Self::BudgetExceeded,
        Self::ClientError,
        Self::UpstreamError,
        Self::Timeout,
        Self::Aborted,
    ];

    /// Its metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::CacheHit => "cache_hit",
            Self::RateLimited => "rate_limited",
            Self::BudgetExceeded => "budget_exceeded",
            Self::ClientError => "client_error",
            Self::UpstreamError => "upstream_error",
            Self::Timeout => "timeout",
            Self::Aborted => "aborted",
        }
    }
}

impl CacheStatus {
    /// Every status.
    pub const ALL: [Self; 7] =
        [Self::None, Self::Hit, Self::Miss, Self::Bypass, Self::Coalesced, Self::Partial, Self::Shared];

    /// The value of `cf-aig-cache-status`: a hit is one wherever it was kept.
    pub(crate) fn told(self) -> Option<&'static str> {
        if self == Self::Shared { Self::Hit.label() } else { self.label() }
    }

    /// Its metric label; `None` where no cache was asked.
    pub fn label(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Hit => Some("HIT"),
            Self::Miss => Some("MISS"),
            Self::Bypass => Some("BYPASS"),
            Self::Coalesced => Some("COALESCED"),
            Self::Partial => Some("PARTIAL"),
            Self::Shared => Some("SHARED"),
        }
    }
}

impl Source {
    /// Its metric label; `None` where nothing was used.
    pub fn label(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Estimated => Some("estimated"),
            Self::Computed => Some("computed"),
            Self::Reported => Some("reported"),
        }
    }
}

// === impl Cost ===

impl Cost {
    /// From what flowed.
    pub fn estimated(neurons: Neurons) -> Self {
        Self { neurons, source: Source::Estimated, ..Self::default() }
    }

    /// In US dollars, at the caller's own price where it named one.
    pub fn usd(&self) -> f64 {
        self.custom_usd.unwrap_or_else(|| self.neurons.usd())
    }

    /// Reported over computed, where both are there and neither is nothing: 1.0 is a table that is right.
    pub fn drift(&self) -> Option<f64> {
        let (reported, computed) = (self.reported?, self.computed?);
        (!reported.is_zero() && !computed.is_zero()).then(|| reported.micro() as f64 / computed.micro() as f64)
    }
}
