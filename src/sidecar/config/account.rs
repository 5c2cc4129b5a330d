//! `[account]`: what the account pays for, and what is read of its spending.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::catalogue::Limit;
use crate::layers::budget::Plan;

/// `[account]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Account {
    /// `free` stops at the free allocation, `paid` never does, `auto` goes on until the vendor refuses.
    pub plan: Plan,
    /// How Workers AI is paid, as the AI Gateway's `workers_ai_billing_mode` has it: with `unified`, by prepaid credits, the models
    /// that need the paid plan take 50 requests a minute instead of 20.
    pub billing: Billing,
    /// Read what the whole account spends, also where no gate stands, for the free allocation and for budgets with
    /// `scope = "account"`. Needs the gate's own token, with `Account Analytics: Read`.
    pub analytics: bool,
    /// How often.
    #[serde(with = "super::duration")]
    pub analytics_every: Duration,
    /// How long the vendor's books take to settle.
    #[serde(with = "super::duration")]
    pub analytics_lag: Duration,
}

/// How Workers AI is paid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Billing {
    /// With the account's bill.
    #[default]
    Postpaid,
    /// By prepaid credits.
    Unified,
}

impl Billing {
    /// How often a model may be asked that needs the paid plan, where that differs from the table (limits page, 2026-09-17).
    pub(in crate::sidecar) fn paid_limit(self) -> Option<Limit> {
        (self == Self::Unified).then(|| Limit::a_minute(50))
    }
}

// === impl Account ===

impl Default for Account {
    fn default() -> Self {
        Self {
            plan: Plan::default(),
            billing: Billing::default(),
            analytics: false,
            analytics_every: Duration::from_secs(5 * 60),
            analytics_lag: Duration::from_secs(15 * 60),
        }
    }
}
