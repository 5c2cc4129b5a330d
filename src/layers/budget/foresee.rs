//! How a call would stand to the budgets, without a reservation.

use std::time::Duration;

use super::balance::Verdict as Room;
use super::budgets::{Budgets, Counted};
use super::window::Moment;
use crate::call::Call;
use crate::neurons::Neurons;
use crate::preview::{Ahead, Budgeted, Money, Verdict};

impl Budgets {
    /// See [`BudgetLayer::foresee`](super::BudgetLayer::foresee).
    pub(super) fn foresee(&self, call: &Call, ahead: &mut Ahead) {
        let counting: Vec<_> = self.tables.iter().filter(|counted| counted.rule.applies(call)).collect();
        if counting.is_empty() {
            return;
        }
        let needs = match self.needed(call) {
            Ok(needs) => needs,
            Err(refusal) => {
                ahead.unbounded = Some(refusal.error.to_string());
                Neurons::ZERO
            }
        };
        let now = Moment::of(&*self.settings.clock);
        ahead.budgets = counting.into_iter().map(|counted| self.would(counted, call, needs, now)).collect();
    }

    fn would(&self, Counted { rule, table }: &Counted, call: &Call, needs: Neurons, now: Moment) -> Budgeted {
        let active = &table.rule;
        let (limit, left, relief, room) = match table.foreseen(call) {
            Some(bucket) => {
                let balance = bucket.lock(now);
                let room = balance.verdict(active, needs, u64::MAX, true);
                (balance.limit, balance.left(), balance.next_relief(), room)
            }
            None => {
                let limit = active.limit();
                let has_room = active.only_counts() || needs <= limit;
                let room = if has_room { Room::Room } else { Room::Full };
                (limit, limit, active.windows.span(now.wall).expires, room)
            }
        };
        let instead = self.instead(rule).map(|model| model.id.to_string());
        let would = match room {
            _ if active.only_counts() => Verdict::Count,
            Room::Room | Room::Lease => Verdict::Pass,
            Room::Settling if !self.settings.max_wait.is_zero() => Verdict::Wait,
            Room::Full | Room::Settling | Room::Unwritten if instead.is_some() => Verdict::Divert,
            Room::Full | Room::Settling | Room::Unwritten if self.clamps(call) => Verdict::Clamp,
            Room::Full | Room::Settling | Room::Unwritten => Verdict::Refuse,
        };
        Budgeted {
            name: rule.name.clone(),
            limit: Money(limit),
            left: Money(left),
            needs: Money(needs),
            resets: Duration::from_millis(relief.saturating_sub(now.wall)),
            would,
            instead: instead.filter(|_| would == Verdict::Divert),
        }
    }

    /// Fewer tokens would fit.
    fn clamps(&self, call: &Call) -> bool {
        let Some(min_tokens) = self.clamp() else { return false };
        super::clamp::clamp(call, self.foreseen_room(call), min_tokens).is_some()
    }

    /// The most that a call like this one may cost now, in every budget that counts it.
    fn foreseen_room(&self, call: &Call) -> Neurons {
        let now = Moment::of(&*self.settings.clock);
        let counting = self.tables.iter().filter(|counted| counted.rule.applies(call));
        let room = |counted: &Counted| match counted.table.foreseen(call) {
            Some(bucket) => bucket.lock(now).room(&bucket.rule),
            None => counted.table.rule.limit(),
        };
        counting.map(room).min().unwrap_or_default()
    }
}
