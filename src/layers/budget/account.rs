//! What an account has spent here, and what the vendor's books say of it.

use super::Budgets;
use super::budgets::Counted;
use super::window::Moment;
use crate::neurons::Neurons;

/// What an account has spent here of a budget that counts accounts, in the window that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// The budget's name.
    pub budget: String,
    /// The models that it counts; empty is all.
    pub models: Vec<String>,
    /// When the window began, in milliseconds since 1970, UTC.
    pub start_ms: u64,
    /// Spent and settled.
    pub spent: Neurons,
}

impl Budgets {
    /// How an account stands with each budget of [`Scope::Account`](super::Scope::Account).
    pub fn of_account(&self, account: &str) -> Vec<Standing> {
        let now = Moment::of(&*self.settings.clock);
        let standing = |Counted { rule, table }: &Counted| {
            let bucket = table.named(rule.bucket_of_account(account)?, now);
            Some(Standing {
                budget: rule.name.clone(),
                models: rule.models.clone(),
                start_ms: table.rule.windows.span(now.wall).start,
                spent: bucket.lock(now).spent,
            })
        };
        self.tables.iter().filter_map(standing).collect()
    }

    /// Takes up the vendor's books: of what a [`Standing`] counts they had `booked` at the moment it was taken. From here on
    /// the budget counts that, and what has been spent and is reserved here since. A standing of a window that is over is no
    /// matter any more.
    pub fn book(&self, account: &str, then: &Standing, booked: Neurons) {
        self.take_up(account, then, booked, false);
    }

    /// The same of books that have not settled: they may have less than was spent, and never more. So this raises what the
    /// budget counts, or leaves it.
    pub fn book_at_least(&self, account: &str, then: &Standing, booked: Neurons) {
        self.take_up(account, then, booked, true);
    }

    fn take_up(&self, account: &str, then: &Standing, booked: Neurons, only_more: bool) {
        let now = Moment::of(&*self.settings.clock);
        let Some(Counted { rule, table }) = self.tables.iter().find(|counted| counted.rule.name == then.budget) else {
            return;
        };
        let Some(name) = rule.bucket_of_account(account) else { return };
        let more = table.named(name, now).book(then.start_ms, booked, then.spent, only_more);
        if !more.is_zero() {
            table.rule.pace.lock().note(now.steady, more);
        }
    }
}
