//! Web pages are no clients unless they were invited.
//!
//! A browser on the gate's machine reaches its ports, whatever page it shows, and a simple POST needs nobody's leave. So a request
//! that a page sent is refused: it has an `Origin`, or a `Sec-Fetch-Site` that is not `none`; programs send neither. A page whose
//! own name was made to point here (DNS rebinding) sends neither where it only reads, so the `Host` of a request has to be a name
//! that the gate goes by.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{Method, Request};

use super::config::Host;

/// The names that the gate goes by: loopback's own, and those that the config allows.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts(Vec<Host>);

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

// === impl Hosts ===

impl Hosts {
    pub(super) fn new(allowed: &[Host]) -> Self {
        Self(allowed.to_vec())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The name that a request asks for and that is none of ours. One without any was not sent by a browser.
    pub(super) fn strange<B>(&self, request: &Request<B>) -> Option<String> {
        let in_target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
        let in_headers = request.headers().get_all(header::HOST).iter().map(HeaderValue::as_bytes);
        let strange = in_target.into_iter().chain(in_headers).find(|host| !self.has(host))?;
        Some(shown(strange))
    }

    fn has(&self, host: &[u8]) -> bool {
        let Ok(authority) = Authority::try_from(host) else { return false };
        if authority.as_str().contains('@') {
            return false;
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let host = host.strip_suffix('.').unwrap_or(host);
        is_loopback(host) || self.0.iter().any(|allowed| allowed.as_str().eq_ignore_ascii_case(host))
    }
}

/// Names under `.localhost` are the machine's own, too (RFC 6761, 6.3).
fn is_loopback(host: &str) -> bool {
    let name = host.len().checked_sub("localhost".len()).and_then(|before| host.split_at_checked(before));
    let is_localhost = name.is_some_and(|(before, name)| {
        name.eq_ignore_ascii_case("localhost") && (before.is_empty() || before.ends_with('.'))
    });
    is_localhost || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(100).collect()
}

/// The origin of the page that sent a request, or what its browser says of it; `None` for a program's request.
pub(super) fn page(headers: &HeaderMap) -> Option<String> {
    if let Some(origin) = headers.get(header::ORIGIN) {
        return Some(shown(origin.as_bytes()));
    }
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    sites.find(|site| site.as_bytes() != b"none").map(|site| format!("a page ({})", shown(site.as_bytes())))
}

/// Whether another page than our own sent it. A link that a person followed is no such request: what it shows, the page that
/// had the link cannot read.
pub(super) fn is_another_pages<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    if let Some(origin) = headers.get(header::ORIGIN) {
        let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
        let host = request.uri().authority().map(|authority| authority.as_str().as_bytes()).or(host);
        let place = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, place)| place.as_bytes());
        return place.is_none() || host != place || headers.get_all(header::ORIGIN).iter().count() > 1;
    }
    let says = |name: HeaderName, word: &[u8]| headers.get(name).is_some_and(|value| value.as_bytes() == word);
    let is_ours = |site: &HeaderValue| matches!(site.as_bytes(), b"none" | b"same-origin");
    let is_link =
        || request.method() == Method::GET && says(SEC_FETCH_MODE, b"navigate") && says(SEC_FETCH_DEST, b"document");
    !headers.get_all(SEC_FETCH_SITE).iter().all(is_ours) && !is_link()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(pairs: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::get("/");
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn a_name_of_loopbacks_or_an_allowed_one_is_ours() {
        let allowed: Vec<Host> =
            ["gate.internal", "10.0.0.5", "[fd00::1]"].map(|h| Host::try_from(h.to_owned()).unwrap()).to_vec();
        let hosts = Hosts::new(&allowed);
        for (host, is_ours) in [
            ("localhost:9787", true),
            ("LOCALHOST", true),
            ("localhost.:1", true),
            ("app.localhost:9787", true),
            ("127.0.0.1:9787", true),
            ("127.8.8.8", true),
            ("[::1]:9787", true),
            ("[::ffff:127.0.0.1]", true),
            ("Gate.Internal:80", true),
            ("10.0.0.5", true),
            ("[fd00::1]:8787", true),
            ("evil.example", false),
            ("localhost.evil.example:9787", false),
            ("evillocalhost", false),
            ("evil.example@localhost", false),
            ("10.0.0.6", false),
            ("0.0.0.0:9787", false),
            ("not.gate.internal", false),
            ("", false),
        ] {
            assert_eq!(hosts.has(host.as_bytes()), is_ours, "{host}");
        }
        let absolute = Request::get("http://evil.example/").header("host", "localhost").body(()).unwrap();
        assert_eq!(hosts.strange(&absolute), Some("evil.example".into()));
        let twice = Request::get("/").header("host", "localhost").header("host", "evil.example").body(()).unwrap();
        assert_eq!(hosts.strange(&twice), Some("evil.example".into()));
        assert_eq!(hosts.strange(&Request::get("/").body(()).unwrap()), None);
    }

    #[test]
    fn a_pages_request_is_told_from_a_programs() {
        for (pairs, is_a_pages) in [
            (&[][..], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-mode", "cors")], false),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("sec-fetch-site", "same-site")], true),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "")], true),
            (&[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], true),
            (&[("origin", "https://evil.example")], true),
            (&[("origin", "null")], true),
            (&[("origin", "")], true),
        ] {
            assert_eq!(page(request(pairs).headers()).is_some(), is_a_pages, "{pairs:?}");
        }
    }

    #[test]
    fn our_own_page_and_a_link_to_it_are_told_from_another_page() {
        let host = ("host", "localhost:9787");
        let (navigate, document) = (("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"));
        for (pairs, is_anothers) in [
            (&[host][..], false),
            (&[host, ("sec-fetch-site", "same-origin")], false),
            (&[host, ("origin", "http://localhost:9787")], false),
            (&[host, ("origin", "http://localhost:3000")], true),
            (&[host, ("origin", "null")], true),
            (&[host, ("sec-fetch-site", "same-site")], true),
            (&[host, ("sec-fetch-site", "cross-site"), navigate, document], false),
            (&[host, ("sec-fetch-site", "cross-site"), navigate, ("sec-fetch-dest", "iframe")], true),
            (&[host, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")], true),
        ] {
            assert_eq!(is_another_pages(&request(pairs)), is_anothers, "{pairs:?}");
        }
    }
}
