//! What a bucket tells the store that gates share, and what it hears.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::balance;
use super::bucket::Bucket;
use super::ledger::Lessee;
use super::register::{Grant, Register, Registrant, Slot};
use crate::neurons::Neurons;

impl Registrant for Bucket {
    fn register(&self) -> Option<Register> {
        self.is_wanted.store(false, Ordering::Release);
        let now = self.rule.now();
        let mut balance = self.lock(now);
        if !(balance.is_active() || balance.needs_grant() || balance.is_waited_for()) {
            return None;
        }
        let lead = balance.grant_lead();
        let limit = balance.limit;
        let elsewhere = balance.elsewhere.as_mut().filter(|elsewhere| !elsewhere.is_asking)?;
        elsewhere.is_asking = true;
        let is_restored = elsewhere.is_restored;
        let last = balance.slots.len().saturating_sub(1);
        let slot = |(n, slot): (usize, &mut balance::Slot)| {
            let upto = slot.used() + if n == last { lead } else { Neurons::ZERO };
            // Lowered here before it is lowered there.
            let held = slot.granted;
            slot.granted = slot.granted.min(upto);
            Slot {
                start_ms: slot.span.start,
                expires_ms: slot.span.expires,
                spent: slot.spent,
                used: slot.used(),
                upto,
                held: held.min(upto),
            }
        };
        Some(Register {
            budget: self.rule.ledger_name.clone(),
            bucket: self.name.clone(),
            limit,
            now_ms: now.wall,
            is_restored,
            slots: balance.slots.iter_mut().enumerate().map(slot).collect(),
        })
    }

    fn granted(&self, register: &Register, grant: Option<Grant>) {
        let mut balance = self.lock(self.rule.now());
        if let Some(elsewhere) = &mut balance.elsewhere {
            elsewhere.is_asking = false;
        }
        let Some(grant) = grant else {
            drop(balance);
            return self.unreached();
        };
        if let Some(elsewhere) = &mut balance.elsewhere {
            (elsewhere.spent, elsewhere.upto) = (grant.spent_elsewhere, grant.upto_elsewhere);
            (elsewhere.gates, elsewhere.heard, elsewhere.lost) = (grant.gates, Some(Instant::now()), None);
            elsewhere.is_short = register.slots.last().is_some_and(|told| grant.upto < told.upto);
        }
        if let Some(slot) = register.slots.last().and_then(|told| balance.slot(told.start_ms)) {
            slot.granted = grant.upto;
        }
        balance.unwritten_since = None;
        balance.wake_next();
        self.list(&balance);
    }

    fn unreached(&self) {
        self.is_wanted.store(false, Ordering::Release);
        if let Some(elsewhere) = &mut self.lock(self.rule.now()).elsewhere {
            elsewhere.lost = Some(Instant::now());
        }
        self.unwritten();
    }
}
