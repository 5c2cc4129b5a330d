//! Why there is no answer, by what a caller can do about it.

use std::time::Duration;

use http::{Response, StatusCode};

use crate::Error;
use crate::layers::retry::retry_after;
use crate::receipt::Facts;
use crate::vendor_error::VendorError;

/// Why there is no answer, and the receipt: a call that failed may have cost.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct Failure {
    /// What can be done about it.
    pub kind: Kind,
    /// For a person, with the mend.
    pub message: String,
    /// The call's sealed receipt; `None` where no call was made.
    pub receipt: Option<Box<Facts>>,
}

/// What can be done about a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Too many requests, by the gate's reckoning or the vendor's: the same call may be made again later.
    RateLimited {
        /// When, if that is known.
        retry_after: Option<Duration>,
    },
    /// A budget of the gate's has no room for it.
    BudgetExceeded {
        /// Its name.
        budget: String,
        /// When it has room again, if it ever has room for this.
        retry_after: Option<Duration>,
    },
    /// The account's free neurons are used up: nothing helps before 00:00 UTC but a paid plan.
    FreeNeuronsUsedUp {
        /// Until midnight, where that is known.
        retry_after: Option<Duration>,
    },
    /// The vendor answered with an error.
    Upstream {
        /// The reply's status; 200 where a stream opened with an error.
        status: StatusCode,
        /// The vendor's code (errors page, 2026-09-17).
        code: Option<u32>,
    },
    /// Nobody answered in time.
    Timeout {
        /// How long was waited, where that is known.
        after: Option<Duration>,
    },
    /// The gate has no room for the call now: the same call may be made again later.
    Overloaded {
        /// When there may be room.
        retry_after: Duration,
    },
    /// The vendor cannot be reached, or broke off before the answer began.
    Unreachable,
    /// The answer broke off after it had begun.
    Broken,
    /// The call cannot be made as it is: mend it.
    Invalid,
    /// The answer has not the expected shape.
    Unexpected,
}

impl Failure {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), receipt: None }
    }

    pub(super) fn invalid(message: String) -> Self {
        Self::new(Kind::Invalid, message)
    }

    pub(super) fn broken(why: String, receipt: Option<Facts>) -> Self {
        Self::new(Kind::Broken, format!("the answer broke off: {why}")).with(receipt)
    }

    pub(super) fn unexpected(why: String, receipt: Option<Facts>) -> Self {
        Self::new(Kind::Unexpected, format!("the answer has not the expected shape: {why}")).with(receipt)
    }

    pub(super) fn with(mut self, receipt: Option<Facts>) -> Self {
        self.receipt = receipt.map(Box::new);
        self
    }

    /// Whether a reply is no answer: the gate and its meter say so in its extensions.
    pub(super) fn is_one<B>(reply: &Response<B>) -> bool {
        !reply.status().is_success()
            || reply.extensions().get::<Error>().is_some()
            || reply.extensions().get::<VendorError>().is_some()
    }

    pub(super) fn of<B>(reply: &Response<B>) -> Self {
        if let Some(error) = reply.extensions().get::<Error>() {
            return Self::new(by_the_gate(error), error.to_string());
        }
        let told = reply.extensions().get::<VendorError>();
        let (status, code) = told.map_or((reply.status(), None), |error| (error.status, error.code));
        let words = told.map_or("", |error| error.message.as_str());
        let code_told = code.map_or_else(String::new, |code| format!(" {code}"));
        let message = format!("Workers AI says {status}{code_told}: {words}");
        Self::new(by_the_vendor(status, code, retry_after(reply.headers())), message)
    }
}

fn by_the_gate(error: &Error) -> Kind {
    match error {
        Error::RateLimited { retry_after, .. } => Kind::RateLimited { retry_after: Some(*retry_after) },
        Error::BudgetExceeded { budget, retry_after, .. } => {
            Kind::BudgetExceeded { budget: budget.clone(), retry_after: *retry_after }
        }
        Error::CostUnbounded { budget, .. } => Kind::BudgetExceeded { budget: budget.clone(), retry_after: None },
        Error::FreeNeuronsUsedUp { retry_after } => Kind::FreeNeuronsUsedUp { retry_after: Some(*retry_after) },
        Error::Timeout { after, .. } | Error::QueueTimeout { after, .. } => Kind::Timeout { after: Some(*after) },
        Error::Elapsed { .. } => Kind::Timeout { after: None },
        Error::Overloaded { retry_after, .. } => Kind::Overloaded { retry_after: *retry_after },
        Error::Unreachable { .. } | Error::Unavailable(_) => Kind::Unreachable,
        _ => Kind::Invalid,
    }
}

fn by_the_vendor(status: StatusCode, code: Option<u32>, retry_after: Option<Duration>) -> Kind {
    match code {
        Some(3036 | 4006) => Kind::FreeNeuronsUsedUp { retry_after },
        Some(3040) => Kind::Upstream { status, code },
        _ if status == StatusCode::TOO_MANY_REQUESTS => Kind::RateLimited { retry_after },
        _ => Kind::Upstream { status, code },
    }
}
