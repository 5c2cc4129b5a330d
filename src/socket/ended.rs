//! How a socket ends, and what each side is told of it.

use std::time::Duration;

use super::frames::{Side, Violation};
use crate::Error;
use crate::receipt::Outcome;

/// Why nothing passes any more.
#[derive(Debug)]
pub(super) enum Ended {
    /// A side sent a close frame, which has been passed on.
    Closed { by: Side, code: Option<u16> },
    /// A side's connection is gone, without a word.
    Gone(Side),
    /// The gate ends it.
    Cut(Cut),
}

/// Why the gate ends it.
#[derive(Debug)]
pub(super) enum Cut {
    /// No budget has room for what comes next.
    Budget(Error),
    /// It was open for as long as it may be.
    TooLong(Duration),
    /// Nothing passed for too long.
    Idle(Duration),
    /// A side sent what is no frame.
    Broken(Side, Violation),
    /// A message that has to be read whole is too long for that.
    TextTooLong,
    /// The gate stops.
    Stopping,
}

impl Cut {
    /// The close code for the client.
    pub(super) fn code(&self) -> u16 {
        match self {
            Self::Budget(_) | Self::TooLong(_) => 1008,
            Self::Idle(_) => 1000,
            Self::Broken(Side::Client, violation) => violation.code,
            // What the vendor did wrong is not the client's doing.
            Self::Broken(Side::Vendor, _) => 1011,
            Self::TextTooLong => 1009,
            Self::Stopping => 1001,
        }
    }

    /// A name for programs.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Budget(error) => error.code(),
            Self::TooLong(_) => "max_duration",
            Self::Idle(_) => "idle_timeout",
            Self::Broken(..) => "protocol_error",
            Self::TextTooLong => "message_too_long",
            Self::Stopping => "stopping",
        }
    }

    /// A sentence for a person; the short one fits into a close frame.
    pub(super) fn told(&self) -> (String, String) {
        match self {
            Self::Budget(error) => {
                let resets = match error.retry_after() {
                    Some(after) => format!("; room again in {} s", after.as_secs().max(1)),
                    None => String::new(),
                };
                let short = match error {
                    Error::BudgetExceeded { budget, .. } => {
                        let name: String = budget.chars().take(40).collect();
                        format!("tollgate: the budget {name:?} is used up{resets}")
                    }
                    _ => format!("tollgate: {}{resets}", error.code()),
                };
                (format!("tollgate: {error}"), short)
            }
            Self::TooLong(limit) => {
                both(format!("a socket may stay open for {}s ([sockets] max_duration)", limit.as_secs()))
            }
            Self::Idle(limit) => both(format!("nothing passed for {}s ([sockets] idle_timeout)", limit.as_secs())),
            Self::Broken(by, Violation { why, .. }) => {
                let who = if *by == Side::Client { "the client" } else { "the vendor" };
                both(format!("{who} sent {why}"))
            }
            Self::TextTooLong => both("a text message is over 64 KiB".into()),
            Self::Stopping => both("the gate is stopping; open another socket".into()),
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Budget(error) => error.outcome(),
            Self::TooLong(_) | Self::Idle(_) => Outcome::Timeout,
            Self::Broken(Side::Client, _) | Self::TextTooLong => Outcome::ClientError,
            Self::Broken(Side::Vendor, _) => Outcome::UpstreamError,
            Self::Stopping => Outcome::Aborted,
        }
    }
}

fn both(why: String) -> (String, String) {
    let told = format!("tollgate: {why}");
    (told.clone(), told)
}

impl Ended {
    /// How the call ends. What the vendor says goes wrong is known by its code, or by an error before it.
    pub(super) fn outcome(&self, has_failed: bool) -> Outcome {
        match self {
            Self::Closed { by: Side::Client, .. } => Outcome::Ok,
            Self::Closed { by: Side::Vendor, code } => match code {
                None | Some(1000 | 1001) if !has_failed => Outcome::Ok,
                Some(1008) => Outcome::ClientError,
                _ => Outcome::UpstreamError,
            },
            Self::Gone(Side::Client) => Outcome::Aborted,
            Self::Gone(Side::Vendor) => Outcome::UpstreamError,
            Self::Cut(cut) => cut.outcome(),
        }
    }

    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Closed { code, .. } => *code,
            Self::Gone(_) => Some(1006),
            Self::Cut(cut) => Some(cut.code()),
        }
    }

    /// Who ended it.
    pub(super) fn by(&self) -> &'static str {
        match self {
            Self::Closed { by: Side::Client, .. } | Self::Gone(Side::Client) => "client",
            Self::Closed { by: Side::Vendor, .. } | Self::Gone(Side::Vendor) => "vendor",
            Self::Cut(_) => "gate",
        }
    }

    /// Why the gate did, for the receipt.
    pub(super) fn refused(&self) -> Option<&'static str> {
        match self {
            Self::Cut(cut) => Some(cut.name()),
            _ => None,
        }
    }
}
