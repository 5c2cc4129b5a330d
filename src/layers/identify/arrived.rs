//! A request for a model, before its body is here.

use std::mem;

use bytes::Bytes;
use http::header::HeaderMap;
use http::uri::Uri;
use http::{Method, request};

use super::route::Target;
use crate::call::Elsewhere;
use crate::openai;
use crate::peer::{Certified, Peer};
use crate::receipt::ReadBy;

/// What is known of it by its head.
pub(super) struct Arrived<'a> {
    pub(super) target: Target<'a>,
    /// Where the vendor has no such route.
    pub(super) route: Option<openai::Route>,
    /// Where it goes to another provider.
    pub(super) elsewhere: Option<Elsewhere>,
    /// The model's name and the caller's for it, where the gate's own route has read both.
    pub(super) own: Option<String>,
    pub(super) asked: Option<String>,
    pub(super) method: Method,
    pub(super) query: Option<&'a str>,
    pub(super) headers: HeaderMap,
    pub(super) peer: Option<Peer>,
    pub(super) certified: Option<Certified>,
    pub(super) reader: Option<ReadBy>,
    /// A step of the universal endpoint, whose body is here.
    pub(super) body: Option<Bytes>,
    /// It came to be estimated, and not to be made.
    pub(super) is_dry: bool,
}

// === impl Arrived ===

impl<'a> Arrived<'a> {
    pub(super) fn of(
        target: Target<'a>,
        route: Option<openai::Route>,
        uri: &'a Uri,
        head: &mut request::Parts,
    ) -> Self {
        Self {
            target,
            route,
            elsewhere: None,
            own: None,
            asked: None,
            method: mem::take(&mut head.method),
            query: uri.query(),
            headers: mem::take(&mut head.headers),
            peer: head.extensions.get().copied(),
            certified: head.extensions.remove(),
            reader: head.extensions.remove(),
            body: None,
            is_dry: false,
        }
    }
}
