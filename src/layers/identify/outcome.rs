//! How a call ends, from the reply that its client gets.

use http::StatusCode;

use crate::layers::Reply;
use crate::receipt::{Outcome, Receipt};
use crate::vendor_error::VendorError;

/// How a call ends whose reply is this one, if the client stays to the end.
pub(super) fn outcome(reply: &Reply, receipt: &Receipt) -> Outcome {
    let noted = receipt.read(|facts| facts.outcome);
    if noted != Outcome::default() {
        return noted;
    }
    if let Some(error) = reply.extensions().get::<VendorError>() {
        return vendor_outcome(error);
    }
    if reply.status().is_success() { Outcome::Ok } else { status_outcome(reply.status()) }
}

fn vendor_outcome(error: &VendorError) -> Outcome {
    match error.code {
        Some(3036 | 4006) => Outcome::BudgetExceeded,
        Some(3007 | 3046) => Outcome::Timeout,
        _ if error.status.is_success() => Outcome::UpstreamError,
        _ => status_outcome(error.status),
    }
}

fn status_outcome(status: StatusCode) -> Outcome {
    match status {
        StatusCode::TOO_MANY_REQUESTS => Outcome::RateLimited,
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => Outcome::Timeout,
        status if status.is_client_error() => Outcome::ClientError,
        _ => Outcome::UpstreamError,
    }
}
