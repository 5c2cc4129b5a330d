//! Who may look at the admin port's page, log, budgets and cache.
//!
//! With `admin_token` set, who knows it: as `Authorization: Bearer`, or as the password that a browser asks for. Metrics and
//! health stay open, for they say nothing of any one call. On a loopback address a request must also name that address or
//! `localhost` as its host: a page of somebody else's in the operator's browser could else have its own name point here.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header, uri::Authority};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A secret of the config's. It is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Secret(String);

/// What a request to the admin port has to show.
#[derive(Clone)]
pub(super) struct Guard {
    token: Option<[u8; 32]>,
    is_loopback: bool,
}

// === impl Secret ===

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self(secret)
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(hidden)")
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

// === impl Guard ===

impl Guard {
    pub(super) fn new(token: Option<&Secret>, address: SocketAddr) -> Self {
        let token = token.filter(|token| !token.0.is_empty()).map(|token| hash(token.0.as_bytes()));
        Self { token, is_loopback: address.ip().is_loopback() }
    }

    fn refusal(&self, headers: &HeaderMap) -> Option<Response> {
        if self.is_loopback && !headers.get(header::HOST).is_none_or(|host| is_local(host.as_bytes())) {
            let why = "the admin port is on a loopback address: ask for it by that address or as localhost\n";
            return Some((StatusCode::MISDIRECTED_REQUEST, why).into_response());
        }
        let token = self.token?;
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(secret);
        if shown.is_some_and(|shown| hash(&shown).ct_eq(&token).into()) {
            return None;
        }
        let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"Tollgate: any name, and the admin_token as password\"")];
        let why = "this needs the admin_token: send it as `Authorization: Bearer`, or as the password\n";
        Some((StatusCode::UNAUTHORIZED, ask, why).into_response())
    }
}

fn hash(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// What stands behind `Bearer`, or behind the colon of `Basic`.
fn secret(authorization: &str) -> Option<Vec<u8>> {
    let (scheme, rest) = authorization.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().as_bytes().to_vec());
    }
    let pair = STANDARD.decode(rest.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

fn is_local(host: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(host) else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok()
}

pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.refusal(request.headers()) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(guard: &Guard, headers: &[(header::HeaderName, &str)]) -> Option<u16> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        guard.refusal(&headers).map(|refusal| refusal.status().as_u16())
    }

    #[test]
    fn who_knows_the_token_may_look() {
        let guard = Guard::new(Some(&Secret("open sesame".into())), ([0, 0, 0, 0], 1).into());
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for (authorization, refused) in [
            ("Bearer open sesame", None),
            ("bearer open sesame", None),
            (&*basic("anyone:open sesame"), None),
            (&*basic("open sesame"), Some(401)),
            (&*basic(":"), Some(401)),
            ("Bearer open", Some(401)),
            ("Bearer ", Some(401)),
            ("open sesame", Some(401)),
        ] {
            assert_eq!(status(&guard, &[(header::AUTHORIZATION, authorization)]), refused, "{authorization}");
        }
        assert_eq!(status(&guard, &[]), Some(401));
        assert_eq!(status(&Guard::new(None, ([0, 0, 0, 0], 1).into()), &[]), None);
    }

    #[test]
    fn a_strangers_name_for_a_loopback_address_opens_nothing() {
        let guard = Guard::new(None, ([127, 0, 0, 1], 1).into());
        for (host, refused) in [
            ("localhost:9787", None),
            ("127.0.0.1:9787", None),
            ("[::1]:9787", None),
            ("evil.example", Some(421)),
            ("localhost.evil.example:9787", Some(421)),
        ] {
            assert_eq!(status(&guard, &[(header::HOST, host)]), refused, "{host}");
        }
    }
}
