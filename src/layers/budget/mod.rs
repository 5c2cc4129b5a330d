//! Holds spending to budgets: a limit is a limit.
//!
//! Before a call may cost anything, the most it can cost is reserved in every [`Rule`] that counts it, or in none. When its
//! receipt is sealed (the reply's last byte has left, the client has gone, a task has panicked) the reservation is settled
//! to the real cost, and the rest is free again. So calls that come at once cannot spend the same neurons. A call for which
//! there is no room is refused with 429, the budget's name and when it resets. Where only reservations of calls still
//! running are in its way, it may wait for them in a queue, at most [`Settings::max_wait`].
//!
//! A rule counts in windows (a minute to a month, from 00:00 UTC or a time zone's midnight, or sliding) and may be split into
//! buckets, by key, model or metadata, or by several of them together. Its limit may be raised for a while, and a bucket begun
//! anew: see [`Budgets::raise`] and [`Budgets::reset`]. What a person may want to know is told once a window: see [`Notice`]. Its [`OnExceeded`] may name a cheaper model, which reserves for itself. What is charged counts in the
//! window in which it was reserved.
//!
//! # What is promised
//! - The sum of what is spent and reserved never passes the limit, as long as no call costs more than its upper estimate.
//!   Where nothing bounds a call's cost (no prices, a translation, a link to a picture), it is refused with what to add, or
//!   passes as [`Settings::unpriced`] says. A rule that refuses nothing needs no bound. A model without a price is charged the
//!   ceiling that is set there, unless the vendor says what it cost.
//! - An attempt that may have run but was never heard of again (given up by the client, timed out, its connection reset after
//!   it was sent), and a stream that was cut off, are charged what was reserved for them: upstream may have gone on to the
//!   end. The receipt tells what flowed. Such an attempt is tried again only if there is room for as much again.
//! - An attempt whose request never left, because it was given up in a queue or before a connection stood, costs nothing. See
//!   [`departure`](crate::departure).
//! - With a [`Ledger`], what was spent survives `kill -9`; no call waits for a disk unless a lease has run out, and none is
//!   made that the books do not cover.
//! - The window that the wall clock tells is the one that counts. What was counted while the clock was ahead or behind counts
//!   in the windows that it told then, and where it is set back, what this window had is remembered.
//! - A rule of [`Scope::Account`] counts what the vendor's books have, and what was spent and reserved here since they were
//!   settled: see [`Budgets::book`]. What others spend between two looks at the books can be overshot, and no more.
//! - Buckets are bounded: see [`Settings::max_buckets`]. Idle ones go.
//!
//! # What it does not do
//! It does not pace calls (that is the rate limit's business), and it does not know what a call really cost: it reads that
//! off the receipt, where the meter has written it.
//!
//! # Example
//! ```
//! use http::{Request, Response};
//! use tollgate::body::Body;
//! use tollgate::call::Call;
//! use tollgate::catalogue::Catalogue;
//! use tollgate::layers::budget::{BudgetLayer, Budgets, Period, Rule, Settings};
//! use tollgate::layers::identify;
//! use tollgate::neurons::Neurons;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let vendor = service_fn(|_: Call| async { Ok::<_, tollgate::Error>(Response::new(Body::from("{}"))) });
//! let rest = service_fn(|_: Request<Body>| async { Ok::<_, tollgate::Error>(Response::new(Body::empty())) });
//! let mut settings = Settings::default();
//! settings.rules.push(Rule::new("everyone", Neurons::from_whole(10), Period::Day));
//! let budgets = Budgets::new(settings, Catalogue::default()).unwrap();
//! let mut door = identify::Settings::default();
//! (door.account, door.has_token) = (Some("023e".into()), true);
//! let stack = ServiceBuilder::new()
//!     .layer(identify::IdentifyLayer::new(door, rest))
//!     .layer(BudgetLayer::new(budgets))
//!     .service(vendor);
//!
//! // 18,252 micro-neurons a token: a thousand of them may cost 18 neurons.
//! let request = Request::post("/run/@cf/meta/llama-3.2-1b-instruct");
//! let request = request.body(Body::from(r#"{"prompt": "Hello", "max_tokens": 1000}"#)).unwrap();
//! let reply = stack.oneshot(request).await.unwrap();
//! assert_eq!(reply.status(), 429);
//! assert_eq!(reply.headers()["x-should-retry"], "false");
//! # });
//! ```

mod account;
mod active;
mod balance;
mod bucket;
mod budgets;
#[cfg(all(test, feature = "replicas"))]
pub(crate) mod by_hand;
mod calendar;
#[cfg(test)]
mod calendar_tests;
mod ceiling;
mod clamp;
#[cfg(test)]
mod clock_tests;
#[cfg(test)]
mod departure_tests;
mod elsewhere;
mod foresee;
mod free;
mod grants;
mod leases;
mod ledger;
mod notice;
mod notified;
mod pace;
mod raise;
#[cfg(test)]
mod raise_tests;
mod raised;
mod register;
mod reservation;
mod reserve;
mod rule;
mod settings;
mod status;
mod stretches;
mod table;
#[cfg(test)]
mod tests;
mod unbounded;
mod window;
mod zone;

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderValue, StatusCode};
use tower::{Layer, Service};

pub use self::account::Standing;
pub use self::bucket::Bucket;
pub use self::budgets::{Budgets, CurrentBudgets};
pub use self::free::{FREE, FREE_A_DAY, Plan};
pub use self::ledger::{Change, Lease, Ledger, LedgerError, Lessee};
pub use self::notice::{Notice, Share, Watch, What};
pub use self::raise::{ChangeError, Which};
pub use self::register::{Grant, Register, Registers, Registrant, Slot as RegisterSlot};
pub use self::reservation::Reservation;
use self::reserve::Refusal;
pub use self::rule::{OnExceeded, Rule, RuleError, Scope, Split};
pub use self::settings::Settings;
pub use self::status::{BucketStatus, Status};
use self::stretches::Stretches;
pub use self::unbounded::Unpriced;
pub use self::window::{Clock, Period, SystemClock};
pub use self::zone::{Weekday, Zone};
use super::inner::{Inner, access};
use super::{Reply, ReplyFuture};
use crate::Error;
pub use crate::amount::{Amount, Currency};
use crate::call::Call;
use crate::headers::CF_AIG_STEP;
use crate::preview::{Ahead, Ceilinged, Money, Verdict};
use crate::socket::LEAST;
use crate::vendor_error::VendorError;

/// Applies [`Budget`].
#[derive(Clone, Debug, Default)]
pub struct BudgetLayer {
    budgets: Option<Arc<Budgets>>,
    clamp: Option<u32>,
}

/// Reserves before each call and settles after it: see the [module](self).
#[derive(Clone, Debug)]
pub struct Budget<S> {
    inner: Inner<S>,
    budgets: Option<Arc<Budgets>>,
    /// The fewest tokens that are written into a request that names more, or none; `None` writes none.
    clamp: Option<u32>,
}

// === impl BudgetLayer ===

impl BudgetLayer {
    /// Holds to these budgets; the default holds to none.
    pub fn new(budgets: impl Into<Arc<Budgets>>) -> Self {
        let budgets: Arc<Budgets> = budgets.into();
        let clamp = budgets.clamp();
        Self { budgets: Some(budgets).filter(|budgets| !budgets.is_empty()), clamp }
    }

    /// What this call would meet here: its own ceiling, the budgets that count it, and why these would refuse one that nothing
    /// bounds. Reserves nothing, and makes no bucket.
    pub fn foresee(&self, call: &Call, ahead: &mut Ahead) {
        if let Some(ceiling) = &call.ceiling {
            let most = Money(ceiling.most);
            ahead.ceiling = Some(match ceiling::held(call.clone(), None) {
                Ok(_) => Ceilinged { most, would: Verdict::Pass, why: None },
                Err(_) if ceiling::held(call.clone(), self.clamp).is_ok() => {
                    Ceilinged { most, would: Verdict::Clamp, why: None }
                }
                Err(error) => Ceilinged { most, would: Verdict::Refuse, why: Some(error.to_string()) },
            });
        }
        if let Some(budgets) = &self.budgets {
            budgets.foresee(call, ahead);
        }
    }

    /// There is a budget that refuses what it has no room for, or sends it elsewhere.
    pub fn can_refuse(&self) -> bool {
        self.budgets.as_ref().is_some_and(|budgets| budgets.can_refuse())
    }
}

impl<S> Layer<S> for BudgetLayer {
    type Service = Budget<S>;

    fn layer(&self, inner: S) -> Budget<S> {
        Budget { inner: Inner(inner), budgets: self.budgets.clone(), clamp: self.clamp }
    }
}

// === impl Budget ===

access!(Budget);

impl<S> Service<Call> for Budget<S>
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

    fn call(&mut self, mut call: Call) -> ReplyFuture {
        if call.ceiling.is_some() {
            let clone = self.inner.clone();
            let inner = mem::replace(&mut self.inner, clone);
            return Box::pin(ceiling::answer(self.clamp, self.budgets.clone(), inner, call));
        }
        let Some(budgets) = &self.budgets else { return Box::pin(self.inner.call(call)) };
        match budgets.reserve_now(&call) {
            Some(Ok(None)) => Box::pin(self.inner.call(call)),
            Some(Ok(Some(reservation))) if call.socket.is_some() => {
                let clone = self.inner.clone();
                let (inner, budgets) = (mem::replace(&mut self.inner, clone), budgets.clone());
                Box::pin(open(budgets, inner, call, reservation))
            }
            Some(Ok(Some(reservation))) => {
                let receipt = call.receipt.clone();
                call.allowance = Some(reservation.clone());
                call.assumed = budgets.assumed(&call);
                let reply = self.inner.call(call);
                Box::pin(async move {
                    let reply = reply.await;
                    settle_failed(&reply, &reservation, &receipt);
                    reply
                })
            }
            // The service that is ready is the one to call; a clone of it takes its place.
            refused => {
                let clone = self.inner.clone();
                let (inner, budgets) = (mem::replace(&mut self.inner, clone), budgets.clone());
                let refusal = refused.and_then(|refused| refused.err());
                if call.socket.is_some() {
                    return Box::pin(begin(budgets, inner, call, refusal));
                }
                Box::pin(async move { negotiate(&budgets, inner, call, refusal).await })
            }
        }
    }
}

/// A socket for whose first stretch there is not enough room: as much as there is will do.
async fn begin<S>(budgets: Arc<Budgets>, inner: S, call: Call, refusal: Option<Refusal>) -> Result<Reply, Error>
where
    S: Service<Call, Response = Reply, Error = Error>,
{
    // What has no bound has none in a shorter stretch.
    if let Some(Refusal { error: error @ Error::CostUnbounded { .. }, .. }) = refusal {
        budgets.count(&error, false);
        return Err(error);
    }
    let opening = call.socket.clone().unwrap_or_default();
    let prices = call.model.prices.over_socket();
    let cost = |time| prices.cost(&opening.usage(time));
    let stretch = budgets.reserve_stretch(&call, cost(opening.settings.stretch), cost(LEAST)).await;
    match stretch {
        Ok(stretch) => open(budgets, inner, call, stretch).await,
        Err(error) => {
            budgets.count(&error, false);
            Err(error)
        }
    }
}

/// A socket, with its first stretch.
async fn open<S>(budgets: Arc<Budgets>, mut inner: S, mut call: Call, first: Arc<Reservation>) -> Result<Reply, Error>
where
    S: Service<Call, Response = Reply, Error = Error>,
{
    let stretches = Stretches::new(budgets, &call, first);
    let receipt = call.receipt.clone();
    call.allowance = Some(stretches.clone());
    let reply = inner.call(call).await;
    if !reply.as_ref().is_ok_and(|reply| reply.status() == StatusCode::SWITCHING_PROTOCOLS) {
        receipt.read(|facts| stretches.settle(facts));
    }
    reply
}

/// The long way: waiting, another model, fewer tokens.
async fn negotiate<S>(
    budgets: &Budgets,
    mut inner: S,
    mut call: Call,
    mut refusal: Option<Refusal>,
) -> Result<Reply, Error>
where
    S: Service<Call, Response = Reply, Error = Error>,
{
    let mut tried = vec![call.model.id.clone()];
    let reservation = loop {
        let refused = match refusal.take() {
            Some(refused) => refused,
            None => match budgets.reserve(&call).await {
                Ok(reservation) => break reservation,
                Err(refused) => refused,
            },
        };
        if let Some(model) = refused
            .instead
            .as_ref()
            .filter(|model| call.can_change_model() && !tried.contains(&model.id) && call.may_ask(&model.id))
        {
            tried.push(model.id.clone());
            budgets.count(&refused.error, true);
            call = call.with_model(model.clone());
            call.receipt.note(|facts| {
                facts.step = facts.step.saturating_add(1);
                facts.model = model.clone();
            });
            // The model that is asked instead has a bound of its own.
            call = ceiling::held(call, budgets.clamp())?;
            continue;
        }
        match clamped(budgets, &call).await {
            Some((shorter, held)) => {
                call = shorter;
                break held;
            }
            None => {
                budgets.count(&refused.error, false);
                return Err(refused.error);
            }
        }
    };
    let receipt = call.receipt.clone();
    call.allowance = Some(reservation.clone());
    call.assumed = budgets.assumed(&call);
    let mut reply = ceiling::ask(&mut inner, call).await;
    settle_failed(&reply, &reservation, &receipt);
    if let (Ok(reply), true) = (&mut reply, tried.len() > 1) {
        reply.headers_mut().insert(CF_AIG_STEP, HeaderValue::from(receipt.read(|facts| u16::from(facts.step))));
    }
    reply
}

async fn clamped(budgets: &Budgets, call: &Call) -> Option<(Call, Arc<Reservation>)> {
    if !budgets.settings.clamp_max_tokens {
        return None;
    }
    let shorter = clamp::clamp(call, budgets.room(call), budgets.settings.min_tokens)?;
    let reservation = budgets.reserve(&shorter).await.ok()?;
    Some((shorter, reservation))
}

/// A call that failed is settled at once: whoever tries another model has the whole budget for it.
fn settle_failed(reply: &Result<Reply, Error>, reservation: &Reservation, receipt: &crate::receipt::Receipt) {
    let has_failed = match reply {
        Ok(reply) => !reply.status().is_success() || reply.extensions().get::<VendorError>().is_some(),
        Err(_) => true,
    };
    if has_failed {
        receipt.read(|facts| reservation.settle(facts));
    }
}
