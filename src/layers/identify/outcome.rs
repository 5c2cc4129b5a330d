//! How a call ends, from the reply that its client gets.

use crate::layers::Reply;
use crate::receipt::{CacheStatus, Ending, Facts, Outcome, Receipt};
use crate::vendor_error::{Meaning, VendorError};

/// How a call ends whose reply is this one, if the client stays to the end.
pub(crate) fn outcome(reply: &Reply, receipt: &Receipt) -> Outcome {
    let noted = receipt.read(|facts| facts.outcome);
    if noted != Outcome::default() {
        return noted;
    }
    let status = reply.status();
    match reply.extensions().get::<VendorError>() {
        Some(error) if error.status.is_success() => of_failed(error.meaning),
        Some(error) => of_refused(error.meaning),
        None if status.is_success() => Outcome::Ok,
        None => of_refused(Meaning::of_status(status)),
    }
}

/// How a call has ended whose reply went out, so many bytes of it: a reply that began well may have failed since, and a client
/// that leaves when a stream has come to its own end has not left too early.
pub(super) fn ended(outcome: Outcome, facts: &Facts, sent_bytes: u64) -> Outcome {
    // What several read is not at the same place for each of them.
    let is_read_alone = matches!(facts.cache, CacheStatus::None | CacheStatus::Bypass);
    match (outcome, facts.ending) {
        (Outcome::Ok | Outcome::Aborted, Ending::Failed(meaning)) => of_failed(meaning),
        (Outcome::Aborted, Ending::Answer) if facts.stream && is_read_alone && sent_bytes > 0 => Outcome::Ok,
        _ => outcome,
    }
}

/// How a call ends whose reply began well: the client has a success in hand that is none.
fn of_failed(meaning: Meaning) -> Outcome {
    match meaning {
        Meaning::FreeNeuronsUsedUp | Meaning::CreditsUsedUp => Outcome::BudgetExceeded,
        Meaning::TimedOut | Meaning::RanTooLong => Outcome::Timeout,
        _ => Outcome::UpstreamError,
    }
}

fn of_refused(meaning: Meaning) -> Outcome {
    match meaning {
        Meaning::OverRate | Meaning::OutOfCapacity => Outcome::RateLimited,
        Meaning::FreeNeuronsUsedUp | Meaning::CreditsUsedUp => Outcome::BudgetExceeded,
        Meaning::TimedOut | Meaning::RanTooLong | Meaning::Aborted => Outcome::Timeout,
        Meaning::Failing | Meaning::CutOff | Meaning::Incomplete => Outcome::UpstreamError,
        Meaning::Gone | Meaning::Unauthorized | Meaning::Forbidden | Meaning::Refused | Meaning::BadRequest => {
            Outcome::ClientError
        }
    }
}
