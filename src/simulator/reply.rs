//! Replies in HTTP: JSON, bytes and streams of events, as trouble leaves them.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use serde_json::Value;

use super::event::Event;
use super::fault::{Fault, Trouble};
use super::stream;
use crate::body::Body;

pub(super) fn json_reply(json: &Value) -> Response<Body> {
    bytes_reply("application/json", json.to_string().into(), None)
}

pub(super) fn event_reply(events: Vec<Event>, pace: Duration, fault: Option<Fault>) -> Response<Body> {
    let pieces = fault.map(|fault| fault.framing).unwrap_or_default().write(&events);
    let mut reply = Response::new(stream::body(pieces, pace, fault));
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    reply
}

pub(super) fn bytes_reply(kind: &'static str, bytes: Bytes, fault: Option<Fault>) -> Response<Body> {
    let dies = matches!(fault.map(|fault| fault.trouble), Some(Trouble::DieMid | Trouble::StallMid));
    let length = bytes.len();
    let mut reply = Response::new(if dies {
        let half = bytes.slice(..length / 2);
        stream::body(vec![half, bytes.slice(length / 2..)], Duration::ZERO, fault)
    } else {
        Body::from(bytes)
    });
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    reply
}
