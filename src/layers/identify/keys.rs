//! Clients' own keys: who may come in, how often, and to which models.
//!
//! A key is kept as its SHA-256, is found by that, and is compared in constant time. It comes as `Authorization: Bearer` or
//! `cf-aig-authorization: Bearer`, as Anthropic's clients send it (`x-api-key`) or as Azure's do (`api-key`), and goes no further
//! than the door. A client whose certificate a server has verified ([`Certified`]) is the key of that name.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use http::header::{self, HeaderMap, HeaderValue};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use crate::Error;
use crate::headers::{API_KEY, CF_AIG_AUTHORIZATION, X_API_KEY};
use crate::peer::Certified;

/// A client's key, as the config has it. `[[keys]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Key {
    /// Names it in records, budgets and refusals.
    pub name: String,
    /// The key's SHA-256, in hexadecimal digits: `tollgate keys new` prints it.
    pub sha256: String,
    /// Only these models; empty is all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// In any minute; no limit where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU32>,
    /// What budgets may be split by, such as `team`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// From then on it opens nothing. RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<jiff::Timestamp>,
}

/// All keys. Without any, none is asked for, unless that is said.
#[derive(Clone, Default)]
pub struct Keys(Arc<Set>);

#[derive(Default)]
struct Set {
    /// In the order of their hashes.
    known: Vec<Arc<Known>>,
    /// By the first bytes of a hash, the place of the first key that has them.
    places: HashMap<u64, u32, BuildHasherDefault<Head>>,
    /// By its name, the place of the key that holds longest.
    names: HashMap<Arc<str>, u32>,
    /// A key is asked for, also where there is none.
    is_asked_for: bool,
}

/// The first bytes of a SHA-256 are as good as any hash of them.
#[derive(Default)]
struct Head(u64);

#[derive(Clone)]
struct Known {
    name: Arc<str>,
    hash: [u8; 32],
    models: Arc<[String]>,
    labels: Option<Labels>,
    expires_at: Option<SystemTime>,
    requests_per_minute: Option<NonZeroU32>,
    /// When the requests of the last minute came, oldest first; at most `requests_per_minute`.
    recent: Arc<Mutex<VecDeque<Instant>>>,
}

/// A key's labels, by name.
pub type Labels = Arc<BTreeMap<String, String>>;

/// Turns of keys, where several gates share them.
pub trait Turns: std::fmt::Debug + Send + Sync + 'static {
    /// A turn of this key, of so many a minute; refused, it tells when there is one.
    fn turn(&self, key: &str, requests_per_minute: NonZeroU32) -> BoxFuture<'static, Result<(), Duration>>;
}

/// A turn that is asked for.
pub(super) type Turn = BoxFuture<'static, Result<(), Error>>;

/// A client who has shown a key.
#[derive(Clone, Copy)]
pub(super) struct Client<'a>(&'a Known);

/// Why a set of keys cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key {name:?} {why}")]
#[non_exhaustive]
pub struct KeyError {
    /// Which.
    pub name: String,
    /// What is wrong with it, and the mend.
    pub why: &'static str,
}

/// A name stands in records and in metrics of the operator's own.
const MAX_NAME_BYTES: usize = 64;
const MINUTE: Duration = Duration::from_secs(60);

// === impl Key ===

impl Key {
    /// From its name and its SHA-256 in hexadecimal digits; for all models, as often as they like.
    pub fn new(name: impl Into<String>, sha256: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            sha256: sha256.into(),
            models: Vec::new(),
            requests_per_minute: None,
            labels: BTreeMap::new(),
            expires_at: None,
        }
    }
}

/// What is kept of a key: its SHA-256, in hexadecimal digits.
pub fn sha256(key: &str) -> String {
    hash(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hash(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// What a hash is looked up by.
fn head(hash: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *hash;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn from_hex(digits: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    for (place, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(hash)
}

// === impl Known ===

impl Known {
    /// Keys with the same labels share them: those of one team have the same, and there may be many.
    fn of(key: &Key, shared: &mut HashSet<Labels>) -> Result<Arc<Self>, KeyError> {
        let wrong = |why| KeyError { name: key.name.clone(), why };
        if key.name.is_empty() || key.name.len() > MAX_NAME_BYTES {
            return Err(wrong("needs a name of at most 64 bytes"));
        }
        let hash = from_hex(&key.sha256);
        let hash = hash.ok_or_else(|| {
            wrong("has no SHA-256 of 64 hexadecimal digits in `sha256`; `tollgate keys new NAME` makes one")
        })?;
        let labels = (!key.labels.is_empty()).then(|| match shared.get(&key.labels) {
            Some(labels) => labels.clone(),
            None => {
                let labels = Arc::new(key.labels.clone());
                shared.insert(labels.clone());
                labels
            }
        });
        let since_1970 = |at: jiff::Timestamp| Duration::from_millis(u64::try_from(at.as_millisecond()).unwrap_or(0));
        Ok(Arc::new(Self {
            name: key.name.as_str().into(),
            hash,
            models: key.models.clone().into(),
            labels,
            expires_at: key.expires_at.map(|at| SystemTime::UNIX_EPOCH + since_1970(at)),
            requests_per_minute: key.requests_per_minute,
            recent: Arc::default(),
        }))
    }

    /// It holds for longer than the other.
    fn ends_after(&self, other: &Self) -> bool {
        match (self.expires_at, other.expires_at) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(own), Some(other)) => own > other,
        }
    }

    fn has_expired(&self) -> bool {
        self.expires_at.is_some_and(|at| SystemTime::now() >= at)
    }

    fn head(&self) -> u64 {
        head(&self.hash)
    }
}

impl Hasher for Head {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, head: u64) {
        self.0 = head;
    }
}

// === impl Set ===

impl Set {
    fn named(&self, name: &str) -> Option<&Known> {
        self.known.get(*self.names.get(name)? as usize).map(|known| &**known)
    }
}

// === impl Keys ===

impl Keys {
    /// Checks them all.
    pub fn new(keys: &[Key]) -> Result<Self, KeyError> {
        let mut names = HashSet::with_capacity(keys.len());
        if let Some(twice) = keys.iter().find(|key| !names.insert(key.name.as_str())) {
            return Err(KeyError { name: twice.name.clone(), why: "is there twice; give each a name of its own" });
        }
        let mut labels = HashSet::new();
        let known = keys.iter().map(|key| Known::of(key, &mut labels)).collect::<Result<_, _>>()?;
        Ok(Self::of(known, false))
    }

    /// The same and more, of which several may have one name: a key that was rotated holds for a while beside its successor.
    /// Keys are asked for from here on, also where there is none.
    pub fn and(self, more: impl IntoIterator<Item = Key>) -> Result<Self, KeyError> {
        let (mut known, mut labels) = (self.0.known.clone(), HashSet::new());
        for key in more {
            known.push(Known::of(&key, &mut labels)?);
        }
        Ok(Self::of(known, true))
    }

    fn of(mut known: Vec<Arc<Known>>, is_asked_for: bool) -> Self {
        known.sort_unstable_by_key(|known| known.head());
        let mut places = HashMap::with_capacity_and_hasher(known.len(), BuildHasherDefault::default());
        for (place, known) in known.iter().enumerate().rev() {
            places.insert(known.head(), place as u32);
        }
        let mut names = HashMap::with_capacity(known.len());
        for (place, key) in known.iter().enumerate() {
            let longest = names.entry(key.name.clone()).or_insert(place as u32);
            if key.ends_after(&known[*longest as usize]) {
                *longest = place as u32;
            }
        }
        let is_asked_for = is_asked_for || !known.is_empty();
        Self(Arc::new(Set { known, places, names, is_asked_for }))
    }

    /// The same keys, which go on from what those of the same name and hash have asked in this minute.
    pub fn following(self, before: &Self) -> Self {
        let known = self.0.known.iter().map(|known| match before.find_hash(&known.hash) {
            Some(old) if old.name == known.name => {
                Arc::new(Known { recent: old.recent.clone(), ..Known::clone(known) })
            }
            _ => known.clone(),
        });
        Self::of(known.collect(), self.0.is_asked_for)
    }

    /// Whether one of them has this name.
    pub fn has_name(&self, name: &str) -> bool {
        self.0.named(name).is_some()
    }

    /// True where no key is asked for.
    pub fn is_empty(&self) -> bool {
        !self.0.is_asked_for
    }

    /// Who sent these headers, or has shown a certificate; `None` where no key is asked for. The key is taken out of them.
    pub(super) fn admit(
        &self,
        headers: &mut HeaderMap,
        certified: Option<&Certified>,
    ) -> Result<Option<Client<'_>>, Error> {
        if self.is_empty() {
            return Ok(None);
        }
        let mut client = None;
        let (mut was_sent, mut has_expired) = (false, false);
        for name in [CF_AIG_AUTHORIZATION, header::AUTHORIZATION, X_API_KEY, API_KEY] {
            let is_bare = name == X_API_KEY || name == API_KEY;
            let mut has_key = false;
            for value in headers.get_all(&name) {
                let bare = value.as_bytes().trim_ascii();
                let token = token(value).or_else(|| Some(bare).filter(|_| is_bare));
                // Where `Bearer` is missing it opens nothing, and goes no further all the same.
                let known = self.find(token.unwrap_or(bare));
                was_sent |= token.is_some();
                has_expired |= known.is_some_and(Known::has_expired);
                client = client.or(known.filter(|known| token.is_some() && !known.has_expired()).map(Client));
                has_key |= known.is_some();
            }
            if has_key {
                headers.remove(&name);
            }
        }
        // A known key says who it is, or else the certificate does: many clients send some token whatever they have.
        let client = client.or_else(|| certified.and_then(|Certified(name)| self.named(name)));
        client.map(Some).ok_or_else(|| {
            let what = match (has_expired, was_sent) {
                (true, _) => "this key has expired",
                (false, true) => "this key is not known here",
                (false, false) => "no key",
            };
            Error::Unauthorized(format!(
                "{what}: send one of the gate's keys as `Authorization: Bearer KEY`, `cf-aig-authorization: Bearer KEY`, or \
                 `x-api-key: KEY`"
            ))
        })
    }

    fn named(&self, name: &str) -> Option<Client<'_>> {
        self.0.named(name).filter(|known| !known.has_expired()).map(Client)
    }

    /// What is looked up is the SHA-256 of what was sent, by its first bytes: how long that takes may tell of a hash, of which
    /// nobody gets back to the key. The hashes themselves are compared in constant time.
    fn find(&self, token: &[u8]) -> Option<&Known> {
        self.find_hash(&hash(token))
    }

    fn find_hash(&self, hash: &[u8; 32]) -> Option<&Known> {
        let first = *self.0.places.get(&head(hash))? as usize;
        let alike = self.0.known.get(first..)?.iter().take_while(|known| known.head() == head(hash));
        alike.filter(|known| known.hash.ct_eq(hash).into()).last().map(|known| &**known)
    }
}

fn token(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.0.known.len())
    }
}

// === impl Client ===

impl Client<'_> {
    pub(super) fn name(self) -> Arc<str> {
        self.0.name.clone()
    }

    /// What budgets may be split by.
    pub(super) fn labels(self) -> Option<Labels> {
        self.0.labels.clone()
    }

    /// The models that it is for; `None` is all.
    pub(super) fn models(self) -> Option<Arc<[String]>> {
        Some(self.0.models.clone()).filter(|models| !models.is_empty())
    }

    /// Whether the key is for this model.
    pub(super) fn may_ask(self, model: &str) -> Result<(), Error> {
        if self.0.models.is_empty() || self.0.models.iter().any(|allowed| allowed == model) {
            return Ok(());
        }
        let (name, models) = (&self.0.name, self.0.models.join(", "));
        Err(Error::Forbidden(format!("the key {name:?} is not for {model}; it is for {models}")))
    }

    /// Whether it may come now: never more than so many in any minute.
    ///
    /// Where gates share limits, the turn is still to be waited for.
    pub(super) fn take_turn(self, turns: Option<&dyn Turns>) -> Result<Option<Turn>, Error> {
        let Some(limit) = self.0.requests_per_minute else { return Ok(None) };
        if let Some(turns) = turns {
            let (turn, name) = (turns.turn(&self.0.name, limit), self.0.name.clone());
            return Ok(Some(Box::pin(async move { turn.await.map_err(|after| over(&name, limit, after)) })));
        }
        let now = Instant::now();
        let mut recent = self.0.recent.lock();
        while recent.front().is_some_and(|first| now.duration_since(*first) >= MINUTE) {
            recent.pop_front();
        }
        if recent.len() < limit.get() as usize {
            recent.push_back(now);
            return Ok(None);
        }
        let oldest = recent.front().map_or(Duration::ZERO, |first| now.duration_since(*first));
        Err(over(&self.0.name, limit, MINUTE.saturating_sub(oldest)))
    }
}

fn over(name: &str, limit: NonZeroU32, retry_after: Duration) -> Error {
    let what = format!("the key {name:?} has had its {limit} requests of this minute");
    Error::RateLimited { what, retry_after, limit: None }
}

#[cfg(test)]
mod tests {
    use http::header::HeaderName;

    use super::*;

    fn keys() -> Keys {
        let mut team = Key::new("team", sha256("tg_team"));
        team.models = vec!["@cf/a/b".into()];
        team.requests_per_minute = NonZeroU32::new(2);
        Keys::new(&[Key::new("other", sha256("tg_other")), team]).unwrap()
    }

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_key_is_known_by_each_header_and_goes_no_further() {
        let keys = keys();
        let mut plain = headers(&[(header::AUTHORIZATION, "bearer tg_team")]);
        assert_eq!(&*keys.admit(&mut plain, None).unwrap().unwrap().name(), "team");
        assert!(plain.is_empty());
        let mut both = headers(&[(CF_AIG_AUTHORIZATION, "Bearer tg_other"), (header::AUTHORIZATION, "Bearer vendor")]);
        assert_eq!(&*keys.admit(&mut both, None).unwrap().unwrap().name(), "other");
        assert_eq!(both.keys().collect::<Vec<_>>(), [header::AUTHORIZATION]);
        let mut bare = headers(&[(CF_AIG_AUTHORIZATION, "tg_other"), (header::AUTHORIZATION, "Bearer tg_team")]);
        assert_eq!(&*keys.admit(&mut bare, None).unwrap().unwrap().name(), "team");
        assert!(bare.is_empty(), "{bare:?}");
        let mut twice = headers(&[(header::AUTHORIZATION, "Bearer vendor"), (header::AUTHORIZATION, "Bearer tg_team")]);
        assert_eq!(&*keys.admit(&mut twice, None).unwrap().unwrap().name(), "team");
        assert!(twice.is_empty(), "{twice:?}");
        for name in [X_API_KEY, API_KEY] {
            let mut bare = headers(&[(name.clone(), " tg_team"), (header::AUTHORIZATION, "Bearer vendor")]);
            assert_eq!(&*keys.admit(&mut bare, None).unwrap().unwrap().name(), "team");
            assert_eq!(bare.keys().collect::<Vec<_>>(), [header::AUTHORIZATION]);
            let foreign =
                keys.admit(&mut headers(&[(name, "sk-ant-x"), (header::AUTHORIZATION, "Bearer tg_team")]), None);
            assert_eq!(&*foreign.unwrap().unwrap().name(), "team");
        }
    }

    #[test]
    fn a_wrong_key_is_refused_without_being_repeated() {
        for value in ["Bearer tg_wrong", "Bearer ", "Basic tg_team", "tg_team", "B"] {
            let error = keys().admit(&mut headers(&[(header::AUTHORIZATION, value)]), None).err().unwrap();
            assert_eq!(error.status(), 401);
            assert!(!error.to_string().contains("tg_"), "{error}");
        }
        assert!(Keys::default().admit(&mut HeaderMap::new(), None).unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_holds_for_its_models_and_its_pace() {
        let keys = keys();
        let mut headers = headers(&[(header::AUTHORIZATION, "Bearer tg_team")]);
        let client = keys.admit(&mut headers, None).unwrap().unwrap();
        client.may_ask("@cf/a/b").unwrap();
        assert_eq!(client.may_ask("@cf/a/c").unwrap_err().status(), 403);
        client.take_turn(None).map(drop).unwrap();
        tokio::time::advance(Duration::from_secs(40)).await;
        client.take_turn(None).map(drop).unwrap();
        assert_eq!(client.take_turn(None).map(drop).unwrap_err().retry_after(), Some(Duration::from_secs(20)));
        tokio::time::advance(Duration::from_secs(20)).await;
        client.take_turn(None).map(drop).unwrap();
    }

    #[test]
    fn a_set_that_cannot_be_is_told_by_name() {
        let hash = sha256("x");
        assert!(Keys::new(&[Key::new("a", "zz")]).unwrap_err().to_string().contains("keys new"));
        assert!(Keys::new(&[Key::new("a", &hash), Key::new("a", &hash)]).is_err());
    }
}
