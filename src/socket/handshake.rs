//! What a WebSocket's handshake asks, and how it is answered.
//!
//! The client's key goes to the vendor, and the vendor's answer to it comes back: the two shake hands, and the gate reads along.
//! Over HTTP/2 (RFC 8441) there is no key, so the gate shakes the vendor's hand itself.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, request};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Connected;
use crate::Error;
use crate::headers::CF_AIG_AUTHORIZATION;
use crate::layers::Reply;

/// A client's half of it.
pub(crate) struct Handshake {
    pub(crate) client: OnUpgrade,
    pub(crate) connected: Option<Connected>,
    /// The subprotocol that the client is told where the vendor chooses none: browsers want one of those they offered.
    offered: Option<HeaderValue>,
    is_http2: bool,
}

/// What a browser puts before its token, for it can send no headers.
const TOKEN_PROTOCOL: &str = "cf-aig-authorization.";

const WEBSOCKET: &str = "websocket";

/// Whether a request asks to become a WebSocket.
pub(crate) fn is_upgrade(head: &request::Parts) -> bool {
    match head.method {
        Method::GET => {
            let asked = head.headers.get_all(header::UPGRADE).iter().filter_map(|value| value.to_str().ok());
            asked.flat_map(|value| value.split(',')).any(|name| name.trim().eq_ignore_ascii_case(WEBSOCKET))
        }
        Method::CONNECT => {
            head.extensions.get::<Protocol>().is_some_and(|asked| asked.as_str().eq_ignore_ascii_case(WEBSOCKET))
        }
        _ => false,
    }
}

/// Takes a token out of the subprotocols and puts it where tokens are looked for. Gives the first protocol as it was offered.
pub(crate) fn take_protocol_token(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let lists: Vec<_> = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().cloned().collect();
    let names = lists.iter().filter_map(|list| list.to_str().ok()).flat_map(|list| list.split(',')).map(str::trim);
    let (mut first, mut others, mut token) = (None, Vec::new(), None);
    for name in names.filter(|name| !name.is_empty()) {
        first = first.or(Some(name));
        match name.get(..TOKEN_PROTOCOL.len()) {
            Some(begin) if begin.eq_ignore_ascii_case(TOKEN_PROTOCOL) => token = Some(&name[TOKEN_PROTOCOL.len()..]),
            _ => others.push(name),
        }
    }
    let value = |text: &str| {
        let mut value = HeaderValue::from_str(text).ok()?;
        value.set_sensitive(true);
        Some(value)
    };
    let offered = first.and_then(value);
    if let Some(token) = token.and_then(|token| value(&format!("Bearer {token}")))
        && !headers.contains_key(CF_AIG_AUTHORIZATION)
    {
        headers.insert(CF_AIG_AUTHORIZATION, token);
    }
    let others = value(&others.join(", ")).filter(|_| !others.is_empty());
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    headers.extend(others.map(|others| (header::SEC_WEBSOCKET_PROTOCOL, others)));
    offered
}

impl Handshake {
    /// Takes the client's half out of a request's head, and leaves the headers as they go to the vendor.
    pub(crate) fn take(head: &mut request::Parts, offered: Option<HeaderValue>) -> Result<Self, Error> {
        let wrong = |why: &str| Error::Malformed(format!("this is no WebSocket handshake: {why}"));
        let connected = head.extensions.remove::<Connected>();
        let is_http2 = head.method == Method::CONNECT;
        let headers = &mut head.headers;
        if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(wrong("send Sec-WebSocket-Version: 13"));
        }
        if is_http2 {
            let key = HeaderValue::from_str(&generate_key()).map_err(|_| wrong("no key could be made"))?;
            headers.insert(header::SEC_WEBSOCKET_KEY, key);
        }
        if headers.get_all(header::SEC_WEBSOCKET_KEY).iter().count() != 1 {
            return Err(wrong("send one Sec-WebSocket-Key"));
        }
        // What is compressed could not be counted.
        headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
        head.method = Method::GET;
        let client = head.extensions.remove::<OnUpgrade>();
        let client = client.ok_or_else(|| {
            wrong("its connection cannot be upgraded here; use HTTP/1.1, or a server that takes upgrades")
        })?;
        Ok(Self { client, connected, offered, is_http2 })
    }

    /// Puts the client's answer in order; `key` is what the vendor was sent.
    pub(crate) fn answer(&self, reply: &mut Reply, key: Option<&HeaderValue>) -> Result<(), Error> {
        let wrong = |why: &str| Error::Unreachable { host: "upstream".into(), why: why.into(), was_sent: false };
        let headers = reply.headers_mut();
        let accepted = key.map(|key| derive_accept_key(key.as_bytes()));
        if headers.get(header::SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes)
            != accepted.as_deref().map(str::as_bytes)
        {
            return Err(wrong("it accepted a WebSocket and did not answer the key"));
        }
        if headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS) {
            return Err(wrong("it agreed on an extension that nobody offered"));
        }
        if let (Some(offered), false) = (&self.offered, headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL)) {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, offered.clone());
        }
        if self.is_http2 {
            headers.remove(header::SEC_WEBSOCKET_ACCEPT);
            *reply.status_mut() = StatusCode::OK;
        } else {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_among_the_subprotocols_is_taken_for_one_in_a_header() {
        for (sent, token, left) in [
            ("cf-aig-authorization.s3cret", Some("Bearer s3cret"), None),
            ("a, cf-aig-authorization.s3cret,b", Some("Bearer s3cret"), Some("a, b")),
            ("a,b", None, Some("a, b")),
            ("", None, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, sent.parse().unwrap());
            let offered = take_protocol_token(&mut headers);
            let of = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap());
            assert_eq!((of("cf-aig-authorization"), of("sec-websocket-protocol")), (token, left), "{sent}");
            assert_eq!(offered.is_some(), !sent.is_empty());
        }
    }
}
