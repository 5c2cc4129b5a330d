//! An answer that a flight has found, in the place of a reply.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use http::response;

use super::store::Entry;
use crate::Error;
use crate::body::Body;
use crate::headers::{X_TOLLGATE_EMBEDDING_NEURONS, X_TOLLGATE_SIMILARITY};
use crate::layers::Reply;
use crate::neurons::Neurons;
use crate::receipt::{CacheStatus, Facts};

/// Stands in the head of a flight that ended before it left: the calls that wait make their replies of the entry.
#[derive(Clone)]
pub(super) struct Landed {
    pub(super) entry: Arc<Entry>,
    /// How near the question was that it had answered; `None` where it is another gate's answer to the same.
    pub(super) similar: Option<Similar>,
}

/// How near a question was to one that was answered before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Similar {
    pub(super) similarity: f32,
    /// What it cost to find out.
    pub(super) embedding: Neurons,
}

impl Landed {
    /// What a flight has found.
    pub(super) fn of(head: &Result<Arc<response::Parts>, Error>) -> Option<Self> {
        head.as_ref().ok()?.extensions.get().cloned()
    }

    /// It has no body, so that it is not kept a second time.
    pub(super) fn reply(self) -> Reply {
        let mut reply = Reply::new(Body::from(Bytes::new()));
        reply.extensions_mut().insert(self);
        reply
    }

    pub(super) fn status(&self) -> CacheStatus {
        if self.similar.is_some() { CacheStatus::SemanticHit } else { CacheStatus::Shared }
    }
}

impl Similar {
    /// `has_paid`: the vector was made for this call, and not for one that flew with it.
    pub(super) fn note(self, facts: &mut Facts, has_paid: bool) {
        facts.similarity = Some(self.similarity);
        if has_paid {
            facts.saved = facts.saved.saturating_sub(self.embedding);
        }
    }

    pub(super) fn tell(self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::try_from(format!("{:.4}", self.similarity)) {
            headers.insert(X_TOLLGATE_SIMILARITY, value);
        }
    }
}

/// Tells what was paid for a vector, where one was made for the call.
pub(super) fn tell_paid(headers: &mut HeaderMap, embedding: Neurons) {
    if !embedding.is_zero()
        && let Ok(value) = HeaderValue::try_from(embedding.decimal())
    {
        headers.insert(X_TOLLGATE_EMBEDDING_NEURONS, value);
    }
}
