//! Which form a body has, and what it asks for.

use super::form;
use super::json;
use super::media::{self, MediaKind};
use super::reading::Reading;
use super::scope::Totals;
use crate::Error;
use crate::call::{Ask, Endpoint};
use crate::headers::is_json;
use crate::json::Broken;

/// What a body of this form asks for, for an estimate without a call.
pub fn measure(body: &[u8], content_type: &str, endpoint: Endpoint) -> Result<Ask, Error> {
    let reading = read(body, content_type, endpoint);
    match reading.broken {
        Some(broken) => Err(malformed(&broken, body)),
        None => Ok(reading.ask),
    }
}

pub(super) fn read(body: &[u8], content_type: &str, endpoint: Endpoint) -> Reading {
    let begins = |with: &str| content_type.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    if endpoint.is_native() && begins("multipart/form-data") {
        return form::read(body, content_type);
    }
    let is_media = begins("image/") || begins("audio/") || begins("video/");
    let is_json = is_json(content_type);
    if !endpoint.is_native() || !is_media && (is_json || looks_json(body)) {
        let mut reading = json::read(body, endpoint);
        let is_doubted = reading.broken.is_some() || reading.has_more || reading.ask.reach.is_doubted;
        if is_doubted && endpoint.is_native() && !is_json {
            // It only looked like JSON, as samples of a sound may: nothing that it says need be a limit.
            raw(&mut reading.ask, body);
            reading.or_unread();
        }
        return reading;
    }
    let mut reading = unread(body);
    raw(&mut reading.ask, body);
    reading
}

fn looks_json(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
}

/// A picture or a sound, whichever the model takes: each kind of model is priced by its own measure.
fn raw(ask: &mut Ask, body: &[u8]) {
    if imagesize::image_type(body).is_ok() {
        media::add(ask, MediaKind::Picture, body, body.len() as u64);
        // Samples may begin as a picture does.
        return media::add(ask, MediaKind::Sound, &[], body.len() as u64);
    }
    media::add(ask, MediaKind::Sound, body, body.len() as u64);
}

/// A body of which nothing is known but its length.
pub(super) fn unread(body: &[u8]) -> Reading {
    let mut reading = Reading::default();
    reading.set(Totals::UNREAD);
    let reach = &mut reading.ask.reach;
    // Bytes that are no UTF-8 become characters of three bytes.
    (reach.is_unread, reach.other_text_bytes) = (true, 3 * body.len() as u64);
    reading
}

pub(super) fn malformed(broken: &Broken, body: &[u8]) -> Error {
    Error::Malformed(format!("the body is not the JSON object that this route takes: {}", broken.told(body)))
}

/// `queueRequest=true`, as a parameter of its own; of several each says so.
pub(super) fn asks_for_queue(query: &str) -> bool {
    let decoded = |text| percent_encoding::percent_decode_str(text).decode_utf8_lossy();
    let mut values = query.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name) == "queueRequest").then(|| decoded(value) == "true")
    });
    values.next().is_some_and(|first| first && values.all(|next| next))
}
