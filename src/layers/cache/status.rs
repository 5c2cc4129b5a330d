//! What a reply says of where it came from, and of what it cost.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::response;

use super::landed::{Landed, tell_paid};
use super::shared::Shared;
use super::store::Entry;
use crate::Error;
use crate::call::Call;
use crate::headers::{CF_AIG_CACHE_STATUS, X_TOLLGATE_CACHE_TIER, X_TOLLGATE_COST_USD, X_TOLLGATE_NEURONS};
use crate::layers::Reply;
use crate::receipt::{CacheStatus, Outcome};

/// The headers of an answer less what was only of its making.
pub(super) fn kept_headers(headers: &HeaderMap) -> Box<[(HeaderName, HeaderValue)]> {
    const MAKING: [HeaderName; 5] =
        [header::DATE, header::SET_COOKIE, header::AGE, CF_AIG_CACHE_STATUS, X_TOLLGATE_CACHE_TIER];
    let kept = headers.iter().filter(|(name, _)| !MAKING.contains(name));
    let free = |name: &HeaderName| NOTHING.iter().find(|(told, _)| told == name).map(|(_, nothing)| *nothing);
    kept.map(|(name, value)| (name.clone(), free(name).map_or_else(|| value.clone(), HeaderValue::from_static)))
        .collect()
}

/// The reply of a flight that ended before it left: in the further tier, or at the answer to a question that means the same.
/// `has_paid`: what it cost to find out stands on this call's receipt.
pub(super) fn landed_hit(
    shared: &Shared,
    head: &Result<Arc<response::Parts>, Error>,
    call: &Call,
    has_paid: bool,
) -> Option<Reply> {
    if shared.tier.is_none() && shared.semantic.is_none() {
        return None;
    }
    let landed = Landed::of(head)?;
    let mut reply = hit(landed.entry.reply()?, landed.status(), &landed.entry, call);
    if let Some(similar) = landed.similar {
        let paid = call.receipt.note(|facts| {
            similar.note(facts, has_paid);
            facts.embedding
        });
        similar.tell(reply.headers_mut());
        tell_paid(reply.headers_mut(), paid);
    }
    Some(reply)
}

pub(super) fn hit(mut reply: Reply, status: CacheStatus, entry: &Entry, call: &Call) -> Reply {
    reply.headers_mut().insert(header::AGE, HeaderValue::from(entry.age()));
    call.receipt.note(|facts| {
        facts.cache = status;
        facts.outcome = Outcome::CacheHit;
        facts.saved = entry.cost;
    });
    with_status(reply, status)
}

pub(super) fn unpaid(mut reply: Reply) -> Reply {
    free(reply.headers_mut());
    reply
}

/// What an answer cost that was not asked for again.
const NOTHING: [(HeaderName, &str); 2] = [(X_TOLLGATE_NEURONS, "0"), (X_TOLLGATE_COST_USD, "0.000000000")];

/// Where a cost was told, it is none.
fn free(headers: &mut HeaderMap) {
    for (name, nothing) in NOTHING {
        if headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(nothing));
        }
    }
}

pub(super) fn with_status(mut reply: Reply, status: CacheStatus) -> Reply {
    if let Some(told) = status.told() {
        reply.headers_mut().insert(CF_AIG_CACHE_STATUS, HeaderValue::from_static(told));
    }
    if status == CacheStatus::Shared {
        reply.headers_mut().insert(X_TOLLGATE_CACHE_TIER, HeaderValue::from_static("shared"));
    }
    reply
}
