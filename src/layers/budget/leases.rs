//! What a bucket has written ahead of its spending, and what it takes up of that after a restart.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::balance::{Balance, GRACE, Slot};
use super::bucket::Bucket;
use super::ledger::{Lease, Lessee};
use super::window::Moment;
use crate::neurons::Neurons;

impl Lessee for Bucket {
    fn leases(&self, is_closing: bool) -> Vec<Lease> {
        self.is_listed.store(false, Ordering::Release);
        let mut balance = self.lock(self.rule.now());
        let current = balance.slots.back().map(|slot| slot.span.start);
        let lead = if is_closing { Neurons::ZERO } else { balance.wanted_lead() };
        let mut leases = Vec::new();
        let Balance { slots, aside, .. } = &mut *balance;
        // What the books have too much of a window that is over is of no matter while the process lives.
        let aside = aside.iter_mut().filter(|slot| is_closing || slot.used() > slot.covered);
        for slot in slots.iter_mut().chain(aside) {
            let upto = slot.used() + if Some(slot.span.start) == current { lead } else { Neurons::ZERO };
            if slot.covered == upto {
                continue;
            }
            // A lease is lowered here before it is lowered there, and raised there before it is raised here.
            slot.covered = slot.covered.min(upto);
            leases.push(Lease {
                budget: self.rule.ledger_name.clone(),
                bucket: self.name.clone(),
                start_ms: slot.span.start,
                expires_ms: slot.span.expires,
                spent: slot.spent,
                upto,
            });
        }
        leases
    }

    fn written(&self, leases: &[Lease]) {
        let mut balance = self.balance.lock();
        balance.unwritten_since = None;
        for lease in leases {
            if let Some(slot) = balance.slot(lease.start_ms) {
                slot.covered = lease.upto;
            }
        }
        balance.wake_next();
        self.list(&balance);
    }

    fn unwritten(&self) {
        let mut balance = self.balance.lock();
        balance.unwritten_since.get_or_insert_with(Instant::now);
        balance.wake_next();
    }
}

impl Bucket {
    /// Takes up what the books have; a lease that nobody settled counts as spent. Says how much that is, where it counts now.
    pub(super) fn restore(&self, lease: &Lease, now: Moment) -> Neurons {
        let mut balance = self.lock(now);
        let span = self.rule.windows.span(lease.start_ms);
        if span.start != lease.start_ms {
            return Neurons::ZERO;
        }
        let spent = lease.upto.max(lease.spent);
        balance.restored_from_books();
        if let Some(slot) = balance.slot(span.start) {
            // The window that is now, made when the bucket was locked.
            (slot.spent, slot.covered) = (slot.spent.max(spent), spent);
            balance.sum_up();
        } else {
            let over_at = now.steady + (span.expires - span.start) + GRACE;
            balance.aside.push(Slot { spent, covered: spent, over_at, ..Slot::new(span) });
            balance.turn(&self.rule, now);
        }
        let counts = balance.slots.iter().any(|slot| slot.span.start == span.start);
        if counts { spent.saturating_sub(lease.spent) } else { Neurons::ZERO }
    }
}
