//! Whose call it is, for turns that are fair between callers.

use std::hash::{BuildHasher, RandomState};

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::call::Call;
use crate::headers::{API_KEY, CF_AIG_AUTHORIZATION, X_API_KEY, X_AUTH_KEY};
use crate::peer::Peer;
use crate::receipt::Metadatum;

/// What tells callers apart who have no key of the gate's. A call that lacks it is told apart by its token, else by its
/// address; calls that have neither are one caller's.
///
/// None of these is checked by the gate: a client can make up as many tokens or metadata as it likes, and be as many callers.
/// Only `[[keys]]` and addresses cannot be made up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum FairBy {
    /// `token`: what the client sends as its token or key.
    #[default]
    Token,
    /// `address`: the IP address that it connects from. Behind a proxy that is the proxy's, for all clients: `X-Forwarded-For`
    /// is not read.
    Address,
    /// `metadata.NAME`: an entry of `cf-aig-metadata`, for a service that calls for many users.
    Metadata(String),
}

/// The headers in which clients send their tokens, the usual one first.
const TOKENS: [HeaderName; 5] = [AUTHORIZATION, X_API_KEY, API_KEY, X_AUTH_KEY, CF_AIG_AUTHORIZATION];

/// A caller, as a hash under a secret that is made anew in each process: no token is kept, nor can one be found from it.
pub(super) fn caller(call: &Call, fair_by: &FairBy, hasher: &RandomState) -> u64 {
    if let Some(key) = &call.key {
        return hasher.hash_one(key);
    }
    let address = || call.head.peer.map(|Peer(address)| hasher.hash_one(address.ip()));
    let token = || token(&call.head.headers).map(|token| hasher.hash_one(token));
    match fair_by {
        FairBy::Token => token().or_else(address),
        FairBy::Address => address().or_else(token),
        FairBy::Metadata(name) => metadatum(call, name, hasher).or_else(token).or_else(address),
    }
    .unwrap_or_default()
}

fn token(headers: &HeaderMap) -> Option<&[u8]> {
    TOKENS.iter().find_map(|name| headers.get(name)).map(HeaderValue::as_bytes)
}

fn metadatum(call: &Call, name: &str, hasher: &RandomState) -> Option<u64> {
    call.receipt.read(|facts| {
        let (_, value) = facts.metadata.iter().find(|(key, _)| key == name)?;
        Some(match value {
            Metadatum::String(text) => hasher.hash_one(text),
            other => hasher.hash_one(serde_json::to_string(other).ok()?),
        })
    })
}

// === impl FairBy ===

impl TryFrom<String> for FairBy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "token" => Ok(Self::Token),
            "address" => Ok(Self::Address),
            other => match other.strip_prefix("metadata.").filter(|name| !name.is_empty()) {
                Some(name) => Ok(Self::Metadata(name.to_owned())),
                None => Err(format!("callers cannot be told apart by `{text}`: by token, address or metadata.NAME")),
            },
        }
    }
}

impl From<FairBy> for String {
    fn from(fair_by: FairBy) -> Self {
        match fair_by {
            FairBy::Token => "token".into(),
            FairBy::Address => "address".into(),
            FairBy::Metadata(name) => format!("metadata.{name}"),
        }
    }
}
