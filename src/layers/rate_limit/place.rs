//! A place in the queue, held by whoever waits. Dropping it gives it up.

use std::sync::Arc;

use tokio::time::sleep_until;

use super::limits::{Request, Shared};
use super::permit::Permit;
use super::queue::{Ticket, Waiter, WaiterState};
use super::refusal::Refusal;

/// One waiter's place, and its permit once it has one and has not taken it.
pub(super) struct Place {
    limits: Shared,
    request: Request,
    ticket: Ticket,
    waiter: Arc<Waiter>,
    until: u64,
    is_left: bool,
}

impl Place {
    /// The caller of the request is the one that the ticket names: a lane may know several callers as one.
    pub(super) fn new(limits: Shared, mut request: Request, ticket: Ticket, waiter: Arc<Waiter>, until: u64) -> Self {
        request.ask.caller = ticket.key;
        Self { limits, request, ticket, waiter, until, is_left: false }
    }

    /// Waits for the permit. One of those who wait for a lane watches the clock for all of them, and passes that on when it
    /// goes; so there is no task to keep, and none to outlive them.
    pub(super) async fn turn(mut self) -> Result<Permit, Option<Refusal>> {
        loop {
            if let WaiterState::Granted = self.waiter.state()
                && let Some(permit) = self.waiter.take_permit()
            {
                self.is_left = true;
                return Ok(permit);
            }
            if self.waiter.state() == WaiterState::Displaced {
                self.is_left = true;
                return Err(self.limits.refuse_displaced(self.request));
            }
            if self.limits.now() >= self.until {
                return self.give_up();
            }
            let mut wake_at = self.until;
            if self.waiter.state() == WaiterState::Driving {
                let next = self.limits.with(self.request.lane, |lane, now| lane.dispatch(now));
                // The turn may have been our own.
                if self.waiter.state() == WaiterState::Granted {
                    continue;
                }
                wake_at = wake_at.min(next.unwrap_or(self.until));
            }
            let changed = self.waiter.changed.notified();
            tokio::select! {
                () = changed => {}
                () = sleep_until(self.limits.instant(wake_at)) => {}
            }
        }
    }

    /// The time is up, unless the permit came just now.
    fn give_up(mut self) -> Result<Permit, Option<Refusal>> {
        self.is_left = true;
        self.limits.give_up(self.request, self.ticket, &self.waiter)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_left {
            self.limits.leave(self.request.lane, self.ticket, &self.waiter);
        }
    }
}
