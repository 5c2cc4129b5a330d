//! A call for embeddings of which some are known: only the others go upstream.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{StatusCode, response};
use http_body_util::BodyExt;
use tower::{Service, ServiceExt};

use super::further::{Further, MAX_LOOKED, or_call};
use super::items::{Items, Vectors};
use super::key::{Key, Scope};
use super::store::{Entry, Kind, Store};

use crate::Error;
use crate::body::Body;
use crate::call::Call;
use crate::layers::{Reply, identify};
use crate::neurons::Neurons;
use crate::receipt::{CacheStatus, Ending, Outcome};
use crate::vendor_error::VendorError;

/// A reply that is not kept as a whole: its items are, or nothing of it.
#[derive(Clone)]
pub(super) struct Unkept;

/// What the cache has of a call's texts, each in its place.
struct Known {
    vectors: Vec<Option<Bytes>>,
    pooling: Option<Bytes>,
    /// What they cost when they were asked for.
    cost: Neurons,
    /// Some of them were found in the further tier.
    is_shared: bool,
}

/// Makes the call; one for several embeddings by its items.
pub(super) async fn call<S>(
    store: &Store,
    further: Option<&Further>,
    inner: S,
    call: Call,
    key: Key,
    scope: Scope,
    ttl: Duration,
) -> Result<Reply, Error>
where
    S: Service<Call, Response = Reply, Error = Error> + Clone + Send,
{
    let model = call.model.id.clone();
    let Some(items) = Items::of(&call, &scope) else {
        let asked = call.clone();
        return or_call(further, key, model, inner.oneshot(asked)).await;
    };
    if items.is_single {
        return or_call(further, key, model, whole(inner, &items, &call)).await;
    }
    let mut known = Known::of(store, &items);
    if let Some(further) = further {
        known.look_further(further, &items, &model).await;
    }
    let missing = items.missing(&known.vectors);
    if missing.is_empty() {
        note(&call, if known.is_shared { CacheStatus::Shared } else { CacheStatus::Hit }, known.cost);
        let vectors: Vec<Bytes> = known.vectors.into_iter().flatten().collect();
        return Ok(made(items.reply(&vectors, known.pooling.as_ref(), None), HeaderMap::new()));
    }
    let asks_all = missing.len() == items.keys.len();
    let sent = if asks_all { Some(call.clone()) } else { only(&call, &items, &missing) };
    let Some(sent) = sent else { return inner.oneshot(call).await };
    let (head, body) = match answered(&call, inner.clone().oneshot(sent).await?).await? {
        Answered::Vectors(head, body) => (head, body),
        Answered::Other(reply) => return Ok(reply),
    };
    let Some(read) = items.read(&body, missing.len()) else {
        // No form that is known. Where all was asked for, it is the caller's as it came.
        if asks_all {
            return Ok(unkept(head, body));
        }
        return inner.oneshot(call).await.map(keep_none);
    };
    let fresh = keep(store, further, &call, &items, &missing, &read, ttl);
    if asks_all {
        return Ok(unkept(head, body.clone()));
    }
    if known.vectors.iter().any(Option::is_some) {
        note(&call, CacheStatus::Partial, known.cost);
    }
    // A text that stands twice was asked for once.
    let places = known.vectors.into_iter().zip(&items.keys);
    let vectors: Vec<Bytes> = places.filter_map(|(vector, key)| vector.or_else(|| fresh.get(key).cloned())).collect();
    Ok(made(items.reply(&vectors, known.pooling.as_ref(), Some(&read)), head.headers))
}

/// Makes a call for one text: its reply is kept as it is, if there is one vector in it.
async fn whole<S>(inner: S, items: &Items<'_>, call: &Call) -> Result<Reply, Error>
where
    S: Service<Call, Response = Reply, Error = Error>,
{
    Ok(match answered(call, inner.oneshot(call.clone()).await?).await? {
        Answered::Vectors(head, body) if items.read(&body, 1).is_some() => Reply::from_parts(head, Body::from(body)),
        Answered::Vectors(head, body) => unkept(head, body),
        Answered::Other(reply) => reply,
    })
}

/// What came of a call for vectors.
enum Answered {
    Vectors(response::Parts, Bytes),
    /// No answer.
    Other(Reply),
}

async fn answered(call: &Call, reply: Reply) -> Result<Answered, Error> {
    if reply.status() != StatusCode::OK || reply.extensions().get::<VendorError>().is_some() {
        return Ok(Answered::Other(reply));
    }
    let (head, body) = reply.into_parts();
    let broken = |why| Error::Unreachable {
        host: "upstream".into(),
        why: format!("the reply broke off: {why}"),
        was_sent: true,
    };
    let body = body.collect().await.map_err(broken)?.to_bytes();
    let is_answer = match call.receipt.read(|facts| facts.ending) {
        // Nobody below has read it.
        Ending::Open => VendorError::in_event(&body).is_none(),
        ending => ending == Ending::Answer,
    };
    if is_answer { Ok(Answered::Vectors(head, body)) } else { Ok(Answered::Other(unkept(head, body))) }
}

fn unkept(head: response::Parts, body: Bytes) -> Reply {
    keep_none(Reply::from_parts(head, Body::from(body)))
}

/// Marks a reply that is not kept as a whole.
fn keep_none(mut reply: Reply) -> Reply {
    reply.extensions_mut().insert(Unkept);
    reply
}

fn note(call: &Call, status: CacheStatus, saved: Neurons) {
    call.receipt.note(|facts| {
        (facts.cache, facts.saved) = (status, saved);
        if matches!(status, CacheStatus::Hit | CacheStatus::Shared) {
            facts.outcome = Outcome::CacheHit;
        }
    });
}

/// Keeps what came, each item with its share of the cost by the length of its text.
fn keep(
    store: &Store,
    further: Option<&Further>,
    call: &Call,
    items: &Items<'_>,
    places: &[usize],
    read: &Vectors<'_>,
    ttl: Duration,
) -> HashMap<Key, Bytes> {
    let (cost, answered) = call.receipt.read(|facts| (facts.cost.neurons, facts.model.id.clone()));
    let all_bytes: u64 = places.iter().map(|place| items.bytes(*place)).sum::<u64>().max(1);
    let mut fresh = HashMap::with_capacity(places.len());
    for (place, vector) in places.iter().zip(&read.vectors) {
        let vector = Bytes::copy_from_slice(vector.get().as_bytes());
        fresh.insert(items.keys[*place], vector.clone());
        // Another model's vectors mean something else.
        if answered == call.model.id {
            let share = u128::from(cost.micro()) * u128::from(items.bytes(*place)) / u128::from(all_bytes);
            let cost = Neurons::from_micro(u64::try_from(share).unwrap_or(u64::MAX));
            let (kind, kept_at) = (Kind::Vector(read.pooling()), store.now());
            let entry = Entry { model: answered.clone(), kind, body: vector, cost, kept_at, ttl };
            if let Some(further) = further {
                further.keep(items.keys[*place], &entry);
            }
            store.keep(items.keys[*place], entry);
        }
    }
    fresh
}

impl Known {
    fn of(store: &Store, items: &Items<'_>) -> Self {
        let entries: Vec<_> = items.keys.iter().map(|key| store.get(key)).collect();
        let pooling = entries.iter().flatten().find_map(|entry| match &entry.kind {
            Kind::Vector(pooling) => pooling.clone(),
            Kind::Reply(_) => None,
        });
        Self {
            cost: entries.iter().flatten().map(|entry| entry.cost).sum(),
            vectors: entries.into_iter().map(|entry| Some(entry?.body.clone())).collect(),
            pooling,
            is_shared: false,
        }
    }

    /// Adds what the further tier has of the rest.
    async fn look_further(&mut self, further: &Further, items: &Items<'_>, model: &Arc<str>) {
        let mut wanted: Vec<Key> = items.missing(&self.vectors).into_iter().map(|place| items.keys[place]).collect();
        wanted.truncate(MAX_LOOKED);
        if wanted.is_empty() {
            return;
        }
        let found: HashMap<Key, Entry> = {
            let entries = further.find(model, &wanted).await;
            wanted.into_iter().zip(entries).filter_map(|(key, entry)| Some((key, entry?))).collect()
        };
        for (vector, key) in self.vectors.iter_mut().zip(&items.keys) {
            if let (None, Some(entry)) = (&vector, found.get(key))
                && let Kind::Vector(pooling) = &entry.kind
            {
                *vector = Some(entry.body.clone());
                self.cost += entry.cost;
                self.pooling = self.pooling.take().or_else(|| pooling.clone());
                self.is_shared = true;
            }
        }
    }
}

/// The call for some of its texts alone.
fn only(call: &Call, items: &Items<'_>, missing: &[usize]) -> Option<Call> {
    let body = items.body(missing)?;
    let mut part = call.clone();
    part.ask = Arc::new(identify::measure(&body, "application/json", call.endpoint).ok()?);
    // The name stands elsewhere now; the path or the gate's own reading has it.
    part.model_in_body = part.model_in_body.as_ref().and_then(|_| items.model_in(&body));
    part.replace_body(body);
    Some(part)
}

fn made(body: Bytes, mut headers: HeaderMap) -> Reply {
    let mut reply = Reply::new(Body::from(body));
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *reply.headers_mut() = headers;
    keep_none(reply)
}
