//! What makes two calls the same: who asks, whom, and for what.

use std::hash::{BuildHasher, Hash, Hasher};

use highway::{HighwayHash, HighwayHasher};
use http::header::{self, HeaderName, HeaderValue};
use serde_json::value::RawValue;

use super::canonical;
use crate::call::Call;
use crate::headers::{CF_AIG_AUTHORIZATION, GATEWAY_ID, X_AUTH_EMAIL, X_AUTH_KEY};

/// A digest of everything an answer depends on, so that no two inputs meet by chance; without the [`Secret`], nor by intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(pub(super) [u8; 32]);

/// What the digests of one cache are keyed with (HighwayHash, 256 bits), so that a client cannot construct two inputs with one
/// digest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Secret(pub(super) [u64; 4]);

/// What is common to all calls of one caller to one model in one form.
#[derive(Clone, Copy)]
pub(super) struct Scope {
    secret: Secret,
    digest: [u8; 32],
}

struct Digest(HighwayHasher);

/// A key is a digest: tables take it as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken;

pub(super) struct TakenHasher(u64);

// === impl Secret ===

impl Secret {
    pub(super) fn random() -> Self {
        // Keyed from the system's randomness, once for each.
        Self(std::array::from_fn(|n| std::hash::RandomState::new().hash_one(n)))
    }

    pub(super) fn of(bytes: [u8; 32]) -> Self {
        let word = |n: usize| bytes[8 * n..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        Self(std::array::from_fn(word))
    }

    fn digest(self) -> Digest {
        Digest(HighwayHasher::new(highway::Key(self.0)))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

// === impl Scope ===

impl Scope {
    /// Account, AI Gateway, form, model and the caller's authorisation: its key's name, or the headers that vouch for it
    /// upstream.
    pub(super) fn of(call: &Call, secret: Secret) -> Self {
        let mut digest = secret.digest();
        digest.add(call.account.as_bytes());
        digest.add(header(call, &GATEWAY_ID));
        digest.add(call.endpoint.label().as_bytes());
        digest.add(call.model.id.as_bytes());
        if let Some(elsewhere) = &call.elsewhere {
            digest.add(elsewhere.gateway.as_bytes());
            digest.add(elsewhere.path.as_bytes());
        }
        match &call.key {
            Some(key) => digest.add(key.as_bytes()),
            None => {
                for name in &[header::AUTHORIZATION, CF_AIG_AUTHORIZATION, X_AUTH_EMAIL, X_AUTH_KEY] {
                    digest.add(header(call, name));
                }
            }
        }
        digest.add(if call.key.is_some() { b"key" } else { b"token" });
        Self { secret, digest: digest.finish() }
    }

    /// The whole call, or the name that its caller gave it.
    pub(super) fn call(&self, call: &Call) -> Key {
        let mut digest = self.begin(if call.stream { b"stream" } else { b"whole" });
        digest.add(call.head.query.as_deref().unwrap_or("").as_bytes());
        match &call.options.cache_key {
            Some(name) => {
                digest.add(b"named");
                digest.add(name.as_bytes());
            }
            None => {
                digest.add(b"body");
                // JSON in its canonical form, anything else as it is.
                match canonical::json(call.plain_body()) {
                    Some(text) => digest.add(&text),
                    None => digest.add(call.plain_body()),
                }
            }
        }
        Key(digest.finish())
    }

    /// All that a question has to have in common with another one: `rest` is what its body says beside it, `embedder` the model
    /// whose vectors are compared.
    pub(super) fn group(&self, call: &Call, rest: &[u8], embedder: &str) -> Key {
        let mut digest = self.begin(if call.stream { b"similar stream" } else { b"similar" });
        digest.add(call.head.query.as_deref().unwrap_or("").as_bytes());
        digest.add(embedder.as_bytes());
        digest.add(rest);
        Key(digest.finish())
    }

    /// One text of an embeddings call; `rest` is what else its body says.
    pub(super) fn item(&self, rest: &[u8], text: &RawValue) -> Key {
        let mut digest = self.begin(b"item");
        digest.add(rest);
        digest.add(text.get().as_bytes());
        Key(digest.finish())
    }

    fn begin(&self, kind: &[u8]) -> Digest {
        let mut digest = self.secret.digest();
        digest.add(&self.digest);
        digest.add(kind);
        digest
    }
}

fn header<'a>(call: &'a Call, name: &HeaderName) -> &'a [u8] {
    call.head.headers.get(name).map_or(b"", HeaderValue::as_bytes)
}

// === impl Digest ===

impl Digest {
    /// Each part is told apart from the next by its length.
    fn add(&mut self, part: &[u8]) {
        self.0.append(&(part.len() as u64).to_le_bytes());
        self.0.append(part);
    }

    fn finish(self) -> [u8; 32] {
        let words = self.0.finalize256();
        let mut bytes = [0; 32];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

// === impl Key, Taken ===

impl Key {
    /// The same call's before this upstream.
    pub(super) fn before(self, secret: Secret, upstream: &str) -> [u8; 32] {
        let mut digest = secret.digest();
        digest.add(upstream.as_bytes());
        digest.add(&self.0);
        digest.finish()
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl BuildHasher for Taken {
    type Hasher = TakenHasher;

    fn build_hasher(&self) -> TakenHasher {
        TakenHasher(0)
    }
}

impl Hasher for TakenHasher {
    fn write(&mut self, bytes: &[u8]) {
        // Keys come as one word; whatever else might is still told apart.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
