//! What people change of a budget while it is in force: a raise for a while, and a bucket begun anew.
//!
//! Each is told in the log with who did it and why, and a [`Ledger`](super::Ledger) keeps it: a raise is in force again after a
//! restart.

use std::sync::Arc;
use std::time::SystemTime;

use super::bucket::Bucket;
use super::budgets::Budgets;
use super::free::FREE;
use super::ledger::{Change, LedgerError};
use super::rule::Scope;
use super::status::BucketStatus;
use super::table::Table;
use super::window::{Moment, millis, time};
use crate::neurons::Neurons;
use crate::receipt::Metadatum;

/// What is changed of a budget, by whom, and why.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Which {
    /// The budget's name.
    pub budget: String,
    /// The values of one bucket, in the order of [`Rule::split_by`](super::Rule::split_by); `None` is all of the budget.
    pub bucket: Option<Vec<Metadatum>>,
    /// Who does it, for the log.
    pub who: String,
    /// Why, for the log.
    pub reason: String,
}

/// Why a budget cannot be changed so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// There is no such budget, or no such bucket of it.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be changed so.
    #[error("{0}")]
    Refused(String),
    /// The ledger does not keep it, so it was not done.
    #[error("it was not done, for it would be forgotten: {0}")]
    NotKept(LedgerError),
}

// === impl Which ===

impl Which {
    /// All of a budget.
    pub fn budget(name: impl Into<String>) -> Self {
        Self { budget: name.into(), ..Self::default() }
    }
}

// === impl Budgets ===

impl Budgets {
    /// Sets a budget's limit to more than its own until a moment, or until its window ends; each bucket's, or one bucket's. A
    /// raise takes the place of the one before, and `to` at or below the limit ends it. Says until when.
    ///
    /// What counts the vendor's own free allocation is not raised: the vendor would not follow.
    pub fn raise(&self, which: &Which, to: Neurons, until: Option<SystemTime>) -> Result<SystemTime, ChangeError> {
        let (table, now) = (self.table(which)?, self.moment());
        let rule = &table.rule.rule;
        if rule.name == FREE {
            let why = "the free allocation is the vendor's: it cannot be raised here; set [account] plan = \"paid\"";
            return Err(ChangeError::Refused(why.into()));
        }
        let until = until.map_or_else(|| table.rule.windows.span(now.wall).expires, millis);
        if until <= now.wall {
            return Err(ChangeError::Refused("`until` is in the past: name a moment to come".into()));
        }
        let limit = table.rule.limit();
        let until = if to > limit { until } else { 0 };
        let bucket = self.bucket(table, which, now, true)?;
        let name = bucket.as_ref().map(|bucket| bucket.name().to_owned());
        let by = (&*which.who, &*which.reason);
        self.keep(&Change::new(&rule.name, name.as_deref(), now.wall, Some((to, until)), by))?;
        match &bucket {
            Some(bucket) => bucket.raise(to, until),
            None => table.raise(to, until, now),
        }
        let Which { budget, who, reason, .. } = which;
        if until == 0 {
            tracing::info!(budget, bucket = name, %limit, who, reason, "the budget has its own limit again");
            return Ok(time(now.wall));
        }
        let until_text = jiff::Timestamp::try_from(time(until)).map(|at| at.to_string()).unwrap_or_default();
        tracing::warn!(budget, bucket = name, %limit, raised_to = %to, until = until_text, who, reason, "the budget is raised");
        Ok(time(until))
    }

    /// Forgets what one bucket has spent in the window that is now; of a budget that is not split, all of it. What is reserved
    /// stays. Says how much was forgotten.
    ///
    /// A budget that counts what the vendor's books say cannot be begun anew: they would say it again.
    pub fn reset(&self, which: &Which) -> Result<Neurons, ChangeError> {
        let (table, now) = (self.table(which)?, self.moment());
        let rule = &table.rule.rule;
        if rule.scope == Scope::Account {
            let why = format!("the budget {:?} counts what the vendor's books say, which cannot be reset", rule.name);
            return Err(ChangeError::Refused(why));
        }
        let whole =
            Which { bucket: which.bucket.clone().or_else(|| (!rule.is_split()).then(Vec::new)), ..which.clone() };
        let Some(bucket) = self.bucket(table, &whole, now, false)? else {
            let why =
                format!("the budget {:?} is split: name the `bucket` to reset, by a list of its values", rule.name);
            return Err(ChangeError::Refused(why));
        };
        let by = (&*which.who, &*which.reason);
        self.keep(&Change::new(&rule.name, Some(bucket.name()), now.wall, None, by))?;
        let forgotten = bucket.reset();
        let Which { budget, who, reason, .. } = which;
        tracing::warn!(budget, bucket = bucket.name(), %forgotten, who, reason, "what the budget had spent is forgotten");
        Ok(forgotten)
    }

    /// How the buckets of a budget stand, those first that have spent most; at most so many. `None` where there is no such budget.
    pub fn buckets_of(&self, budget: &str, at_most: usize) -> Option<Vec<BucketStatus>> {
        let now = self.moment();
        let counted = self.tables.iter().find(|counted| counted.rule.name == budget)?;
        let mut all = counted.table.each(now);
        all.sort_unstable_by(|a, b| (b.spent, &a.bucket).cmp(&(a.spent, &b.bucket)));
        all.truncate(at_most);
        Some(all)
    }

    /// Puts in force what was raised before a restart. Where that cannot be read, limits are the rules' own, which are lower.
    pub(super) fn take_up_changes(&self, is_new: impl Fn(&Table) -> bool, now: Moment) {
        let Some(ledger) = &self.settings.ledger else { return };
        for table in self.tables.iter().map(|counted| &counted.table).filter(|table| is_new(table)) {
            let budget = &table.rule.rule.name;
            let changes = ledger.changes(budget, now.wall).unwrap_or_else(|why| {
                tracing::error!(budget, %why, "what the budget was raised to cannot be read: it has its own limit");
                Vec::new()
            });
            for change in changes {
                let Some(to) = change.raised_to else { continue };
                match change.bucket {
                    None => table.raise(to, change.until_ms, now),
                    Some(name) => table.named(name, now).raise(to, change.until_ms),
                }
            }
        }
    }

    fn keep(&self, change: &Change) -> Result<(), ChangeError> {
        self.settings.ledger.as_ref().map_or(Ok(()), |ledger| ledger.keep(change)).map_err(ChangeError::NotKept)
    }

    fn moment(&self) -> Moment {
        Moment::of(&*self.settings.clock)
    }

    fn table(&self, which: &Which) -> Result<&Table, ChangeError> {
        let found = self.tables.iter().find(|counted| counted.rule.name == which.budget);
        found
            .map(|counted| &*counted.table)
            .ok_or_else(|| ChangeError::NotFound(format!("there is no budget {:?}", which.budget)))
    }

    /// The bucket that is named, if one is. Where `is_made`, also one that nothing was spent of yet.
    fn bucket(
        &self,
        table: &Table,
        which: &Which,
        now: Moment,
        is_made: bool,
    ) -> Result<Option<Arc<Bucket>>, ChangeError> {
        let rule = &table.rule.rule;
        let Some(values) = &which.bucket else { return Ok(None) };
        let Some(name) = rule.bucket_of_values(values) else {
            let by: Vec<_> = rule.split_by.iter().cloned().map(String::from).collect();
            return Err(ChangeError::Refused(format!(
                "a bucket of the budget {:?} is a list of as many values as it is split by: [{}]",
                rule.name,
                by.join(", ")
            )));
        };
        let found = if is_made { Some(table.named(name.clone(), now)) } else { table.existing(&name) };
        let found = found.filter(|bucket| bucket.name() == name);
        let missing = || format!("the budget {:?} has no bucket {name}", rule.name);
        found.map(Some).ok_or_else(|| ChangeError::NotFound(missing()))
    }
}
