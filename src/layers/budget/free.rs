//! The vendor's free allocation, as a budget.

use serde::{Deserialize, Serialize};

use super::notice::Share;
use super::rule::{OnExceeded, Rule, Scope};
use super::window::Period;
use crate::neurons::Neurons;

/// What Cloudflare gives each account a day, from 00:00 UTC (pricing page, 2026-08-28).
pub const FREE_A_DAY: Neurons = Neurons::from_whole(10_000);
/// The name of the built-in budget.
pub const FREE: &str = "free allocation";

/// The part of it that is told when it is spent, where its end matters.
const WARN_AT: Share = Share::of_percent(80);

/// What the account pays for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Plan {
    /// Nothing: stop at the free allocation.
    Free,
    /// All that it uses: never stop.
    Paid,
    /// Not known: go on until the vendor refuses.
    #[default]
    Auto,
}

impl Plan {
    /// The free allocation as this plan has it.
    pub fn rule(self) -> Rule {
        let on_exceeded = if self == Self::Free { OnExceeded::Reject } else { OnExceeded::Allow };
        let warn_at = if self == Self::Paid { Vec::new() } else { vec![WARN_AT] };
        Rule { scope: Scope::Account, on_exceeded, warn_at, ..Rule::new(FREE, FREE_A_DAY, Period::Day) }
    }
}
