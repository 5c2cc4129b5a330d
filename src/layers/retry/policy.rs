//! What a retry can mend: the [meaning](Meaning) of the vendor's errors, and the gate's own.

use std::time::Duration;

use crate::Error;
use crate::vendor_error::{Meaning, VendorError};

/// How an attempt failed.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Failure<'a> {
    /// The vendor said no.
    Vendor(&'a VendorError),
    /// There was no answer, or the gate itself refused.
    Gate(&'a Error),
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Try again; why, as a metric's label.
    Retry(&'static str),
    /// The same call will fail again.
    Never,
    /// The day's free neurons are used up: no call of the account will do before 00:00 UTC.
    UsedUp,
}

/// Who has waited this long for nothing is told so, instead of waiting as long again.
const LONG: Duration = Duration::from_secs(60);

/// The verdict on a failure.
pub fn verdict(failure: Failure<'_>) -> Verdict {
    match failure {
        Failure::Vendor(error) => on_vendor(error),
        Failure::Gate(Error::Unreachable { .. }) => Verdict::Retry("unreachable"),
        Failure::Gate(Error::Timeout { after, .. }) if *after < LONG => Verdict::Retry("timeout"),
        Failure::Gate(Error::Elapsed { .. }) => Verdict::Retry("timeout"),
        Failure::Gate(_) => Verdict::Never,
    }
}

fn on_vendor(error: &VendorError) -> Verdict {
    match error.meaning {
        // What was written is paid for, and would be paid for again.
        _ if error.has_run => Verdict::Never,
        Meaning::FreeNeuronsUsedUp => Verdict::UsedUp,
        Meaning::OverRate => Verdict::Retry("rate_limited"),
        Meaning::OutOfCapacity => Verdict::Retry("out_of_capacity"),
        Meaning::TimedOut => Verdict::Retry("timeout"),
        // Our own client that leaves takes this layer's work with it, so this was someone else.
        Meaning::Aborted => Verdict::Retry("aborted"),
        Meaning::CutOff => Verdict::Retry("cut_off"),
        Meaning::Failing if error.status.is_success() => Verdict::Retry("stream_error"),
        Meaning::Failing => Verdict::Retry("server_error"),
        Meaning::CreditsUsedUp
        | Meaning::RanTooLong
        | Meaning::Incomplete
        | Meaning::Gone
        | Meaning::Unauthorized
        | Meaning::Forbidden
        | Meaning::Refused
        | Meaning::BadRequest => Verdict::Never,
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn of(status: u16, code: Option<u32>) -> Verdict {
        let status = StatusCode::from_u16(status).unwrap();
        verdict(Failure::Vendor(&VendorError::new(status, code, "quota exceeded, retry")))
    }

    #[test]
    fn every_row_of_the_error_table() {
        for (status, codes, expected) in [
            (400, &[5007, 5004, 5006, 3003, 3039, 3030][..], Verdict::Never),
            (401, &[10000], Verdict::Never),
            (403, &[5016, 5018, 3041, 3023, 5035], Verdict::Never),
            (404, &[3042, 7003, 7000], Verdict::Never),
            (405, &[5005, 5019], Verdict::Never),
            (408, &[3007], Verdict::Retry("timeout")),
            (408, &[3046], Verdict::Never),
            (408, &[3008], Verdict::Retry("aborted")),
            (413, &[3006], Verdict::Never),
            (422, &[5012], Verdict::Never),
            (429, &[3036, 4006], Verdict::UsedUp),
            (429, &[3021, 9999], Verdict::Retry("rate_limited")),
            (429, &[3040], Verdict::Retry("out_of_capacity")),
            (200, &[3040], Verdict::Retry("out_of_capacity")),
            (200, &[4006], Verdict::UsedUp),
            (200, &[5006], Verdict::Never),
        ] {
            for code in codes {
                assert_eq!(of(status, Some(*code)), expected, "{status} {code}");
            }
        }
        for (status, expected) in [
            (400, Verdict::Never),
            (402, Verdict::Never),
            (408, Verdict::Retry("timeout")),
            (410, Verdict::Never),
            (429, Verdict::Retry("rate_limited")),
            (500, Verdict::Retry("server_error")),
            (502, Verdict::Retry("server_error")),
            (503, Verdict::Retry("server_error")),
            (504, Verdict::Retry("timeout")),
            (524, Verdict::Retry("timeout")),
            (200, Verdict::Retry("stream_error")),
        ] {
            assert_eq!(of(status, None), expected, "{status}");
        }
    }

    #[test]
    fn the_gates_own_refusals_are_final_and_the_networks_are_not() {
        let of = |error: Error| verdict(Failure::Gate(&error));
        assert_eq!(
            of(Error::Unreachable { host: String::new(), why: String::new(), was_sent: false }),
            Verdict::Retry("unreachable")
        );
        let after = std::time::Duration::from_secs(1);
        assert_eq!(of(Error::Timeout { after, setting: "", was_sent: true }), Verdict::Retry("timeout"));
        let late = Error::Timeout { after: crate::upstream::FIRST_BYTE_TIMEOUT, setting: "", was_sent: true };
        assert_eq!(of(late), Verdict::Never, "not 250 s once more");
        assert_eq!(of(Error::RateLimited { what: String::new(), retry_after: after, limit: None }), Verdict::Never);
        assert_eq!(of(Error::Malformed(String::new())), Verdict::Never);
    }
}
