//! Who may look at the admin port, and at its page, log, budgets and cache.
//!
//! What another web page sent is refused on all of it: see [`browsers`](super::browsers). Over loopback a request must name
//! loopback, or one of `allowed_hosts`, as its host: somebody else's page in the operator's browser could else have its own name
//! point here. Metrics and health ask for no more, for they say nothing of any one call.
//!
//! The rest needs the `admin_token`: as `Authorization: Bearer`, or as the password that a browser asks for. Without one it is
//! open over loopback alone, whatever address is bound: what counts is by which road a request came. Guesses are
//! slowed.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::browsers::{Hosts, is_another_pages};
use super::config::Config;
use super::guesses::Guesses;
use crate::peer::Peer;

/// What a request to the admin port has to show.
#[derive(Clone)]
pub(super) struct Guard(Arc<ArcSwap<Terms>>);

struct Terms {
    token: Option<[u8; 32]>,
    hosts: Hosts,
    /// Without a token, anybody may look.
    is_open: bool,
    guesses: Arc<Guesses>,
}

/// Wrong tokens that are looked at, a minute and address.
const GUESSES_A_MINUTE: NonZeroU32 = NonZeroU32::new(10).unwrap();

// === impl Guard ===

impl Guard {
    pub(super) fn new(config: &Config) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Terms::new(config, Arc::new(Guesses::new(GUESSES_A_MINUTE))))))
    }

    /// Asks as this config has it from here on. Who was held back for guesses still is.
    pub(super) fn hold_to(&self, config: &Config) {
        self.0.store(Arc::new(Terms::new(config, self.0.load().guesses.clone())));
    }
}

impl Terms {
    fn new(config: &Config, guesses: Arc<Guesses>) -> Self {
        Self {
            token: config.admin_token.as_ref().map(|token| hash(token.reveal().as_bytes())),
            hosts: Hosts::new(&config.allowed_hosts),
            // Who has a certificate of the client_ca's is known.
            is_open: config.open || config.admin_tls.knows_clients(),
            guesses,
        }
    }

    /// Why nothing at all is shown.
    fn road_refusal(&self, from: IpAddr, request: &Request) -> Option<Response> {
        if from.is_loopback()
            && let Some(host) = self.hosts.strange(request)
        {
            let why = format!(
                "the admin port is asked for as {host:?} over loopback: use its address or localhost, or add the name to \
                 allowed_hosts\n"
            );
            return Some((StatusCode::MISDIRECTED_REQUEST, why).into_response());
        }
        let why = "another web page sent this request, and the admin port answers to none but its own\n";
        is_another_pages(request).then(|| (StatusCode::FORBIDDEN, why).into_response())
    }

    /// Why what tells of single calls is not shown.
    fn token_refusal(&self, from: IpAddr, headers: &HeaderMap) -> Option<Response> {
        let Some(token) = self.token else {
            let why = "this came from beyond loopback, and no admin_token is set: set one (TOLLGATE_ADMIN_TOKEN)\n";
            let may_look = self.is_open || from.is_loopback();
            return (!may_look).then(|| (StatusCode::FORBIDDEN, why).into_response());
        };
        let Some(shown) = headers.get(header::AUTHORIZATION).and_then(|value| secret(value.to_str().ok()?)) else {
            return Some(unauthorized());
        };
        let digest = self.guesses.digest(&shown);
        if let Some(wait) = self.guesses.hold(from, digest) {
            let after = [(header::RETRY_AFTER, wait.as_secs() + 1)];
            let why = "too many wrong tokens came from this address: wait, then try again\n";
            return Some((StatusCode::TOO_MANY_REQUESTS, after, why).into_response());
        }
        if hash(&shown).ct_eq(&token).into() {
            self.guesses.right(from, digest);
            return None;
        }
        self.guesses.wrong(from);
        Some(unauthorized())
    }
}

fn unauthorized() -> Response {
    let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"Tollgate: any name, and the admin_token as password\"")];
    let why = "this needs the admin_token: send it as `Authorization: Bearer`, or as the password\n";
    (StatusCode::UNAUTHORIZED, ask, why).into_response()
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

/// For the whole admin port.
pub(super) async fn check_road(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.0.load().road_refusal(peer(&request), &request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

/// For what tells of single calls.
pub(super) async fn check_token(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.0.load().token_refusal(peer(&request), request.headers()) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

/// Who connected; where that is not to be had, nobody who is trusted. Only this machine connects from a loopback address.
fn peer(request: &Request) -> IpAddr {
    request.extensions().get().map_or(Ipv4Addr::UNSPECIFIED.into(), |Peer(peer)| peer.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn guard(text: &str) -> Arc<Terms> {
        Guard::new(&Config::parse(text, "t").unwrap()).0.load_full()
    }

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const BEYOND: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

    fn with_token(guard: &Terms, from: IpAddr, authorization: &str) -> Option<u16> {
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, authorization.parse().unwrap())]);
        guard.token_refusal(from, &headers).map(|refusal| refusal.status().as_u16())
    }

    #[test]
    fn who_knows_the_token_may_look() {
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
            let guard = guard("admin_token = \"open sesame\"");
            assert_eq!(with_token(&guard, LOOPBACK, authorization), refused, "{authorization}");
            let refused = guard.token_refusal(LOOPBACK, &HeaderMap::new()).map(|r| r.status());
            assert_eq!(refused, Some(StatusCode::UNAUTHORIZED));
        }
    }

    #[test]
    fn without_a_token_the_road_decides_and_not_the_address_that_is_bound() {
        let status = |guard: &Terms, from| guard.token_refusal(from, &HeaderMap::new()).map(|r| r.status().as_u16());
        let (closed, open) = (guard("admin = \"0.0.0.0:1\""), guard("open = true"));
        for (from, refused) in [(LOOPBACK, None), (BEYOND, Some(403))] {
            assert_eq!(status(&closed, from), refused, "from {from}");
            assert_eq!(status(&open, from), None);
        }
    }

    #[test]
    fn guesses_of_the_token_are_slowed_and_lock_nobody_out_who_was_in() {
        let guard = guard("admin_token = \"open sesame\"");
        let (here, there) = (LOOPBACK, BEYOND);
        assert_eq!(with_token(&guard, here, "Bearer open sesame"), None);
        let told: Vec<_> = (0..1000).map(|n| with_token(&guard, here, &format!("Bearer {n}")).unwrap()).collect();
        assert!(told.contains(&429), "no guess was turned away unlooked at");
        assert_eq!(with_token(&guard, here, "Bearer open sesame"), None, "who was in before");
        assert_eq!(with_token(&guard, there, "Bearer open sesame"), None, "another address");
    }

    #[test]
    fn a_strangers_name_or_page_opens_nothing() {
        let guard = guard("allowed_hosts = [\"gate.internal\"]");
        let status = |from, pairs: &[(&str, &str)]| {
            let mut request = Request::get("/metrics");
            for (name, value) in pairs {
                request = request.header(*name, *value);
            }
            guard.road_refusal(from, &request.body(Body::empty()).unwrap()).map(|r| r.status().as_u16())
        };
        for (from, pairs, refused) in [
            (LOOPBACK, &[("host", "localhost:9787")][..], None),
            (LOOPBACK, &[("host", "gate.internal")], None),
            (LOOPBACK, &[("host", "evil.example")], Some(421)),
            (LOOPBACK, &[("host", "localhost:9787"), ("origin", "http://localhost:3000")], Some(403)),
            (BEYOND, &[("host", "tollgate:9787")], None),
            (BEYOND, &[("host", "tollgate:9787"), ("sec-fetch-site", "cross-site")], Some(403)),
        ] {
            assert_eq!(status(from, pairs), refused, "{pairs:?}");
        }
    }
}
