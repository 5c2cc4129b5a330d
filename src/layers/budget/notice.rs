//! What a person may want to know of a budget, told once a window and bucket: that so much of it is spent, and that it is
//! exceeded.
//!
//! It is told when it happens, in the log and to a [`Watch`], at no cost to calls that change nothing. A bucket of a window
//! that slides is told of again when a whole window has passed since.

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::amount::Currency;
use crate::neurons::Neurons;

/// Something about a budget that a person may want to know.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Notice {
    /// The budget's name.
    pub budget: String,
    /// The values that it is split by, as a JSON array; empty where it is not split.
    pub bucket: String,
    /// What there is to know.
    pub what: What,
    /// What the bucket may spend.
    pub limit: Neurons,
    /// What it has spent, reservations left out.
    pub spent: Neurons,
    /// What its limit is written in.
    pub currency: Currency,
    /// When its window ends, or the oldest part of one that slides.
    pub resets_at: SystemTime,
}

/// What there is to know of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// This part of its limit is spent: one of [`Rule::warn_at`](super::Rule::warn_at), the highest that was passed.
    Warned(Share),
    /// It is spent, or has turned a call away, to another model perhaps.
    Exceeded,
}

/// A part of a limit, above 0 and up to 1. In the config a number such as `0.8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Share {
    millionths: u32,
}

/// Is told what there is to know of budgets.
pub trait Watch: Send + Sync + 'static {
    /// Called on a request's path, once a window and bucket: it must not block.
    fn notice(&self, notice: &Notice);
}

const MILLION: u32 = 1_000_000;

// === impl Notice ===

impl Notice {
    /// A line of the log.
    pub(super) fn log(&self) {
        let Self { budget, bucket, .. } = self;
        let (limit, spent) = (self.currency.of(self.limit), self.currency.of(self.spent));
        let resets_at = jiff::Timestamp::try_from(self.resets_at).map(|at| at.to_string()).unwrap_or_default();
        match self.what {
            What::Warned(share) => {
                tracing::warn!(budget, bucket, %limit, %spent, resets_at, "{share} of the budget is spent");
            }
            What::Exceeded => {
                tracing::warn!(budget, bucket, %limit, %spent, resets_at, "the budget is spent, or has no room for a call");
            }
        }
    }
}

// === impl Share ===

impl Share {
    /// So much of a limit.
    pub(super) fn of(self, limit: Neurons) -> Neurons {
        let micro = u128::from(limit.micro()) * u128::from(self.millionths) / u128::from(MILLION);
        Neurons::from_micro(u64::try_from(micro).unwrap_or(u64::MAX))
    }

    pub(super) const fn of_percent(percent: u8) -> Self {
        Self { millionths: percent as u32 * (MILLION / 100) }
    }

    /// As a number from 0 to 1.
    pub fn as_f64(self) -> f64 {
        f64::from(self.millionths) / f64::from(MILLION)
    }
}

impl TryFrom<f64> for Share {
    type Error = String;

    fn try_from(part: f64) -> Result<Self, String> {
        let millionths = (part * f64::from(MILLION)).round();
        if !(1.0..=f64::from(MILLION)).contains(&millionths) {
            return Err(format!("{part} is no part of a limit: write it like 0.8, above 0 and up to 1"));
        }
        Ok(Self { millionths: millionths as u32 })
    }
}

impl From<Share> for f64 {
    fn from(share: Share) -> Self {
        share.as_f64()
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.as_f64() * 100.0)
    }
}
