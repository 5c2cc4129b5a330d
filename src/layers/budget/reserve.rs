//! Reserving what a call may cost in every budget that counts it, or in none.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::MutexGuard;
use smallvec::SmallVec;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::balance::{Balance, LEDGER_WAIT, Verdict};
use super::bucket::Bucket;
use super::budgets::{Budgets, Counted};
use super::reservation::Reservation;
use super::rule::{OnExceeded, Rule};
use super::unbounded::{self, Unpriced};
use super::window::{Millis, Moment};
use crate::Error;
use crate::call::Call;
use crate::catalogue::{Model, Task};
use crate::neurons::Neurons;
use crate::receipt::{BudgetLeft, Estimate};

/// Why nothing was reserved.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(super) error: Error,
    /// What to ask instead.
    pub(super) instead: Option<Arc<Model>>,
}

/// The buckets that count a call, locked: few enough, most often, to need no room of their own.
type Balances<'a> = SmallVec<[MutexGuard<'a, Balance>; USUAL_BUCKETS]>;

const USUAL_BUCKETS: usize = 4;

/// One try to reserve.
enum Tried {
    Reserved(Arc<Reservation>),
    Wait { bucket: Arc<Bucket>, verdict: Verdict, relief: Duration },
    Refused(Refusal),
}

/// A call's ticket in the queue of a bucket, which it leaves when the ticket is dropped.
struct Ticket {
    number: u64,
    notify: Arc<Notify>,
    bucket: Option<Arc<Bucket>>,
}

// === impl Budgets ===

impl Budgets {
    /// Reserves at once what the call may cost, or says that it would have to wait or is refused.
    pub(super) fn reserve_now(&self, call: &Call) -> Option<Result<Option<Arc<Reservation>>, Refusal>> {
        if !self.tables.iter().any(|counted| counted.rule.applies(call)) {
            return Some(Ok(None));
        }
        let needed = match self.needed(call) {
            Ok(needed) => needed,
            Err(refusal) => return Some(Err(refusal)),
        };
        match self.attempt(call, needed, &mut None) {
            Tried::Reserved(reservation) => Some(Ok(Some(reservation))),
            Tried::Refused(refusal) => Some(Err(refusal)),
            Tried::Wait { .. } => None,
        }
    }

    /// Reserves what the call may cost, waiting for others to settle where that may help.
    pub(crate) async fn reserve(&self, call: &Call) -> Result<Arc<Reservation>, Refusal> {
        let needed = self.needed(call)?;
        self.reserve_exactly(call, needed).await
    }

    /// Reserves the next stretch of a socket: so much, or all that is left, and no less than `least`.
    pub(super) async fn reserve_stretch(
        &self,
        call: &Call,
        wanted: Neurons,
        least: Neurons,
    ) -> Result<Arc<Reservation>, Error> {
        let refused = match self.reserve_exactly(call, wanted).await {
            Ok(reservation) => return Ok(reservation),
            Err(refused) => refused,
        };
        let room = self.room(call).min(wanted);
        if room < least || room.is_zero() || !matches!(refused.error, Error::BudgetExceeded { .. }) {
            return Err(refused.error);
        }
        // Another may take it between the look and the try.
        self.reserve_exactly(call, room).await.map_err(|refused| refused.error)
    }

    async fn reserve_exactly(&self, call: &Call, needed: Neurons) -> Result<Arc<Reservation>, Refusal> {
        let queued = call.receipt.queue();
        let number = self.all.tickets.fetch_add(1, Ordering::Relaxed);
        let mut ticket = Some(Ticket { number, notify: Arc::default(), bucket: None });
        let mut lease_wanted_at = None;
        let reserved = loop {
            let (bucket, verdict, relief) = match self.attempt(call, needed, &mut ticket) {
                Tried::Reserved(reservation) => break Ok(reservation),
                Tried::Refused(refusal) => break Err(refusal),
                Tried::Wait { bucket, verdict, relief } => (bucket, verdict, relief),
            };
            let left = if verdict == Verdict::Lease {
                LEDGER_WAIT.saturating_sub(lease_wanted_at.get_or_insert_with(Instant::now).elapsed())
            } else {
                lease_wanted_at = None;
                self.settings.max_wait.saturating_sub(queued.elapsed())
            };
            if left.is_zero() {
                break Err(if verdict == Verdict::Lease {
                    unwritten(&bucket)
                } else {
                    self.refusal(&bucket, needed, call)
                });
            }
            if let Some(ticket) = &ticket {
                let _ = tokio::time::timeout(left.min(relief), ticket.notify.notified()).await;
            }
        };
        queued.leave();
        reserved
    }

    /// What a call reserves: its bound, or what stands in for one where nothing bounds it.
    pub(super) fn needed(&self, call: &Call) -> Result<Neurons, Refusal> {
        let estimate = Estimate::of(call);
        call.receipt.note(|facts| {
            facts.estimate.get_or_insert(estimate);
        });
        if let Some(upper) = estimate.upper {
            return Ok(upper);
        }
        let may_refuse = |rule: &Rule| rule.on_exceeded != OnExceeded::Allow && rule.applies(call);
        let held = self.tables.iter().map(|counted| &counted.rule).find(|rule| may_refuse(rule));
        match (held, self.settings.unpriced) {
            (Some(rule), Unpriced::Refuse) => {
                let error = unbounded::error(call, rule, self.settings.clamp_max_tokens);
                Err(Refusal { error, instead: self.instead(rule) })
            }
            (Some(_), Unpriced::AtMost(neurons)) => Ok(neurons),
            _ => Ok(self.assumed(call).unwrap_or(estimate.likely)),
        }
    }

    /// What a call is charged where neither the table nor the vendor says what it cost.
    pub(super) fn assumed(&self, call: &Call) -> Option<Neurons> {
        match self.settings.unpriced {
            Unpriced::AtMost(neurons) if call.model.prices.is_empty() => Some(neurons),
            _ => None,
        }
    }

    /// The model that a rule sends to what it has no room for.
    pub(super) fn instead(&self, rule: &Rule) -> Option<Arc<Model>> {
        match &rule.on_exceeded {
            OnExceeded::Model(id) => Some(self.catalogue.find(id, Task::TextGeneration)),
            OnExceeded::Reject | OnExceeded::Allow => None,
        }
    }

    /// Locks every bucket that counts the call, in the rules' order, so that nobody sees a part of a reservation and two
    /// calls never wait for each other's locks.
    fn attempt(&self, call: &Call, needed: Neurons, ticket: &mut Option<Ticket>) -> Tried {
        let now = Moment::of(&*self.settings.clock);
        loop {
            let buckets = self.buckets(call, now);
            let balances: Balances<'_> = buckets.iter().map(|bucket| bucket.lock(now)).collect();
            if balances.iter().all(|balance| !balance.retired) {
                return self.decide(call, needed, ticket, &buckets, balances);
            }
        }
    }

    fn decide(
        &self,
        call: &Call,
        needed: Neurons,
        ticket: &mut Option<Ticket>,
        buckets: &[Arc<Bucket>],
        mut balances: Balances<'_>,
    ) -> Tried {
        let number = ticket.as_ref().map_or(u64::MAX, |ticket| ticket.number);
        let verdicts = buckets.iter().zip(&balances);
        let verdicts = verdicts.map(|(bucket, balance)| balance.verdict(&bucket.rule, needed, number, true));
        let worst = verdicts.enumerate().max_by_key(|(n, verdict)| (*verdict, std::cmp::Reverse(*n)));
        let (blocking, verdict) = worst.unwrap_or((0, Verdict::Room));
        match verdict {
            Verdict::Room => {
                let starts: SmallVec<[_; USUAL_BUCKETS]> =
                    balances.iter_mut().map(|balance| balance.reserve(needed)).collect();
                for (bucket, balance) in buckets.iter().zip(&mut balances) {
                    balance.leave(number);
                    bucket.list(balance);
                }
                if self.settings.headers {
                    self.note_left(call, buckets, &balances);
                }
                drop(balances);
                Tried::Reserved(Reservation::new(buckets.iter().cloned().zip(starts).collect(), needed, call))
            }
            Verdict::Full => {
                drop(balances);
                Tried::Refused(self.refusal(&buckets[blocking], needed, call))
            }
            Verdict::Unwritten => {
                drop(balances);
                Tried::Refused(unwritten(&buckets[blocking]))
            }
            Verdict::Lease | Verdict::Settling => {
                let (bucket, balance) = (&buckets[blocking], &mut balances[blocking]);
                let relief = Duration::from_millis(balance.next_relief().saturating_sub(bucket.rule.now().wall).max(1));
                let may_wait = verdict == Verdict::Lease || self.may_wait(ticket, balance);
                if may_wait && let Some(ticket) = ticket {
                    balance.wait(ticket.number, needed, ticket.notify.clone());
                    bucket.list(balance);
                    drop(balances);
                    ticket.move_to(bucket);
                    return Tried::Wait { bucket: bucket.clone(), verdict, relief };
                }
                drop(balances);
                if may_wait {
                    Tried::Wait { bucket: bucket.clone(), verdict, relief }
                } else {
                    Tried::Refused(self.refusal(bucket, needed, call))
                }
            }
        }
    }

    /// Notes what the budget that has least left has left, on the call's receipt.
    fn note_left(&self, call: &Call, buckets: &[Arc<Bucket>], balances: &[MutexGuard<'_, Balance>]) {
        let refusing = buckets.iter().zip(balances).filter(|(bucket, _)| !bucket.rule.only_counts());
        let left = refusing.map(|(bucket, balance)| {
            let resets = bucket.rule.now().wall;
            BudgetLeft {
                left: balance.left(),
                resets: Duration::from_millis(balance.next_relief().saturating_sub(resets)),
            }
        });
        let least = left.min_by_key(|left| left.left);
        call.receipt.note(|facts| facts.budget = least);
    }

    fn may_wait(&self, ticket: &Option<Ticket>, balance: &Balance) -> bool {
        let is_queued = ticket.as_ref().is_some_and(|ticket| ticket.bucket.is_some());
        !self.settings.max_wait.is_zero() && (is_queued || balance.queue_length() < self.settings.max_waiting)
    }

    fn buckets(&self, call: &Call, now: Moment) -> SmallVec<[Arc<Bucket>; USUAL_BUCKETS]> {
        let counting = self.tables.iter().filter(|counted| counted.rule.applies(call));
        counting.map(|counted| counted.table.find(call, now)).collect()
    }

    /// The most that a call like this one may cost now, in every budget that counts it.
    pub(super) fn room(&self, call: &Call) -> Neurons {
        let now = Moment::of(&*self.settings.clock);
        let room = |bucket: Arc<Bucket>| bucket.lock(now).room(&bucket.rule);
        self.buckets(call, now).into_iter().map(room).min().unwrap_or_default()
    }

    fn refusal(&self, bucket: &Arc<Bucket>, needed: Neurons, call: &Call) -> Refusal {
        let rule = &bucket.rule;
        let now = rule.now();
        call.receipt.note(|facts| facts.estimate.get_or_insert_with(|| Estimate::of(call)).upper);
        let balance = bucket.lock(now);
        let (left, limit) = (balance.left(), balance.limit);
        bucket.want_news(&balance);
        let until = |at: Millis| Duration::from_millis(at.saturating_sub(now.wall));
        let resets = balance.free_at(needed).map(until);
        if self.settings.headers {
            let resets = resets.unwrap_or_else(|| until(balance.next_relief()));
            call.receipt.note(|facts| facts.budget = Some(BudgetLeft { left, resets }));
        }
        drop(balance);
        // What is more than all of it is the call's matter, not the budget's.
        if resets.is_some() {
            bucket.note_full();
        }
        let hint = unbounded::limit_hint(call, self.settings.clamp_max_tokens).unwrap_or_default();
        let error = Error::BudgetExceeded {
            budget: rule.rule.name.clone(),
            currency: rule.rule.limit.currency,
            limit,
            left,
            needed,
            mend: hint + &mend(&rule.rule, resets),
            retry_after: resets,
        };
        let own = self.tables.iter().find(|counted| Arc::ptr_eq(&counted.table.rule, rule));
        Refusal { error, instead: own.and_then(|counted| self.instead(&counted.rule)) }
    }

    /// Counts a call that is refused in the end, or is sent to another model.
    pub(super) fn count(&self, error: &Error, is_diverted: bool) {
        let (Error::BudgetExceeded { budget, .. } | Error::CostUnbounded { budget, .. }) = error else { return };
        if let Some(Counted { table, .. }) = self.tables.iter().find(|counted| counted.rule.name == *budget) {
            let counter = if is_diverted { &table.rule.diverted } else { &table.rule.rejected };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What is spent now would be forgotten with the process.
fn unwritten(bucket: &Bucket) -> Refusal {
    let why = format!(
        "the budget {:?} cannot be spent from: its books cannot be written, and what its last lease covers is used up; make \
         room on the disk of [records] path, see to the store of [replicas], or see the log",
        bucket.rule.rule.name
    );
    Refusal { error: Error::Unavailable(why), instead: None }
}

fn mend(rule: &Rule, resets: Option<Duration>) -> String {
    let Some(after) = resets else {
        return "that is more than all of it: ask for fewer tokens, or raise the budget's limit".into();
    };
    let seconds = after.as_secs().max(1);
    let time = match (seconds / 3600, seconds % 3600 / 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    };
    let what = if rule.sliding { "there will be room" } else { "it begins anew" };
    format!("{what} in {time}")
}

// === impl Ticket ===

impl Ticket {
    fn move_to(&mut self, bucket: &Arc<Bucket>) {
        let old = self.bucket.replace(bucket.clone());
        if let Some(old) = old.filter(|old| !Arc::ptr_eq(old, bucket)) {
            old.leave(self.number);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(bucket) = self.bucket.take() {
            bucket.leave(self.number);
        }
    }
}
