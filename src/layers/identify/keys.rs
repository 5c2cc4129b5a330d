//! Clients' own keys: who may come in, how often, and to which models.
//!
//! A key is kept as its SHA-256, is found by that, and is compared in constant time. It comes as `Authorization: Bearer` or
//! `cf-aig-authorization: Bearer`, as Anthropic's clients send it (`x-api-key`) or as Azure's do (`api-key`), and goes no further
//! than the door. A client whose certificate a server has verified ([`Certified`]) is the key of that name.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

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
}

/// All keys, in the order of their hashes. Without any, none is asked for.
#[derive(Clone, Default)]
pub struct Keys(Arc<[Known]>);

struct Known {
    name: Arc<str>,
    hash: [u8; 32],
    models: Arc<[String]>,
    requests_per_minute: Option<NonZeroU32>,
    /// When the requests of the last minute came, oldest first; at most `requests_per_minute`.
    recent: Mutex<VecDeque<Instant>>,
}

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

const MINUTE: Duration = Duration::from_secs(60);

// === impl Key ===

impl Key {
    /// From its name and its SHA-256 in hexadecimal digits; for all models, as often as they like.
    pub fn new(name: impl Into<String>, sha256: impl Into<String>) -> Self {
        Self { name: name.into(), sha256: sha256.into(), models: Vec::new(), requests_per_minute: None }
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
    fn head(&self) -> u64 {
        head(&self.hash)
    }
}

// === impl Keys ===

impl Keys {
    /// Checks them all.
    pub fn new(keys: &[Key]) -> Result<Self, KeyError> {
        let known = keys.iter().enumerate().map(|(place, key)| {
            let wrong = |why| KeyError { name: key.name.clone(), why };
            if key.name.is_empty() || key.name.len() > 64 {
                return Err(wrong("needs a name of at most 64 bytes"));
            }
            if keys[..place].iter().any(|other| other.name == key.name) {
                return Err(wrong("is there twice; give each a name of its own"));
            }
            let hash = from_hex(&key.sha256);
            let hash = hash.ok_or_else(|| {
                wrong("has no SHA-256 of 64 hexadecimal digits in `sha256`; `tollgate keys new NAME` makes one")
            })?;
            Ok(Known {
                name: key.name.as_str().into(),
                hash,
                models: key.models.clone().into(),
                requests_per_minute: key.requests_per_minute,
                recent: Mutex::default(),
            })
        });
        let mut known = known.collect::<Result<Vec<_>, _>>()?;
        known.sort_unstable_by_key(Known::head);
        Ok(Self(known.into()))
    }

    /// True where no key is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
        let mut was_sent = false;
        for name in [CF_AIG_AUTHORIZATION, header::AUTHORIZATION, X_API_KEY, API_KEY] {
            let is_bare = name == X_API_KEY || name == API_KEY;
            let mut has_key = false;
            for value in headers.get_all(&name) {
                let bare = value.as_bytes().trim_ascii();
                let token = token(value).or_else(|| Some(bare).filter(|_| is_bare));
                // Where `Bearer` is missing it opens nothing, and goes no further all the same.
                let known = self.find(token.unwrap_or(bare));
                was_sent |= token.is_some();
                client = client.or(known.filter(|_| token.is_some()).map(Client));
                has_key |= known.is_some();
            }
            if has_key {
                headers.remove(&name);
            }
        }
        // A known key says who it is, or else the certificate does: many clients send some token whatever they have.
        let client = client.or_else(|| certified.and_then(|Certified(name)| self.named(name)));
        client.map(Some).ok_or_else(|| {
            let what = if was_sent { "this key is not known here" } else { "no key" };
            Error::Unauthorized(format!(
                "{what}: send one of the gate's keys as `Authorization: Bearer KEY`, `cf-aig-authorization: Bearer KEY`, or \
                 `x-api-key: KEY`"
            ))
        })
    }

    fn named(&self, name: &str) -> Option<Client<'_>> {
        self.0.iter().find(|known| *known.name == *name).map(Client)
    }

    /// What is looked up is the SHA-256 of what was sent, by its first bytes: how long that takes may tell of a hash, of which
    /// nobody gets back to the key. The hashes themselves are compared in constant time.
    fn find(&self, token: &[u8]) -> Option<&Known> {
        let hash = hash(token);
        let first = self.0.partition_point(|known| known.head() < head(&hash));
        let alike = self.0[first..].iter().take_while(|known| known.head() == head(&hash));
        alike.filter(|known| known.hash.ct_eq(&hash).into()).last()
    }
}

fn token(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|known| &known.name)).finish()
    }
}

// === impl Client ===

impl Client<'_> {
    pub(super) fn name(self) -> Arc<str> {
        self.0.name.clone()
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
    pub(super) fn take_turn(self) -> Result<(), Error> {
        let Some(limit) = self.0.requests_per_minute else { return Ok(()) };
        let now = Instant::now();
        let mut recent = self.0.recent.lock();
        while recent.front().is_some_and(|first| now.duration_since(*first) >= MINUTE) {
            recent.pop_front();
        }
        if recent.len() < limit.get() as usize {
            recent.push_back(now);
            return Ok(());
        }
        let oldest = recent.front().map_or(Duration::ZERO, |first| now.duration_since(*first));
        Err(Error::RateLimited {
            what: format!("the key {:?} has had its {limit} requests of this minute", self.0.name),
            retry_after: MINUTE.saturating_sub(oldest),
            limit: None,
        })
    }
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
        client.take_turn().unwrap();
        tokio::time::advance(Duration::from_secs(40)).await;
        client.take_turn().unwrap();
        assert_eq!(client.take_turn().unwrap_err().retry_after(), Some(Duration::from_secs(20)));
        tokio::time::advance(Duration::from_secs(20)).await;
        client.take_turn().unwrap();
    }

    #[test]
    fn a_set_that_cannot_be_is_told_by_name() {
        let hash = sha256("x");
        assert!(Keys::new(&[Key::new("a", "zz")]).unwrap_err().to_string().contains("keys new"));
        assert!(Keys::new(&[Key::new("a", &hash), Key::new("a", &hash)]).is_err());
    }
}
