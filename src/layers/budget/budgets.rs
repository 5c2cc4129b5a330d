//! All budgets: reserving in all that count a call, or in none.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::active::Active;
use super::reservation::Reservation;
use super::rule::{self, OnExceeded, Rule, RuleError};
use super::settings::Settings;
use super::status::Status;
use super::table::{Sums, Table};
use super::window::Moment;
use crate::batches::{Held, Holding};
use crate::catalogue::Catalogue;
use crate::neurons::Neurons;

/// The budgets and what has been spent of them. Every stack that shares it shares the budgets.
pub struct Budgets {
    pub(super) tables: Vec<Counted>,
    /// Knows the models that calls are sent to instead.
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) settings: Settings,
    pub(super) all: Arc<All>,
}

/// A rule as these budgets have it, and what it counts, which may be older.
pub(super) struct Counted {
    pub(super) rule: Arc<Rule>,
    pub(super) table: Arc<Table>,
}

/// What all budgets share that follow each other.
pub(super) struct All {
    /// By their names in the ledger.
    tables: Mutex<HashMap<Arc<str>, Arc<Table>>>,
    pub(super) tickets: AtomicU64,
}

/// The budgets that hold now, for who looks at them again and again while they may be followed by others.
#[derive(Clone)]
pub struct CurrentBudgets(Arc<ArcSwap<Budgets>>);

/// What rules counted that are in no config any more.
const MAX_UNUSED: usize = 256;

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
        currency: rule.rule.limit.currency,
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
