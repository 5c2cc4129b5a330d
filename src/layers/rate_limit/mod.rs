//! Holds every attempt to its model's rate limit.
//!
//! The vendor limits requests per account and model. A call under the limit passes at once; one over it waits for its turn,
//! at most [`Settings::max_wait`] and in a queue of at most [`Settings::max_queue`], or is refused with 429 and `retry-after`
//! ([`Error::RateLimited`]). No stretch of the limit's time ever sees more than the limit; up to half of it may go at once,
//! and the rest is spread, so that there is always a turn soon. A model may be held to tokens as well: they are taken by
//! estimate and put right when the receipt is sealed.
//!
//! Turns are **fair between callers**, first come first served within one: the caller that had least of late goes first. A
//! caller is a key, or where the gate has none, what [`Settings::fair_by`] says: the client's token, its address, or an entry
//! of its metadata. Where the queue is full, the newest call of the caller that has most waiting makes room for one that has
//! fewer. A call that stops waiting leaves the queue at once, and its permit, if it just got one, goes to the next.
//!
//! **`retry-after` is a place in the line**: it tells when the call has a turn, after those who wait and those who were told
//! earlier times, and a newcomer does not take a turn that another was told of (the `promises` module has the rules).
//!
//! It **learns**: a rate-limit 429 from upstream while we are under the limit means that others use the account too. The
//! model's pace drops at once and climbs back gently; a `retry-after` holds the whole model.
//!
//! # How it differs from `tower::limit`
//! `RateLimit` there holds one service to a fixed window, which lets twice the limit through around its edge, and waits
//! without a bound; `ConcurrencyLimit` counts calls in flight.
//!
//! # What it does not do
//! It does not retry, and it counts no money: see [`retry`](super::retry). It stands below the retries, so that every attempt
//! takes a permit. State is this process's own, unless it is [shared](RateLimitLayer::shared): two gates for one account that do not share
//! it learn of each other by upstream's 429s only.
//!
//! It does not tell apart clients that share a token: each may take the turn that another was told of, so one that obeys is let
//! in, but now and then only after many refusals. Of 3,000 crowds the worst was 23; with tokens of their own, 6.
//!
//! # Example
//! ```
//! use http::{Request, Response};
//! use tollgate::body::Body;
//! use tollgate::call::Call;
//! use tollgate::catalogue::Limit;
//! use tollgate::layers::identify;
//! use tollgate::layers::rate_limit::{Quota, RateLimitLayer, Settings};
//! use tower::{Service, ServiceBuilder, service_fn};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let vendor = service_fn(|_: Call| async { Ok::<_, tollgate::Error>(Response::new(Body::from("{}"))) });
//! let rest = service_fn(|_: Request<Body>| async { Ok::<_, tollgate::Error>(Response::new(Body::empty())) });
//! let mut door = identify::Settings::default();
//! (door.account, door.has_token) = (Some("023e".into()), true);
//! let mut settings = Settings::default();
//! settings.max_wait = std::time::Duration::from_secs(2);
//! let mut quota = Quota::default();
//! quota.requests = Some(Limit::a_minute(1));
//! settings.models.insert("@cf/meta/llama-3.2-1b-instruct".into(), quota);
//! let mut stack = ServiceBuilder::new()
//!     .layer(identify::IdentifyLayer::new(door, rest))
//!     .layer(RateLimitLayer::new(settings))
//!     .service(vendor);
//!
//! let ask = || Request::post("/run/@cf/meta/llama-3.2-1b-instruct").body(Body::from(r#"{"prompt": "Hello"}"#)).unwrap();
//! assert_eq!(stack.call(ask()).await.unwrap().status(), 200);
//! let refused = stack.call(ask()).await.unwrap();
//! assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (429, &"61".parse().unwrap()));
//! # });
//! ```

mod busy;
#[cfg(all(test, feature = "replicas"))]
pub(crate) mod by_hand;
mod caller;
mod lane;
mod limit_window;
mod limits;
mod pace;
mod permit;
mod place;
mod promises;
mod queue;
mod refusal;
mod request;
mod settings;
mod share;
mod shared;
mod steps;
mod swept_map;
#[cfg(test)]
mod tests;
mod window;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use tower::{Layer, Service};

pub use self::caller::FairBy;
use self::lane::Answer;
use self::limits::{Limits, Request, Shared};
use self::permit::Permit;
use self::place::Place;
use self::refusal::Refusal;
pub use self::settings::{ModelStanding, Quota, Settings};
use self::share::Said;
pub use self::share::{Answered, Heard, OnStoreLoss, PARTS, Sharing, Word, horizon_ms};
use self::steps::{Counted, Steps};
use super::inner::{Inner, access};
use super::retry::retry_after;
use super::{Reply, ReplyFuture};
use crate::Error;
use crate::call::Call;
use crate::catalogue::Catalogue;
use crate::preview::Limited;
use crate::receipt::{Estimate, Source};
use crate::vendor_error::{Meaning, VendorError};

/// Applies [`RateLimit`]. Clones share their state, on whatever runtime they are.
#[derive(Clone, Debug)]
pub struct RateLimitLayer {
    limits: Shared,
}

/// Gives each call its permit first: see the [module](self).
#[derive(Clone, Debug)]
pub struct RateLimit<S> {
    inner: Inner<S>,
    limits: Shared,
}

/// What a lane has to say to the store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Saying {
    /// This.
    Word(Word),
    /// Not before this time.
    Later(Instant),
    /// Nothing.
    Nothing,
}

/// An upstream that asks for more is not believed.
const LONGEST_HOLD: Duration = Duration::from_secs(3600);

// === impl RateLimitLayer ===

impl Default for RateLimitLayer {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

impl RateLimitLayer {
    /// With no permit taken yet.
    pub fn new(settings: Settings) -> Self {
        Self { limits: Arc::new(Limits::new(settings, None)) }
    }

    /// The same, with limits that other gates share. Somebody has to speak to their store for it: see [`Sharing`].
    pub fn shared(settings: Settings, sharing: Arc<Sharing>) -> Self {
        Self { limits: Arc::new(Limits::new(settings, Some(sharing))) }
    }

    /// What a lane that is shared says to the store now, if anything. `is_due`: the time has come that was told for it.
    pub fn word(&self, lane: u64, is_due: bool) -> Saying {
        match self.limits.word(lane, is_due) {
            Said::Word(word) => Saying::Word(word),
            Said::Later(at) => Saying::Later(self.limits.instant(at)),
            Said::Nothing => Saying::Nothing,
        }
    }

    /// What came of a lane's word. Each has to be told, for a lane says no other before. Gives when the next one is due.
    pub fn heard(&self, lane: u64, word: &Word, answered: &Answered) -> Option<Instant> {
        self.limits.heard(lane, word, answered).map(|at| self.limits.instant(at))
    }

    /// The store went away, or is back: wakes who waits, and names the lanes that are shared.
    pub fn look_again(&self) -> Vec<u64> {
        self.limits.look_again()
    }

    /// Other settings over the same windows, queues and permits, in force from here on also for models that are busy; `catalogue`
    /// knows the models' own limits. Calls that wait go on waiting as long as they were ready to.
    pub fn followed_by(&self, settings: Settings, catalogue: &Catalogue) -> Self {
        let models: HashMap<_, _> = catalogue.models().into_iter().map(|model| (model.slot, model)).collect();
        let listed = |slot| models.get(&slot).filter(|model| model.is_listed()).cloned();
        Self { limits: Arc::new(self.limits.followed_by(settings, listed)) }
    }

    /// How every model that was ever asked stands, for metrics. Idle state is forgotten on the way.
    pub fn snapshot(&self) -> Vec<ModelStanding> {
        self.limits.snapshot()
    }

    /// A turn of a key's own, of so many a minute on whatever model, which all gates share. It is waited for no longer than the store
    /// may take to answer; refused, it tells when there is one.
    pub fn turn_of_key(
        &self,
        key: &str,
        requests_per_minute: NonZeroU32,
    ) -> impl Future<Output = Result<(), Duration>> + Send + use<> {
        steps::of_key(self.limits.clone(), key, requests_per_minute)
    }

    /// How many pairs of account and model have state.
    pub fn len(&self) -> usize {
        self.limits.len()
    }

    /// No state is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How this call would stand to its model's limit and its key's own. Takes no permit, and leaves no trace.
    pub fn foresee(&self, call: &Call) -> Limited {
        steps::foresee(&self.limits, call)
    }

    /// Takes a permit if there is one now, without waiting: for callers that pace by other means, and for benches.
    pub fn try_take(&self, call: &Call) -> bool {
        steps::try_take(&self.limits, call)
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> RateLimit<S> {
        RateLimit { inner: Inner(inner), limits: self.limits.clone() }
    }
}

// === impl RateLimit ===

access!(RateLimit);

impl<S> Service<Call> for RateLimit<S>
where
    S: Service<Call, Response = Reply> + Clone + Send + 'static,
    S::Error: Into<Error>,
    S::Future: Send + 'static,
{
    type Response = Reply;
    type Error = Error;
    type Future = ReplyFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> ReplyFuture {
        if call.socket.as_ref().is_some_and(|opening| !opening.settings.takes_turn) {
            return Box::pin(self.inner.call(call));
        }
        let request = self.limits.request(&call);
        if self.limits.is_shared()
            && let Some(steps) = Steps::of(&self.limits, &call)
        {
            let inner = self.inner.clone();
            let inner = std::mem::replace(&mut self.inner, inner);
            return Box::pin(step_by_step(inner, self.limits.clone(), request, steps, call));
        }
        match self.limits.ask(request, &call) {
            Answer::Granted(permit) => {
                let attempt = Attempt::new(&self.limits, request, permit, &call);
                let reply = self.inner.call(call);
                Box::pin(async move { attempt.end(reply.await) })
            }
            Answer::Queued(ticket, waiter) => {
                let until = self.limits.now().saturating_add(self.limits.longest_wait());
                let place = Place::new(self.limits.clone(), request, ticket, waiter, until);
                let inner = self.inner.clone();
                // What was ready is what must be called.
                let inner = std::mem::replace(&mut self.inner, inner);
                Box::pin(wait(inner, self.limits.clone(), request, place, call))
            }
            Answer::Refused(refusal) => {
                let error = refuse(&call, Some(refusal), &self.limits);
                Box::pin(std::future::ready(Err(error)))
            }
        }
    }
}

/// A call that several shared limits hold: each lets it through in turn, the model's last.
async fn step_by_step<S>(
    mut inner: S,
    limits: Shared,
    request: Request,
    mut steps: Steps,
    call: Call,
) -> Result<Reply, Error>
where
    S: Service<Call, Response = Reply, Error = Error>,
{
    let queued = call.receipt.queue();
    let turn = steps.take(request, &call).await;
    queued.leave();
    let permit = turn.map_err(|refusal| refuse(&call, refusal, &limits))?;
    let mut attempt = Attempt::new(&limits, request, permit, &call);
    attempt.more = steps.used();
    attempt.end(inner.call(call).await)
}

async fn wait<S>(mut inner: S, limits: Shared, request: Request, place: Place, call: Call) -> Result<Reply, Error>
where
    S: Service<Call, Response = Reply, Error = Error>,
{
    let queued = call.receipt.queue();
    let turn = place.turn().await;
    queued.leave();
    let permit = turn.map_err(|refusal| refuse(&call, refusal, &limits))?;
    let attempt = Attempt::new(&limits, request, permit, &call);
    attempt.end(inner.call(call).await)
}

fn refuse(call: &Call, refusal: Option<Refusal>, limits: &Limits) -> Error {
    call.receipt.note(|facts| facts.estimate.get_or_insert_with(|| Estimate::of(call)).upper);
    match refusal {
        Some(refusal) => refusal.error(call, limits.max_wait()),
        None => Error::RateLimited {
            what: format!("no turn came for {}", call.model.id),
            retry_after: limits.max_wait().max(Duration::from_secs(1)),
            limit: None,
        },
    }
}

/// An attempt that has its permit: what its reply teaches.
struct Attempt {
    limits: Shared,
    lane: u64,
    /// Where tokens are counted: the permit they are on, and the call that will tell how many it used.
    counted: Option<(Permit, crate::receipt::Receipt)>,
    /// Tokens that are counted on lanes of their own.
    more: Counted,
}

impl Attempt {
    fn new(limits: &Shared, request: Request, permit: Permit, call: &Call) -> Self {
        let counted = permit.counts_tokens().then(|| (permit, call.receipt.clone()));
        Self { limits: limits.clone(), lane: request.lane, counted, more: Vec::new() }
    }

    fn end(self, reply: Result<Reply, Error>) -> Result<Reply, Error> {
        let vendor_error = reply.as_ref().ok().and_then(|reply| reply.extensions().get::<VendorError>());
        if let (Some(error), Ok(reply)) = (vendor_error, &reply)
            && error.meaning == Meaning::OverRate
        {
            let retry_after = retry_after(reply.headers()).map(|after| after.min(LONGEST_HOLD));
            self.limits.refused_upstream(self.lane, retry_after);
        }
        let answered = reply.is_ok() && vendor_error.is_none();
        let Self { limits, lane, counted, more } = self;
        if !more.is_empty() {
            steps::correct(limits, more, answered);
            return reply;
        }
        match counted {
            Some((permit, receipt)) if answered => receipt.on_seal(move |facts| {
                let usage = &facts.usage;
                // An estimate of what flowed is no better than the one that was taken.
                if facts.cost.source > Source::Estimated {
                    limits.correct(lane, permit, usage.input_tokens.saturating_add(usage.output_tokens));
                }
            }),
            Some((permit, _)) => limits.correct(lane, permit, 0),
            None => {}
        }
        reply
    }
}
