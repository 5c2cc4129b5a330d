//! A request, whole, and what it is refused with.

use bytes::Bytes;
use http::{HeaderMap, Response};

use super::encoding::{self, Undone};
use super::fault::{Fault, Trouble};
use super::prompt::NO_JSON;
use crate::body::Body;

/// A larger body is not read.
pub(super) const MAX_BODY: usize = 128 << 20;

/// A request.
pub(super) struct Received {
    pub(super) uri: http::Uri,
    pub(super) method: http::Method,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) id: String,
}

pub(super) enum Refusal {
    Told(Box<Response<Body>>),
    Closed,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        fault.reply("8700d6e7").map_or(Self::Closed, |reply| Self::Told(Box::new(reply)))
    }
}

pub(super) fn error(code: u32) -> Refusal {
    Fault::new(Trouble::Error(code)).into()
}

/// The vendor's error of this code.
pub(super) fn refusal(code: u32) -> Response<Body> {
    Fault::new(Trouble::Error(code)).reply("8700d6e7").unwrap_or_default()
}

impl Received {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn content_type(&self) -> &str {
        self.header("content-type").unwrap_or("")
    }

    pub(super) fn asked_fault(&self) -> Option<Fault> {
        self.header("x-simulate")?.parse().ok()
    }

    /// The body as it was before it was made small for the way.
    pub(super) fn plain_body(&self) -> Result<Bytes, Refusal> {
        match encoding::undo(self.body.clone(), self.header("content-encoding").unwrap_or(""), MAX_BODY) {
            Undone::Body(body) => Ok(body),
            Undone::Unknown => Err(error(415)),
            Undone::Broken => Err(error(NO_JSON)),
            Undone::TooLarge => Err(error(3006)),
        }
    }
}
