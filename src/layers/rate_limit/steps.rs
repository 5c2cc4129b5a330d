//! The limits that hold a call besides its model's, where gates share them: each has a lane of its own, by a name that is the same at
//! every gate.
//!
//! They are taken one after the other, the key's before the model's, so that two gates never wait for what the other holds.
//! What is taken counts from then on, also while the call waits for the next of them; a call that is refused by one gives back what
//! it took of the others.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::lane::Answer;
use super::limits::{Request, Shared, named, shortened};
use super::permit::Permit;
use super::place::Place;
use super::refusal::{By, Refusal};
use super::request::{LaneRequest, Rates};
use super::window::Rate;
use crate::call::Call;
use crate::catalogue::Slot;
use crate::estimate;
use crate::preview::{Limited, Verdict};
use crate::receipt::{Receipt, Source};

/// What a call has to take, and what it has taken. Dropping it gives back what was not used.
pub(super) struct Steps {
    limits: Shared,
    ahead: Vec<(Request, Arc<str>)>,
    taken: Vec<(Request, Permit)>,
    receipt: Receipt,
}

/// Tokens that were taken by estimate, by lane, and the call that will tell how many it used.
pub(super) type Counted = Vec<(u64, Permit, Receipt)>;

const MINUTE: Duration = Duration::from_secs(60);

// === impl Steps ===

impl Steps {
    /// `None` where its model's limit alone holds the call.
    pub(super) fn of(limits: &Shared, call: &Call) -> Option<Self> {
        let tokens = limits.rates_of(&call.model.id).tokens;
        let own = call.key.as_ref().map_or(Rates::default(), |key| limits.own_rates(key));
        if tokens.is_none() && !own.is_any() {
            return None;
        }
        let key = call.key.as_deref().unwrap_or_default();
        let counts = tokens.is_some() || own.tokens.is_some();
        let estimated = if counts { u32::try_from(estimate::tokens(call)).unwrap_or(u32::MAX / 4) } else { 0 };
        let caller = limits.request(call).ask.caller;
        let step = |by: By, what: &str, whose: &str, rate: Option<Rate>| {
            let ask = LaneRequest {
                caller,
                is_keyless: call.key.is_none(),
                requests_limit: rate?,
                tokens_limit: None,
                tokens: estimated,
                own: Rates::default(),
            };
            let name = named(what, whose, call);
            Some((Request { lane: limits.hash((by as u8, &*name)), slot: call.model.slot, by, ask }, name))
        };
        let ahead = [
            step(By::KeyRequests, "key", key, own.requests),
            step(By::KeyTokens, "key-tokens", key, own.tokens),
            step(By::Tokens, "tokens", "", tokens),
        ];
        let ahead = ahead.into_iter().flatten().collect();
        Some(Self { limits: limits.clone(), ahead, taken: Vec::new(), receipt: call.receipt.clone() })
    }

    /// Waits for all of them, and for the model's own last.
    pub(super) async fn take(&mut self, last: Request, call: &Call) -> Result<Permit, Option<Refusal>> {
        let until = self.limits.now().saturating_add(self.limits.longest_wait());
        for (request, name) in std::mem::take(&mut self.ahead) {
            let permit = turn(&self.limits, request, move || name, until).await?;
            self.taken.push((request, permit));
        }
        turn(&self.limits, last, || super::limits::name(call), until).await
    }

    /// The call goes: what was taken is used, and tokens are to be put right.
    pub(super) fn used(mut self) -> Counted {
        let taken = std::mem::take(&mut self.taken).into_iter();
        let tokens = taken.filter(|(request, _)| matches!(request.by, By::Tokens | By::KeyTokens));
        tokens.map(|(request, permit)| (request.lane, permit, self.receipt.clone())).collect()
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        for (request, permit) in self.taken.drain(..) {
            self.limits.give_back(request.lane, permit);
        }
    }
}

async fn turn(
    limits: &Shared,
    request: Request,
    name: impl FnOnce() -> Arc<str>,
    until: u64,
) -> Result<Permit, Option<Refusal>> {
    match limits.ask_by(request, name, until) {
        Answer::Granted(permit) => Ok(permit),
        Answer::Queued(ticket, waiter) => Place::new(limits.clone(), request, ticket, waiter, until).turn().await,
        Answer::Refused(refusal) => Err(Some(refusal)),
    }
}

/// Puts right what was taken by estimate, when the call is over; nothing was used where it was not answered.
pub(super) fn correct(limits: Shared, counted: Counted, answered: bool) {
    for (lane, permit, receipt) in counted {
        if !answered {
            limits.correct(lane, permit, 0);
            continue;
        }
        let limits = limits.clone();
        receipt.on_seal(move |facts| {
            // An estimate of what flowed is no better than the one that was taken.
            if facts.cost.source > Source::Estimated {
                let usage = &facts.usage;
                limits.correct(lane, permit, usage.input_tokens.saturating_add(usage.output_tokens));
            }
        });
    }
}

/// See [`RateLimitLayer::turn_of_key`](super::RateLimitLayer::turn_of_key).
pub(super) fn of_key(
    limits: Shared,
    key: &str,
    requests_per_minute: NonZeroU32,
) -> impl Future<Output = Result<(), Duration>> + Send + use<> {
    let name = shortened("requests-of-key", &[key]);
    let ask = LaneRequest {
        caller: 0,
        is_keyless: false,
        requests_limit: Rate::new(requests_per_minute.get(), MINUTE),
        tokens_limit: None,
        tokens: 0,
        own: Rates::default(),
    };
    let by = By::KeyDoor;
    let request = Request { lane: limits.hash((by as u8, &*name)), slot: Slot::numbered(u16::MAX), by, ask };
    async move {
        let now = limits.now();
        let until = now.saturating_add(limits.store_wait());
        let permit = turn(&limits, request, move || name, until).await;
        permit.map(drop).map_err(|refusal| refusal.map_or(Duration::from_secs(1), |refusal| refusal.retry_after))
    }
}

/// How a call would stand to all of its limits.
pub(super) fn foresee(limits: &Shared, call: &Call) -> Limited {
    let mut limited = limits.foresee(limits.request(call));
    let Some(steps) = limits.is_shared().then(|| Steps::of(limits, call)).flatten() else { return limited };
    for (request, _) in &steps.ahead {
        let step = limits.foresee(*request);
        let is_worse = |a: Verdict, b: Verdict| {
            let rank = |verdict| match verdict {
                Verdict::Pass => 0,
                Verdict::Wait => 1,
                _ => 2,
            };
            rank(a) > rank(b)
        };
        limited.wait = limited.wait.max(step.wait);
        if is_worse(step.would, limited.would) {
            limited.would = step.would;
        }
    }
    limited
}

/// Takes all permits if there are any now.
pub(super) fn try_take(limits: &Shared, call: &Call) -> bool {
    let request = limits.request(call);
    let Some(mut steps) = limits.is_shared().then(|| Steps::of(limits, call)).flatten() else {
        return limits.try_take(request, call);
    };
    let now = limits.now();
    for (request, name) in std::mem::take(&mut steps.ahead) {
        match limits.ask_by(request, move || name, now) {
            Answer::Granted(permit) => steps.taken.push((request, permit)),
            Answer::Queued(ticket, waiter) => {
                limits.leave(request.lane, ticket, &waiter);
                return false;
            }
            Answer::Refused(_) => return false,
        }
    }
    let took = limits.try_take(request, call);
    if took {
        drop(steps.used());
    }
    took
}
