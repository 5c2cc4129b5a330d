//! All budgets: reserving in all that count a call, or in none.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::active::Active;
use super::bucket::{Bucket, LEDGER_WAIT, State, Verdict};
use super::ledger::Ledger;
use super::notice::Watch;
use super::register::Registers;
use super::reservation::Reservation;
use super::rule::{self, OnExceeded, Rule, RuleError};
use super::table::{Sums, Table};
use super::unbounded::{self, Unpriced};
use super::window::{Clock, Millis, Moment, SystemClock};
use crate::Error;
use crate::batches::{Held, Holding};
use crate::call::Call;
use crate::catalogue::{Catalogue, Model, Task};
use crate::neurons::Neurons;
use crate::receipt::{BudgetLeft, Estimate};

/// How the budgets are kept.
#[derive(Clone)]
pub struct Settings {
    /// The budgets.
    pub rules: Vec<Rule>,
    /// How long a call may wait for room that only others' unsettled reservations take up; zero is not at all.
    pub max_wait: Duration,
    /// How many calls may wait in one bucket.
    pub max_waiting: usize,
    /// How many buckets a budget that is split may have; further values share one.
    pub max_buckets: usize,
    /// Admit a call that would be refused with a lower `max_tokens`, if that fits.
    pub clamp_max_tokens: bool,
    /// But not with less than this.
    pub min_tokens: u32,
    /// What becomes of a call whose cost nothing bounds.
    pub unpriced: Unpriced,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Note on each call's receipt what the budget that has least left has left: the reply tells it.
    pub headers: bool,
    /// What outlives the process; without one, nothing.
    pub ledger: Option<Arc<dyn Ledger>>,
    /// What other gates share: budgets of [`Scope::Gate`](super::Scope::Gate).
    pub registers: Option<Arc<dyn Registers>>,
    /// Who is told of what a person may want to know; the log is in any case.
    pub watch: Option<Arc<dyn Watch>>,
}

/// The budgets and what has been spent of them. Every stack that shares it shares the budgets.
pub struct Budgets {
    pub(super) tables: Vec<Counted>,
    /// Knows the models that calls are sent to instead.
    catalogue: Arc<Catalogue>,
    pub(super) settings: Settings,
    all: Arc<All>,
}

/// A rule as these budgets have it, and what it counts, which may be older.
pub(super) struct Counted {
    pub(super) rule: Arc<Rule>,
    pub(super) table: Arc<Table>,
}

/// What all budgets share that follow each other.
struct All {
    /// By their names in the ledger.
    tables: Mutex<HashMap<Arc<str>, Arc<Table>>>,
    tickets: AtomicU64,
}

/// The budgets that hold now, for who looks at them again and again while they may be followed by others.
#[derive(Clone)]
pub struct CurrentBudgets(Arc<ArcSwap<Budgets>>);

/// Why nothing was reserved.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(super) error: Error,
    /// What to ask instead.
    pub(super) instead: Option<Arc<Model>>,
}

/// How a budget stands.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// The budget's name.
    pub name: String,
    /// Of each bucket.
    pub limit: Neurons,
    /// All buckets together.
    pub spent: Neurons,
    /// All buckets together.
    pub reserved: Neurons,
    /// What the vendor's books have beyond that, all buckets together: see [`Budgets::book`].
    pub elsewhere: Neurons,
    /// What the fullest bucket has left.
    pub left: Neurons,
    /// How many buckets there are.
    pub buckets: usize,
    /// Calls refused.
    pub rejected: u64,
    /// Calls sent to a cheaper model instead.
    pub diverted: u64,
    /// Neurons a second, all buckets together, over the last minutes.
    pub pace_per_second: f64,
    /// When `left` will be gone at this pace; `None` where nothing is being spent.
    pub lasts: Option<Duration>,
    /// When the window ends, or its oldest part.
    pub resets_at: SystemTime,
}

/// What rules counted that are in no config any more.
const MAX_UNUSED: usize = 256;

/// One try to reserve.
enum Tried {
    Reserved(Arc<Reservation>),
    Wait { bucket: Arc<Bucket>, verdict: Verdict, relief: Duration },
    Refused(Refusal),
}

/// A place in a bucket's queue; left when it is dropped.
struct Place {
    ticket: u64,
    notify: Arc<Notify>,
    bucket: Option<Arc<Bucket>>,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            max_wait: Duration::ZERO,
            max_waiting: 1000,
            max_buckets: 100_000,
            clamp_max_tokens: false,
            min_tokens: 16,
            unpriced: Unpriced::default(),
            clock: Arc::new(SystemClock),
            headers: false,
            ledger: None,
            registers: None,
            watch: None,
        }
    }
}

// === impl Budgets ===

impl Budgets {
    /// Starts with what the ledger has. The catalogue knows the models that calls are sent to instead.
    pub fn new(settings: Settings, catalogue: impl Into<Arc<Catalogue>>) -> Result<Self, RuleError> {
        let all = Arc::new(All { tables: Mutex::default(), tickets: AtomicU64::new(0) });
        Self::over(settings, catalogue.into(), all)
    }

    /// Other settings over what these have spent and reserved: a rule that counts as one of these did, or of those before them,
    /// goes on from there. They hold from [`come_into_force`](Self::come_into_force) on. Clock and ledger stay as they were.
    pub fn followed_by(&self, settings: Settings) -> Result<Self, RuleError> {
        let Settings { clock, ledger, watch, registers, .. } = self.settings.clone();
        Self::over(Settings { clock, ledger, watch, registers, ..settings }, self.catalogue.clone(), self.all.clone())
    }

    fn over(settings: Settings, catalogue: Arc<Catalogue>, all: Arc<All>) -> Result<Self, RuleError> {
        let rules: Vec<_> = settings.rules.iter().cloned().map(Arc::new).collect();
        rule::check(&rules)?;
        let now = Moment::of(&*settings.clock);
        let counted = |rule: Arc<Rule>| {
            let ledger_name: Arc<str> = rule.ledger_name().into();
            let known = all.tables.lock().get(&ledger_name).cloned();
            let table = match known {
                Some(table) => table,
                None => {
                    let (clock, ledger) = (settings.clock.clone(), settings.ledger.clone());
                    let registers = settings.registers.clone().filter(|_| rule.is_shared());
                    let active = Active::new(rule.clone(), clock, ledger, settings.watch.clone(), registers, now);
                    restored(Table::new(Arc::new(active), settings.max_buckets), now)?
                }
            };
            Ok(Counted { rule, table })
        };
        let tables = rules.into_iter().map(counted).collect::<Result<Vec<_>, RuleError>>()?;
        let budgets = Self { tables, catalogue, settings, all };
        let is_new = |table: &Table| !budgets.all.tables.lock().contains_key(&table.rule.ledger_name);
        budgets.take_up_changes(is_new, now);
        if budgets.all.tables.lock().is_empty() {
            budgets.all.keep(&budgets.tables);
        }
        Ok(budgets)
    }

    /// From here on these hold, also for those who wait: limits count as they are now. What no rule counts any more is kept for
    /// one that counts it again.
    pub fn come_into_force(&self) {
        let now = Moment::of(&*self.settings.clock);
        for Counted { rule, table } in &self.tables {
            table.hold_to(rule, now);
        }
        self.all.keep(&self.tables);
        for table in self.all.tables.lock().values() {
            if !self.tables.iter().any(|counted| Arc::ptr_eq(&counted.table, table)) {
                table.release();
            }
        }
    }

    /// The fewest tokens that are written into requests, where any are.
    pub(super) fn clamp(&self) -> Option<u32> {
        self.settings.clamp_max_tokens.then_some(self.settings.min_tokens)
    }

    /// See [`BudgetLayer::can_refuse`](super::BudgetLayer::can_refuse).
    pub(super) fn can_refuse(&self) -> bool {
        self.tables.iter().any(|counted| counted.rule.on_exceeded != OnExceeded::Allow)
    }

    /// True where there is nothing to hold to.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Holds again what an earlier run held for a batch, in those of its buckets that still count.
    pub fn hold_again(&self, holdings: &[Holding], needed: Neurons, model: Arc<str>) -> Arc<dyn Held> {
        let now = Moment::of(&*self.settings.clock);
        let find = |place: &Holding| {
            let counted = self.tables.iter().find(|counted| *counted.table.rule.ledger_name == *place.budget)?;
            let bucket = counted.table.restored(&place.bucket)?;
            bucket.hold_again(place.start_ms, needed, now).then_some((bucket, place.start_ms))
        };
        Reservation::held(holdings.iter().filter_map(find).collect(), needed, model)
    }

    /// Before the ledger is closed: gives back the leases that nothing was spent of.
    pub fn release(&self) {
        self.all.tables.lock().values().for_each(|table| table.release());
    }

    /// How each budget stands now.
    pub fn status(&self) -> Vec<Status> {
        let now = Moment::of(&*self.settings.clock);
        self.tables.iter().map(|counted| status(counted, now)).collect()
    }

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
        let ticket = self.all.tickets.fetch_add(1, Ordering::Relaxed);
        let mut place = Some(Place { ticket, notify: Arc::default(), bucket: None });
        let mut lease_wanted_at = None;
        let reserved = loop {
            let (bucket, verdict, relief) = match self.attempt(call, needed, &mut place) {
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
            if let Some(place) = &place {
                let _ = tokio::time::timeout(left.min(relief), place.notify.notified()).await;
            }
        };
        queued.leave();
        reserved
    }

    /// What a call reserves: its bound, or what stands in for one where nothing bounds it.
    pub(super) fn needed(&self, call: &Call) -> Result<Neurons, Refusal> {
        let estimate = Estimate::of(call);
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
    fn attempt(&self, call: &Call, needed: Neurons, place: &mut Option<Place>) -> Tried {
        let now = Moment::of(&*self.settings.clock);
        loop {
            let buckets = self.buckets(call, now);
            let states: Vec<_> = buckets.iter().map(|bucket| bucket.lock(now)).collect();
            if states.iter().all(|state| !state.retired) {
                return self.decide(call, needed, place, &buckets, states);
            }
        }
    }

    fn decide(
        &self,
        call: &Call,
        needed: Neurons,
        place: &mut Option<Place>,
        buckets: &[Arc<Bucket>],
        mut states: Vec<MutexGuard<'_, State>>,
    ) -> Tried {
        let ticket = place.as_ref().map_or(u64::MAX, |place| place.ticket);
        let verdicts = buckets.iter().zip(&states);
        let verdicts = verdicts.map(|(bucket, state)| state.verdict(&bucket.rule, needed, ticket, true));
        let worst = verdicts.enumerate().max_by_key(|(n, verdict)| (*verdict, std::cmp::Reverse(*n)));
        let (blocking, verdict) = worst.unwrap_or((0, Verdict::Room));
        match verdict {
            Verdict::Room => {
                let starts: Vec<_> = states.iter_mut().map(|state| state.reserve(needed)).collect();
                for (bucket, state) in buckets.iter().zip(&mut states) {
                    state.leave(ticket);
                    bucket.list(state);
                }
                if self.settings.headers {
                    self.note_left(call, buckets, &states);
                }
                drop(states);
                Tried::Reserved(Reservation::new(buckets.iter().cloned().zip(starts).collect(), needed, call))
            }
            Verdict::Full => {
                drop(states);
                Tried::Refused(self.refusal(&buckets[blocking], needed, call))
            }
            Verdict::Unwritten => {
                drop(states);
                Tried::Refused(unwritten(&buckets[blocking]))
            }
            Verdict::Lease | Verdict::Settling => {
                let (bucket, state) = (&buckets[blocking], &mut states[blocking]);
                let relief = Duration::from_millis(state.next_relief().saturating_sub(bucket.rule.now().wall).max(1));
                let may_wait = verdict == Verdict::Lease || self.may_wait(place, state);
                if may_wait && let Some(place) = place {
                    state.wait(place.ticket, needed, place.notify.clone());
                    bucket.list(state);
                    drop(states);
                    place.move_to(bucket);
                    return Tried::Wait { bucket: bucket.clone(), verdict, relief };
                }
                drop(states);
                if may_wait {
                    Tried::Wait { bucket: bucket.clone(), verdict, relief }
                } else {
                    Tried::Refused(self.refusal(bucket, needed, call))
                }
            }
        }
    }

    /// Notes what the budget that has least left has left, on the call's receipt.
    fn note_left(&self, call: &Call, buckets: &[Arc<Bucket>], states: &[MutexGuard<'_, State>]) {
        let refusing = buckets.iter().zip(states).filter(|(bucket, _)| !bucket.rule.only_counts());
        let left = refusing.map(|(bucket, state)| {
            let resets = bucket.rule.now().wall;
            BudgetLeft { left: state.left(), resets: Duration::from_millis(state.next_relief().saturating_sub(resets)) }
        });
        let least = left.min_by_key(|left| left.left);
        call.receipt.note(|facts| facts.budget = least);
    }

    fn may_wait(&self, place: &Option<Place>, state: &State) -> bool {
        let is_queued = place.as_ref().is_some_and(|place| place.bucket.is_some());
        !self.settings.max_wait.is_zero() && (is_queued || state.queue_length() < self.settings.max_waiting)
    }

    fn buckets(&self, call: &Call, now: Moment) -> Vec<Arc<Bucket>> {
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
        let state = bucket.lock(now);
        let (left, limit) = (state.left(), state.limit);
        bucket.want_news(&state);
        let until = |at: Millis| Duration::from_millis(at.saturating_sub(now.wall));
        let resets = state.free_at(needed).map(until);
        if self.settings.headers {
            let resets = resets.unwrap_or_else(|| until(state.next_relief()));
            call.receipt.note(|facts| facts.budget = Some(BudgetLeft { left, resets }));
        }
        drop(state);
        // What is more than all of it is the call's matter, not the budget's.
        if resets.is_some() {
            bucket.note_full();
        }
        let hint = unbounded::limit_hint(call, self.settings.clamp_max_tokens).unwrap_or_default();
        let error = Error::BudgetExceeded {
            budget: rule.rule.name.clone(),
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

/// Takes up what the ledger has.
fn restored(table: Table, now: Moment) -> Result<Arc<Table>, RuleError> {
    let name = &table.rule.rule.name;
    let unsettled = table.restore(now).map_err(|why| RuleError {
        name: name.clone(),
        why: format!(
            "cannot go on from what was spent before ({why}): restore the file from a copy, or move it away to begin anew"
        ),
    })?;
    if !unsettled.is_zero() {
        tracing::warn!(
            budget = name,
            %unsettled,
            "the last run ended without settling these neurons; they count as spent until the window ends"
        );
    }
    Ok(Arc::new(table))
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

// === impl All ===

impl All {
    /// Tables of rules that nobody has any more are forgotten where there are too many.
    fn keep(&self, tables: &[Counted]) {
        let mut all = self.tables.lock();
        for counted in tables {
            all.insert(counted.table.rule.ledger_name.clone(), counted.table.clone());
        }
        let is_used = |table: &Arc<Table>| tables.iter().any(|counted| Arc::ptr_eq(&counted.table, table));
        let mut unused = all.len().saturating_sub(tables.len());
        all.retain(|_, table| {
            let stays = is_used(table) || unused <= MAX_UNUSED;
            if !stays {
                table.release();
                unused -= 1;
            }
            stays
        });
    }
}

// === impl CurrentBudgets ===

impl CurrentBudgets {
    /// Those that hold now.
    pub fn get(&self) -> Arc<Budgets> {
        self.0.load_full()
    }

    /// Others hold from here on.
    pub fn set(&self, budgets: Arc<Budgets>) {
        budgets.come_into_force();
        self.0.store(budgets);
    }
}

impl From<Arc<Budgets>> for CurrentBudgets {
    fn from(budgets: Arc<Budgets>) -> Self {
        Self(Arc::new(ArcSwap::new(budgets)))
    }
}

impl std::fmt::Debug for CurrentBudgets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.get().fmt(f)
    }
}

impl std::fmt::Debug for Budgets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.status()).finish()
    }
}

fn status(counted: &Counted, now: Moment) -> Status {
    let (table, rule) = (&counted.table, &counted.table.rule);
    let Sums { buckets, spent, reserved, elsewhere } = table.sums(now);
    let left = table.least_left(now);
    let pace = rule.pace.lock().per_second(now.steady);
    let seconds = left.as_f64() / pace;
    let end = rule.windows.span(now.wall).end;
    let resets = Some(end).filter(|_| !rule.rule.sliding).or_else(|| table.next_relief(now)).unwrap_or(end);
    Status {
        name: rule.rule.name.clone(),
        limit: rule.raised.at_least(rule.limit(), now.wall),
        spent,
        reserved,
        elsewhere,
        left,
        buckets,
        rejected: rule.rejected.load(Ordering::Relaxed),
        diverted: rule.diverted.load(Ordering::Relaxed),
        pace_per_second: pace,
        lasts: (seconds.is_finite() && seconds < 1e9).then(|| Duration::from_secs_f64(seconds)),
        resets_at: SystemTime::UNIX_EPOCH + Duration::from_millis(resets),
    }
}

// === impl Place ===

impl Place {
    fn move_to(&mut self, bucket: &Arc<Bucket>) {
        let old = self.bucket.replace(bucket.clone());
        if let Some(old) = old.filter(|old| !Arc::ptr_eq(old, bucket)) {
            old.leave(self.ticket);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(bucket) = self.bucket.take() {
            bucket.leave(self.ticket);
        }
    }
}
