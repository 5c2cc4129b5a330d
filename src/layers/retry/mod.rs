//! Tries again what a retry can mend, and nothing else.
//!
//! Which failures those are is the [vendor's error table](policy): out of capacity, a rate limit, a timeout, a passing 5xx, a
//! connection that broke. Between attempts there is a [pause](Pause), at least as long as the vendor's `retry-after`. All
//! retries of a model come out of a [budget] that is filled by the retries that help, so that an outage is not
//! multiplied. A stream that opens with an error is a failure like any other; once a reply is handed on, nothing is retried.
//! A client's `cf-aig-max-attempts`, `-retry-delay` and `-backoff` go before the settings; `-request-timeout` is its deadline
//! for the reply's first byte, which no attempt and no pause outlasts.
//!
//! A client gets the vendor's last reply as it came. Where a retry of its own would be in vain, `x-should-retry: false`
//! is added. When the vendor says that the **day's free neurons** are used up, calls of that account are
//! [answered here](allocation) until 00:00 UTC, with [`Error::FreeNeuronsUsedUp`].
//!
//! # How it differs from `tower::retry`
//! Its budget is a share of all calls, which is spent as soon as half of them fail, be retries of use or not. This one asks
//! whether they help.
//!
//! # What it does not do
//! It holds no limit: each attempt takes its own permit [below](super::rate_limit). It asks no other model: see
//! [`fallback`](super::fallback).
//!
//! # Example
//! ```
//! use std::sync::atomic::{AtomicU32, Ordering};
//!
//! use http::{Request, Response};
//! use tollgate::body::Body;
//! use tollgate::call::Call;
//! use tollgate::layers::{identify, meter::MeterLayer, retry};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
//! let vendor = service_fn(|_: Call| async {
//!     let status = if ATTEMPTS.fetch_add(1, Ordering::Relaxed) == 0 { 503 } else { 200 };
//!     Ok::<_, tollgate::Error>(Response::builder().status(status).body(Body::from("{}")).unwrap())
//! });
//! let rest = service_fn(|_: Request<Body>| async { Ok::<_, tollgate::Error>(Response::new(Body::empty())) });
//! let mut door = identify::Settings::default();
//! (door.account, door.has_token) = (Some("023e".into()), true);
//! let mut settings = retry::Settings::default();
//! settings.pause.delay = std::time::Duration::from_millis(1);
//! // Meter reads what the vendor's no means.
//! let stack = ServiceBuilder::new()
//!     .layer(identify::IdentifyLayer::new(door, rest))
//!     .layer(retry::RetryLayer::new(settings))
//!     .layer(MeterLayer::default())
//!     .service(vendor);
//!
//! let request = Request::post("/run/@cf/meta/llama-3.2-1b-instruct").body(Body::from(r#"{"prompt": "Hello"}"#)).unwrap();
//! assert_eq!(stack.oneshot(request).await.unwrap().status(), 200);
//! assert_eq!(ATTEMPTS.load(Ordering::Relaxed), 2);
//! # });
//! ```

mod after;
pub mod allocation;
pub mod backoff;
pub mod budget;
pub mod policy;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use http::{HeaderValue, header};
use tokio::time::{Instant, sleep, timeout_at};
use tower::{Layer, Service};

pub(crate) use self::after::retry_after;
use self::allocation::{Allocation, Pass};
pub use self::backoff::Pause;
use self::budget::Budget;
use self::policy::{Failure, Verdict, verdict};
use super::inner::{Inner, access};
use super::{Reply, ReplyFuture};
use crate::Error;
use crate::call::{Call, Deadline};
use crate::catalogue::Slot;
use crate::receipt::Facts;
use crate::vendor_error::{Meaning, VendorError};

/// How calls are tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Attempts a call, the first one among them; 1 is no retry.
    pub max_attempts: u32,
    /// The pause between them.
    pub pause: Pause,
    /// How often an account whose free neurons are used up is tried all the same.
    pub probe_every: Duration,
}

/// Applies [`Retry`]. Clones share their budgets.
#[derive(Clone, Debug)]
pub struct RetryLayer {
    shared: Arc<Shared>,
}

/// Tries calls as often as it helps: see the [module](self).
#[derive(Clone, Debug)]
pub struct Retry<S> {
    inner: Inner<S>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    budgets: Arc<[Budget]>,
    allocation: Arc<Allocation>,
    clock: fn() -> SystemTime,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self { max_attempts: 4, pause: Pause::default(), probe_every: Duration::from_secs(300) }
    }
}

// === impl RetryLayer ===

impl Default for RetryLayer {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

impl RetryLayer {
    /// With full budgets.
    pub fn new(settings: Settings) -> Self {
        Self::with_clock(settings, SystemTime::now)
    }

    /// The same by another wall clock, which tells when the vendor's day ends.
    pub fn with_clock(settings: Settings, clock: fn() -> SystemTime) -> Self {
        let budgets = (0..Slot::COUNT).map(|_| Budget::default()).collect();
        let allocation = Arc::new(Allocation::new(settings.probe_every));
        Self { shared: Arc::new(Shared { settings, budgets, allocation, clock }) }
    }
}

impl RetryLayer {
    /// Which accounts' free neurons are used up.
    pub fn allocation(&self) -> &Arc<Allocation> {
        &self.shared.allocation
    }

    /// Other settings over the same budgets; `probe_every` stays as it was.
    pub fn followed_by(&self, settings: Settings) -> Self {
        let Shared { budgets, allocation, clock, .. } = &*self.shared;
        let (budgets, allocation) = (budgets.clone(), allocation.clone());
        Self { shared: Arc::new(Shared { settings, budgets, allocation, clock: *clock }) }
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry { inner: Inner(inner), shared: self.shared.clone() }
    }
}

// === impl Retry ===

access!(Retry);

impl<S> Service<Call> for Retry<S>
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
        let shared = self.shared.clone();
        if !shared.allocation.is_empty()
            && let Pass::Held(retry_after) = shared.allocation.pass(&call.account, (shared.clock)())
        {
            return Box::pin(std::future::ready(Err(Error::FreeNeuronsUsedUp { retry_after })));
        }
        let inner = self.inner.clone();
        // What was ready is what must be called.
        let inner = std::mem::replace(&mut self.inner, inner);
        Box::pin(shared.try_call(inner, call))
    }
}

impl Shared {
    async fn try_call<S>(self: Arc<Self>, mut inner: S, call: Call) -> Result<Reply, Error>
    where
        S: Service<Call, Response = Reply, Error = Error>,
    {
        let deadline = Patience::of(&call);
        let max_attempts = call.options.max_attempts.unwrap_or(self.settings.max_attempts);
        let mut attempt = 0;
        loop {
            let reply = deadline.hold(inner.call(call.clone()), &call).await;
            let Some(failure) = failure(&reply) else {
                self.budget(&call).answered(attempt > 0);
                self.allocation.works(&call.account);
                return reply;
            };
            // A batch that may have been taken in would run twice.
            let verdict = if is_unsure_submit(&call, &reply) { Verdict::Never } else { verdict(failure) };
            attempt += 1;
            let pause = match verdict {
                Verdict::Retry(_) if attempt < max_attempts => self.pause(&call, &reply, attempt - 1, deadline),
                _ => None,
            };
            let (Verdict::Retry(why), Some(pause)) = (verdict, pause) else {
                return self.give_up(&call, reply, verdict);
            };
            let is_lost = is_lost(&reply, &call);
            if is_lost && !may_pay(&call) || !self.budget(&call).take() {
                return reply;
            }
            // A reply that is let go of settles what it cost, which is noted before what comes of it.
            drop(reply);
            note_retry(&call, why, pause, is_lost);
            sleep(pause).await;
            std::future::poll_fn(|cx| inner.poll_ready(cx)).await?;
        }
    }

    fn budget(&self, call: &Call) -> &Budget {
        &self.budgets[call.model.slot.index() % Slot::COUNT]
    }

    /// How long until the next attempt; `None` where it would be too long.
    fn pause(&self, call: &Call, reply: &Result<Reply, Error>, n: u32, deadline: Patience) -> Option<Duration> {
        let options = &call.options;
        let default = self.settings.pause;
        let pause = Pause {
            delay: options.retry_delay.unwrap_or(default.delay),
            backoff: options.backoff.unwrap_or(default.backoff),
            // A caller's own pause may be longer than ours may grow.
            max_delay: default.max_delay.max(options.retry_delay.unwrap_or_default()),
        };
        let asked = reply.as_ref().ok().and_then(|reply| retry_after(reply.headers())).unwrap_or_default();
        let length = pause.before(n, fastrand::f64()).max(asked);
        (asked <= pause.max_delay && deadline.allows(length)).then_some(length)
    }

    /// The last reply, and what a client should make of it.
    fn give_up(&self, call: &Call, mut reply: Result<Reply, Error>, verdict: Verdict) -> Result<Reply, Error> {
        let used_up = verdict == Verdict::UsedUp;
        let until_midnight = used_up.then(|| self.allocation.used_up(&call.account, (self.clock)()));
        let Ok(answer) = &mut reply else { return reply };
        if used_up || verdict == Verdict::Never && is_retried_by_clients(answer) {
            answer.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if let Some(left) = until_midnight {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(left.as_secs().max(1)));
        }
        reply
    }
}

fn failure(reply: &Result<Reply, Error>) -> Option<Failure<'_>> {
    match reply {
        Ok(reply) => reply.extensions().get::<VendorError>().map(Failure::Vendor),
        Err(error) => Some(Failure::Gate(error)),
    }
}

/// Nobody will know what the attempt cost: it was never heard of again, or its reply broke off before its end.
fn is_lost(reply: &Result<Reply, Error>, call: &Call) -> bool {
    match reply {
        Ok(reply) => reply.extensions().get::<VendorError>().is_some_and(|error| error.meaning == Meaning::CutOff),
        // It was given up by a layer of tower's below: the meter has noted whether the request had gone out.
        Err(Error::Elapsed { .. }) => call.receipt.read(may_have_cost),
        Err(error) => error.may_have_cost(),
    }
}

/// The attempt that was given up just now had gone out. What was tried again before is another attempt.
fn may_have_cost(facts: &Facts) -> bool {
    facts.attempts.last().is_some_and(|attempt| attempt.may_have_cost && attempt.retried.is_none())
}

/// What may have cost is paid for once more before it is tried once more.
fn may_pay(call: &Call) -> bool {
    call.allowance.as_ref().is_none_or(|allowance| allowance.again())
}

/// A batch was sent, and whether it was taken in is not known.
fn is_unsure_submit(call: &Call, reply: &Result<Reply, Error>) -> bool {
    call.ask.is_submit()
        && match reply {
            Ok(reply) => reply.extensions().get::<VendorError>().is_none_or(|error| !error.meaning.is_surely_refused()),
            Err(error) => error.may_have_cost(),
        }
}

/// OpenAI's SDKs retry these by themselves unless told not to.
fn is_retried_by_clients(reply: &Reply) -> bool {
    matches!(reply.status().as_u16(), 408 | 409 | 429 | 500..)
}

fn note_retry(call: &Call, why: &'static str, pause: Duration, is_lost: bool) {
    call.receipt.note(|facts| {
        facts.waited += pause;
        // An attempt that ended in a queue stands on no line of its own.
        if let Some(attempt) = facts.attempts.last_mut().filter(|attempt| attempt.retried.is_none()) {
            attempt.retried = Some(why);
            attempt.may_have_cost = is_lost;
        }
        if is_lost {
            // What flowed of it is paid for with all that may have.
            (facts.usage, facts.cost) = Default::default();
        }
    });
}

/// Until when the client wants a reply to begin.
#[derive(Clone, Copy, Debug)]
struct Patience(Option<Deadline>);

impl Patience {
    /// The call's, which began before it came here; or one from now on, where the call was not made at a door.
    fn of(call: &Call) -> Self {
        Self(call.deadline.or_else(|| Deadline::after(call.options.request_timeout?)))
    }

    fn allows(self, pause: Duration) -> bool {
        self.0.is_none_or(|deadline| Instant::now().checked_add(pause).is_some_and(|end| end < deadline.at))
    }

    /// The reply, if it is here in time.
    async fn hold(self, reply: impl Future<Output = Result<Reply, Error>>, call: &Call) -> Result<Reply, Error> {
        let Some(deadline) = self.0 else { return reply.await };
        // The attempt ends with its future, so what is known of it is on the receipt by then.
        timeout_at(deadline.at, reply)
            .await
            .unwrap_or_else(|_| Err(call.receipt.read(|facts| deadline.passed(facts, may_have_cost(facts)))))
    }
}
