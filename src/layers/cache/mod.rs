//! Answers repeats without asking again: a hit costs nothing and takes no permit.
//!
//! Two calls are the same if account, AI Gateway, form, model, the caller's authorisation, `stream` and the whole input are; JSON
//! that differs only in key order or white space is the same input. Only [answers](crate::receipt::Ending::Answer) of the model
//! that was asked are kept: nothing that failed, is empty or was cut off. Streams are replayed as streams.
//!
//! Calls for the same that are in flight at once share one call upstream: see [`CacheStatus::Coalesced`]. It goes on as long
//! as anyone reads it. If it fails before its first byte, each of the others asks anew, together again.
//!
//! An embeddings call with several texts is answered text by text: only unknown ones go upstream, each once, and the reply
//! is put together in order ([`CacheStatus::Partial`]). Its usage is that of what went upstream.
//!
//! What is not here may be in a further [`Tier`], which several gates share ([`CacheStatus::Shared`]): see
//! [`CacheLayer::with_tier`]. A question that means the same as one before may have its answer, where that is asked for
//! ([`semantic`]): see [`CacheLayer::with_semantic`].
//!
//! # What is cached by default
//! Everything that has a `ttl`, but for calls that the vendor would answer by drawing lots, so that asking again brings another
//! answer: texts without a `seed`, unless their `temperature` is 0, and pictures without a `seed`. Those are neither kept nor
//! shared in flight, for a gate put in front must not change what an application sees. Where [`Settings::sampled`] or the
//! request (`cf-aig-cache-ttl`, `cf-aig-cache-key`) asks for it, they are.
//!
//! # What it does not do
//! It keeps no errors, and nothing larger than [`Settings::max_entry_bytes`]. Vectors and texts of [`semantic`] are in no snapshot.
//!
//! # Example
//! ```
//! use http::{Request, Response};
//! use tollgate::body::Body;
//! use tollgate::call::Call;
//! use tollgate::layers::{cache, identify};
//! use tower::{Service, ServiceBuilder, service_fn};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let vendor = service_fn(|_: Call| async { Ok::<_, tollgate::Error>(Response::new(Body::from(r#"{"result":{"response":"Hi"}}"#))) });
//! let rest = service_fn(|_: Request<Body>| async { Ok::<_, tollgate::Error>(Response::new(Body::empty())) });
//! let mut settings = identify::Settings::default();
//! (settings.account, settings.has_token) = (Some("023e".into()), true);
//! let mut stack = ServiceBuilder::new()
//!     .layer(identify::IdentifyLayer::new(settings, rest))
//!     .layer(cache::CacheLayer::new(cache::Settings::default()))
//!     .service(vendor);
//!
//! let ask = || Request::post("/run/@cf/meta/llama-3.2-1b-instruct").body(Body::from(r#"{"prompt": "Hello", "seed": 1}"#)).unwrap();
//! assert_eq!(stack.call(ask()).await.unwrap().headers()["cf-aig-cache-status"], "MISS");
//! assert_eq!(stack.call(ask()).await.unwrap().headers()["cf-aig-cache-status"], "HIT");
//! # });
//! ```

mod canonical;
mod flight;
mod further;
mod items;
mod key;
mod landed;
mod partial;
mod record;
pub mod semantic;
mod settings;
mod shared;
mod snapshot;
mod status;
mod store;
#[cfg(test)]
mod tests;
mod tier;

use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dashmap::DashMap;
use http::{StatusCode, response};
use tower::{Layer, Service, ServiceExt};

use self::flight::{Arrived, Flight};
use self::further::Further;
use self::items::Items;
use self::key::{Key, Scope, Secret, Taken};
use self::landed::tell_paid;
use self::partial::Unkept;
use self::record::Record;
use self::semantic::{Asking, Question, Semantic};
pub use self::settings::Settings;
use self::shared::Shared;
use self::status::{hit, kept_headers, landed_hit, unpaid, with_status};
use self::store::{Entry, Kind, Store};
pub use self::tier::{Found, Looked, Looking, Mark, Purging, Tier};
use super::inner::{Inner, access};
use super::{Reply, ReplyFuture};
use crate::Error;
use crate::call::Call;
use crate::catalogue::{Catalogue, Task};
use crate::memory::Memory;
use crate::preview::{Kept, Money};
use crate::receipt::{CacheStatus, Ending};
use crate::reply::{Asked, Reader};
use crate::vendor_error::{Meaning, VendorError};

/// Applies [`Cache`]. Cloning shares what is kept.
#[derive(Clone)]
pub struct CacheLayer(Arc<Shared>);

/// Answers repeats: see the [module](self).
#[derive(Clone)]
pub struct Cache<S> {
    shared: Arc<Shared>,
    inner: Inner<S>,
}

/// What is to be done with a call.
enum Plan {
    /// Nobody wants it cached.
    Off,
    /// It could be, and its caller or its kind says no.
    Bypass,
    Use(Duration, Option<Box<Question>>),
}

/// How a call boards.
enum Boarding {
    Hit(Arc<Entry>),
    Lead(Arc<Flight>),
    Join(Arc<Flight>),
}

/// What `cf-aig-cache-key` alone asks for (AI Gateway documentation, 2026-10).
const NAMED_TTL: Duration = Duration::from_secs(300);
/// How often a call joins a flight that fails before it takes the failure for its own.
const MAX_FLIGHTS: usize = 3;

// === impl CacheLayer ===

impl CacheLayer {
    /// An empty cache.
    pub fn new(settings: Settings) -> Self {
        Self::with_memory(settings, Memory::default())
    }

    /// The same where answers on their way into it take part of a memory that is bounded. Where that is full, they are not
    /// kept.
    pub fn with_memory(settings: Settings, memory: Memory) -> Self {
        let store = Store::new(settings.max_bytes);
        Self::over(settings, memory, store)
    }

    /// An empty cache by another wall clock, which tells when an answer is too old.
    pub fn with_clock(settings: Settings, clock: fn() -> SystemTime) -> Self {
        let store = Store::with_clock(settings.max_bytes, clock);
        Self::over(settings, Memory::default(), store)
    }

    fn over(settings: Settings, memory: Memory, store: Store) -> Self {
        let (flights, landings, purges) = (Arc::new(DashMap::with_hasher(Taken)), Arc::default(), Arc::default());
        let (semantic, semantics) = (None, Arc::default());
        Self(Arc::new(Shared { settings, memory, store, tier: None, purges, flights, landings, semantic, semantics }))
    }

    /// The same, empty, over a further tier: what is not here is looked for there, and what is kept here is kept there, too.
    pub fn with_tier(&self, tier: Arc<dyn Tier>) -> Self {
        let store = self.0.store.empty(self.0.settings.max_bytes);
        store.adopt(Secret::of(tier.secret()));
        let Self(over) = Self::over(self.0.settings.clone(), self.0.memory.clone(), store);
        Self(Arc::new(Shared { tier: Some(tier), ..(*over).clone() }))
    }

    /// Other settings over the same answers, flights and further tier; `max_bytes` stays as it was.
    pub fn followed_by(&self, settings: Settings) -> Self {
        Self(Arc::new(Shared { settings, ..(*self.0).clone() }))
    }

    /// The same answers, with those to questions that mean the same, or with them no more. What is remembered of questions stays.
    pub fn with_semantic(&self, settings: Option<semantic::Settings>, catalogue: Arc<Catalogue>) -> Self {
        let semantic = settings.map(|settings| Arc::new(Semantic { settings, catalogue }));
        Self(Arc::new(Shared { semantic, ..(*self.0).clone() }))
    }

    /// How it goes with questions that mean the same.
    pub fn semantic(&self) -> semantic::Standing {
        self.0.semantics.standing()
    }

    /// Forgets one model's answers, or all of them; those of a further tier stay.
    pub fn purge(&self, model: Option<&str>) {
        self.0.purges.fetch_add(1, Ordering::AcqRel);
        self.0.store.purge(model);
        self.0.semantics.forget(model);
    }

    /// Forgets them in the further tier, for all gates; `None` where there is none. See [`Tier::purge`].
    pub fn purge_tier(&self, model: Option<&str>) -> Option<Purging> {
        self.0.tier.as_ref().map(|tier| tier.purge(model))
    }

    /// What would be said to this call; `None` where nothing would be.
    pub fn foresee(&self, call: &Call) -> Option<Kept> {
        let plain = |status| Kept { status, age_seconds: None, saves: None };
        match self.0.plan(call) {
            Plan::Off => return None,
            Plan::Bypass => return Some(plain(CacheStatus::Bypass)),
            Plan::Use(..) => {}
        }
        let Shared { store, flights, .. } = &*self.0;
        let scope = Scope::of(call, store.secret());
        let key = scope.call(call);
        if let Some(entry) = store.get(&key) {
            let (status, age_seconds) = (CacheStatus::Hit, Some(entry.age()));
            return Some(Kept { status, age_seconds, saves: Some(Money(entry.cost)) });
        }
        let flight = flights.get(&key).and_then(|flight| flight.upgrade());
        if flight.is_some_and(|flight| flight.can_be_joined()) {
            return Some(plain(CacheStatus::Coalesced));
        }
        let known = |items: &Items<'_>| items.keys.iter().filter(|key| store.get(key).is_some()).count();
        Some(plain(match Items::of(call, &scope).filter(|items| !items.is_single) {
            Some(items) if !items.keys.is_empty() && known(&items) == items.keys.len() => CacheStatus::Hit,
            Some(items) if known(&items) > 0 => CacheStatus::Partial,
            _ => CacheStatus::Miss,
        }))
    }

    /// How many answers are kept, and what they weigh, in bytes.
    pub fn size(&self) -> (u64, u64) {
        self.0.store.size()
    }

    /// How many calls are on their way for those who asked for the same.
    pub fn flights(&self) -> usize {
        self.0.flights.iter().filter(|flight| flight.strong_count() > 0).count()
    }

    /// Writes all that is kept to a file, in the place of what was there. Blocks.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        snapshot::save(&self.0.store, path)
    }

    /// Reads back what was saved and has not expired; a file that is not there, or is broken from some place on, gives what
    /// there is. Blocks. Returns how many answers were read.
    pub fn load(&self, path: &Path) -> io::Result<usize> {
        snapshot::load(&self.0.store, path)
    }
}

impl<S> Layer<S> for CacheLayer {
    type Service = Cache<S>;

    fn layer(&self, inner: S) -> Cache<S> {
        Cache { shared: self.0.clone(), inner: Inner(inner) }
    }
}

// === impl Cache ===

access!(Cache);

impl<S> Service<Call> for Cache<S>
where
    S: Service<Call, Response = Reply> + Clone + Send + 'static,
    S::Error: Into<Error>,
    S::Future: Send + 'static,
{
    type Response = Reply;
    type Error = Error;
    type Future = ReplyFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // A hit needs nobody below; readiness is awaited by the call that goes there.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> ReplyFuture {
        let inner = self.inner.clone();
        match self.shared.plan(&call) {
            Plan::Off => Box::pin(inner.oneshot(call)),
            Plan::Bypass => {
                call.receipt.note(|facts| facts.cache = CacheStatus::Bypass);
                let reply = inner.oneshot(call);
                Box::pin(async move { Ok(with_status(reply.await?, CacheStatus::Bypass)) })
            }
            Plan::Use(ttl, question) => Box::pin(answer(self.shared.clone(), inner, call, ttl, question)),
        }
    }
}

async fn answer<S>(
    shared: Arc<Shared>,
    inner: S,
    call: Call,
    ttl: Duration,
    question: Option<Box<Question>>,
) -> Result<Reply, Error>
where
    S: Service<Call, Response = Reply, Error = Error> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let scope = Scope::of(&call, shared.store.secret());
    let key = scope.call(&call);
    let asking = question.and_then(|question| shared.asking(*question, &call, &scope, key));
    for flown in 1.. {
        match board(&shared, key, || flight(&shared, &inner, &call, key, &scope, ttl, asking.as_ref())) {
            Boarding::Hit(entry) => match entry.reply() {
                Some(reply) => return Ok(hit(reply, CacheStatus::Hit, &entry, &call)),
                None => break,
            },
            Boarding::Lead(flight) => {
                // A call for items says itself what it found.
                let missed = |facts: &mut crate::receipt::Facts| {
                    if facts.cache == CacheStatus::None {
                        facts.cache = CacheStatus::Miss;
                    }
                    facts.cache
                };
                let head = poll_fn(|cx| flight.poll_head(cx)).await;
                if let Some(reply) = landed_hit(&shared, &head, &call, true) {
                    return Ok(reply);
                }
                let status = call.receipt.note(missed);
                let mut reply = with_status(flight.reply(&*head?, None), status);
                if asking.is_some() {
                    tell_paid(reply.headers_mut(), call.receipt.read(|facts| facts.embedding));
                }
                return Ok(reply);
            }
            Boarding::Join(flight) => {
                let head = poll_fn(|cx| flight.poll_head(cx)).await;
                if let Some(reply) = landed_hit(&shared, &head, &call, false) {
                    return Ok(reply);
                }
                if is_passing(&head) && flown < MAX_FLIGHTS {
                    continue;
                }
                if matches!(head, Err(Error::OverCeiling { .. })) {
                    // That was the ceiling of the call that flew first.
                    break;
                }
                call.receipt.note(|facts| facts.cache = CacheStatus::Coalesced);
                let reply = flight.reply(&*head?, Some(call.receipt.clone()));
                return Ok(with_status(unpaid(reply), CacheStatus::Coalesced));
            }
        }
    }
    inner.oneshot(call).await
}

/// A failure that says nothing of the next try.
fn is_passing(head: &Result<Arc<response::Parts>, Error>) -> bool {
    match head {
        Err(_) => true,
        Ok(head) => {
            let told = head.extensions.get::<VendorError>().map(|error| error.meaning);
            let meaning = told.or_else(|| (!head.status.is_success()).then(|| Meaning::of_status(head.status)));
            meaning.is_some_and(Meaning::is_passing)
        }
    }
}

fn board(shared: &Shared, key: Key, fresh: impl Fn() -> Flight) -> Boarding {
    loop {
        let landings = shared.landings.load(Ordering::Acquire);
        if let Some(entry) = shared.store.get(&key) {
            return Boarding::Hit(entry);
        }
        // The handle leaves the map's lock before anything is done with it.
        let found = shared.flights.get(&key).and_then(|flight| flight.upgrade());
        if let Some(flight) = &found
            && flight.can_be_joined()
        {
            return Boarding::Join(flight.clone());
        }
        let flight = Arc::new(fresh());
        let begun = match shared.flights.entry(key) {
            dashmap::Entry::Vacant(place) => {
                place.insert(Arc::downgrade(&flight));
                true
            }
            dashmap::Entry::Occupied(mut place) => {
                let is_old = match &found {
                    Some(found) => place.get().as_ptr() == Arc::as_ptr(found),
                    None => place.get().strong_count() == 0,
                };
                if is_old {
                    place.insert(Arc::downgrade(&flight));
                }
                is_old
            }
        };
        if !begun {
            continue;
        }
        // Where someone has landed since the first look, it may be there now; nothing has been sent yet.
        let has_landed = shared.landings.load(Ordering::Acquire) != landings;
        let landed = if has_landed { shared.store.get(&key) } else { None };
        return landed.map_or(Boarding::Lead(flight), Boarding::Hit);
    }
}

/// A flight that has not begun: it makes the call when it is first polled.
fn flight<S>(
    shared: &Arc<Shared>,
    inner: &S,
    call: &Call,
    key: Key,
    scope: &Scope,
    ttl: Duration,
    asking: Option<&Arc<Asking>>,
) -> Flight
where
    S: Service<Call, Response = Reply, Error = Error> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let (payer, asked) = (call.receipt.clone(), call.model.id.clone());
    let (inner, sent, scope) = (inner.clone(), call.clone(), *scope);
    let keeping = shared.clone();
    let keeps = Further::of(shared);
    let further = keeps.clone();
    let calling: ReplyFuture = if Items::may_be_in(call) {
        let items = shared.clone();
        Box::pin(async move { partial::call(&items.store, further.as_deref(), inner, sent, key, scope, ttl).await })
    } else if let Some(asking) = asking.cloned() {
        let asked = asked.clone();
        Box::pin(async move {
            further::or_call(further.as_deref(), key, asked, semantic::or_call(asking, inner, sent)).await
        })
    } else if let Some(further) = further {
        let asked = asked.clone();
        Box::pin(async move { further::or_call(Some(&further), key, asked, inner.oneshot(sent)).await })
    } else {
        Box::pin(inner.oneshot(sent))
    };
    let max_bytes = shared.settings.max_entry_bytes;
    let form = Asked::by(call);
    let guard = Landing { shared: shared.clone(), key };
    let record = Record::new(max_bytes, shared.memory.clone());
    let asking = asking.cloned();
    Flight::new(calling, payer, record, move |landed| {
        let Landing { key, .. } = &guard;
        if landed.model == asked && landed.body.len() <= max_bytes && is_answer(landed, form) {
            let entry = Entry {
                model: asked.clone(),
                kind: Kind::Reply(kept_headers(&landed.head.headers)),
                body: Bytes::copy_from_slice(&landed.body),
                cost: landed.cost,
                kept_at: keeping.store.now(),
                ttl,
            };
            if let Some(further) = &keeps {
                further.keep(*key, &entry);
            }
            keeping.store.keep(*key, entry);
            if let Some(asking) = &asking {
                asking.remember(&asked);
            }
            keeping.landings.fetch_add(1, Ordering::Release);
        }
    })
}

/// Takes a flight's place from the map when the last passenger has left it.
struct Landing {
    shared: Arc<Shared>,
    key: Key,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.shared.flights.remove_if(&self.key, |_, flight| flight.strong_count() == 0);
    }
}

/// Whether a reply that came in whole is an answer: all of it, without an error in it, and with something in it.
fn is_answer(landed: &Arrived, asked: Asked) -> bool {
    let head = &landed.head;
    if head.status != StatusCode::OK
        || landed.body.is_empty()
        || head.extensions.get::<VendorError>().is_some()
        || head.extensions.get::<Unkept>().is_some()
    {
        return false;
    }
    let ending = match landed.ending {
        // Nobody below has read it.
        Ending::Open => Reader::judge(asked.form(&head.headers), &landed.body),
        told => told,
    };
    ending == Ending::Answer
}

// === impl Shared ===

impl Shared {
    fn plan(&self, call: &Call) -> Plan {
        let question = self.semantic.as_ref().and_then(|semantic| semantic.question(call)).map(Box::new);
        self.settings.plan(call, question)
    }

    /// What is looked for before the call is made.
    fn asking(&self, question: Question, call: &Call, scope: &Scope, key: Key) -> Option<Arc<Asking>> {
        let semantic = self.semantic.clone()?;
        let group = scope.group(call, &question.rest, &semantic.settings.model);
        let (store, state) = (self.store.clone(), self.semantics.clone());
        Some(Arc::new(Asking::new(semantic, store, state, question.text, group, key)))
    }
}

// === impl Settings ===

impl Settings {
    /// Who asks for an answer to what means the same also asks for one that was drawn by lot.
    fn plan(&self, call: &Call, question: Option<Box<Question>>) -> Plan {
        if call.socket.is_some() {
            return Plan::Off;
        }
        let options = &call.options;
        let asked = options.cache_ttl.or(options.cache_key.is_some().then_some(NAMED_TTL));
        let ttl = asked.unwrap_or_else(|| self.models.get(&call.model.id).copied().unwrap_or(self.ttl));
        if options.skip_cache || call.ask.batch {
            return Plan::Bypass;
        }
        if ttl.is_zero() {
            return if asked.is_some() { Plan::Bypass } else { Plan::Off };
        }
        if is_sampled(call) && !self.sampled && asked.is_none() && question.is_none() {
            return Plan::Bypass;
        }
        Plan::Use(ttl, question)
    }
}

/// Whether the vendor draws lots for the answer, so that the same call has another one the next time.
fn is_sampled(call: &Call) -> bool {
    let ask = &call.ask;
    // -0 is 0.
    let is_greedy = ask.temperature == Some(0.0);
    let by_its_task = match call.model.task {
        Task::TextToImage => true,
        Task::TextGeneration | Task::ImageToText | Task::Summarization | Task::Unknown => !is_greedy,
        _ => ask.temperature.is_some() && !is_greedy,
    };
    by_its_task && !ask.seeded
}
