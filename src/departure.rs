//! Whether an attempt's request has gone out.
//!
//! A call that is given up costs what was put aside for it if upstream may have run it, and nothing if its request never
//! left: while it waited for a turn, or for a connection to stand. [`Meter`](crate::layers::meter) gives each attempt a
//! `Departure`; [`Upstream`](crate::upstream) holds it and lets the request's body carry it, and the body notes when it is first
//! read. An HTTP client reads a body when it writes the request to a connection that stands, and not before.
//!
//! # What it does not do
//! It does not tell that all of a request was written: a part of it may be enough for upstream to begin. Where nothing holds
//! the request, as in a stack with another service in upstream's place, it counts as gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Whether one attempt's request has gone out. Clones tell of the same attempt.
#[derive(Clone, Debug, Default)]
pub struct Departure(Arc<AtomicU8>);

/// Nobody has said that the request is still here.
const UNKNOWN: u8 = 0;
const HELD: u8 = 1;
const GONE: u8 = 2;

impl Departure {
    /// The request is still here, and its body will tell when it goes.
    pub fn hold(&self) {
        // What has gone cannot be held.
        let _ = self.0.compare_exchange(UNKNOWN, HELD, Ordering::AcqRel, Ordering::Acquire);
    }

    /// From here on upstream may have it.
    pub fn note(&self) {
        self.0.store(GONE, Ordering::Release);
    }

    /// False where it is certain that none of the request was written.
    pub fn may_have_left(&self) -> bool {
        self.0.load(Ordering::Acquire) != HELD
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::body::Body;

    #[tokio::test]
    async fn what_nobody_holds_may_have_left_and_what_is_held_leaves_when_its_body_is_read() {
        assert!(Departure::default().may_have_left());
        for bytes in ["{}", ""] {
            let departure = Departure::default();
            departure.hold();
            let body = Body::outgoing(bytes.into(), departure.clone());
            assert!(!departure.may_have_left());
            assert_eq!(body.collect().await.unwrap().to_bytes(), bytes);
            departure.hold();
            assert!(departure.may_have_left());
        }
    }
}
