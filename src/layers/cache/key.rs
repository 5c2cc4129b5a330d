//! What makes two calls the same: who asks, whom, and for what.

use bytes::Bytes;
use http::header;
use serde_json::value::RawValue;

use super::canonical;
use crate::call::Call;

/// A digest of everything an answer depends on (BLAKE3), so that no two inputs meet by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(pub(super) [u8; 32]);

/// What is common to all calls of one caller to one model in one form.
#[derive(Clone)]
pub(super) struct Scope(blake3::Hasher);

impl Scope {
    /// Account, form, model and the caller's authorisation: its key's name, or the headers that vouch for it upstream.
    pub(super) fn of(call: &Call) -> Self {
        let mut scope = Self(blake3::Hasher::new());
        scope.add(call.account.as_bytes());
        scope.add(call.endpoint.label().as_bytes());
        scope.add(call.model.id.as_bytes());
        match &call.key {
            Some(key) => scope.add(key.as_bytes()),
            None => {
                for name in [header::AUTHORIZATION.as_str(), "cf-aig-authorization"] {
                    scope.add(call.head.headers.get(name).map_or(b"".as_slice(), |value| value.as_bytes()));
                }
            }
        }
        scope.add(if call.key.is_some() { b"key" } else { b"token" });
        scope
    }

    /// The whole call, or the name that its caller gave it.
    pub(super) fn call(&self, call: &Call) -> Key {
        let mut scope = self.clone();
        scope.add(if call.stream { b"stream" } else { b"whole" });
        scope.add(call.head.query.as_deref().unwrap_or("").as_bytes());
        match &call.options.cache_key {
            Some(name) => {
                scope.add(b"named");
                scope.add(name.as_bytes());
            }
            None => {
                scope.add(b"body");
                scope.add(&body(call));
            }
        }
        scope.key()
    }

    /// One text of an embeddings call; `rest` is what else its body says.
    pub(super) fn item(&self, rest: &str, text: &RawValue) -> Key {
        let mut scope = self.clone();
        scope.add(b"item");
        scope.add(rest.as_bytes());
        scope.add(text.get().as_bytes());
        scope.key()
    }

    /// Each part is told apart from the next by its length.
    fn add(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    fn key(self) -> Key {
        Key(self.0.finalize().into())
    }
}

/// JSON in its canonical form, anything else as it is.
fn body(call: &Call) -> Bytes {
    canonical::json(&call.body).map_or_else(|| call.body.clone(), Bytes::from)
}
