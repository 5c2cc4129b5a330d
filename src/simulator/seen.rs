//! The requests that came, as they came.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// A request as it came.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Seen {
    /// Path and query.
    pub path: String,
    /// Its headers.
    pub headers: http::HeaderMap,
    /// Its body.
    pub body: Bytes,
}

#[derive(Default)]
pub(super) struct Requests {
    latest: Mutex<VecDeque<Seen>>,
    tap: Mutex<Option<Tap>>,
}

/// Told of each request.
type Tap = Arc<dyn Fn(&Seen) + Send + Sync>;

const MAX_KEPT: usize = 256;
const MAX_KEPT_BODY: usize = 64 * 1024;

impl Requests {
    pub(super) fn latest(&self) -> Vec<Seen> {
        self.latest.lock().iter().cloned().collect()
    }

    pub(super) fn tap(&self, tap: Tap) {
        *self.tap.lock() = Some(tap);
    }

    pub(super) fn note(&self, head: &http::request::Parts, body: &Bytes) {
        let mut seen = Seen { path: head.uri.to_string(), headers: head.headers.clone(), body: body.clone() };
        let tap = self.tap.lock().clone();
        if let Some(tap) = tap {
            tap(&seen);
        }
        seen.body = Bytes::copy_from_slice(&body[..body.len().min(MAX_KEPT_BODY)]);
        let mut latest = self.latest.lock();
        if latest.len() >= MAX_KEPT {
            latest.pop_front();
        }
        latest.push_back(seen);
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").field("latest", &self.latest.lock().len()).finish_non_exhaustive()
    }
}
