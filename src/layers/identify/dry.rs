//! A dry run: what a call would cost and meet, without a call.
//!
//! Asked for by `x-tollgate-dry-run: true` on a call's own route, or by `/estimate` before the route; `/estimate` alone takes the
//! native form with `model` in the body. It goes through the door as the call would: key, account, model and body are looked at
//! in the same way and refused for the same reasons. It has no receipt that anybody reads, so it is in no metric and no record.

use std::sync::Arc;

use http::Response;
use http::header::{self, HeaderValue};
use http_body::Body as HttpBody;

use super::arrived::Arrived;
use super::gate_headers::GateHeaders;
use super::identified::identify;
use super::path::CanonicalPath;
use super::refusal::{Refusal, refuse};
use super::reply::ReplyBody;
use super::route::{Route, Target};
use super::settings::Settings;
use crate::body::{Body, BoxError};
use crate::endpoint::Endpoint;
use crate::openai;
use crate::preview;
use crate::receipt::Receipt;

/// What a path below `/estimate` is an estimate of.
pub(super) struct Estimated<'a> {
    pub(super) target: Target<'a>,
    pub(super) route: Option<openai::Route>,
}

const ESTIMATE: &str = "/estimate";

impl<'a> Estimated<'a> {
    pub(super) fn of(path: &'a str) -> Option<Self> {
        let rest = path.strip_prefix(ESTIMATE)?;
        if rest.is_empty() {
            let target = Target { account: None, endpoint: Endpoint::Run, model: None };
            return Some(Self { target, route: None });
        }
        // What is below was decoded with the whole, and must have one reading only.
        CanonicalPath::read(rest).ok().filter(CanonicalPath::is_plain)?;
        if let Some(route) = openai::Route::of(rest) {
            let target = Target { account: None, endpoint: route.endpoint(), model: None };
            return Some(Self { target, route: Some(route) });
        }
        match Route::of(rest) {
            Route::Call(target) => Some(Self { target, route: None }),
            _ => None,
        }
    }
}

pub(super) async fn answer<B>(
    settings: &Settings,
    arrived: Arrived<'_>,
    gate_headers: GateHeaders,
    body: B,
    refusal: Refusal,
) -> Response<ReplyBody>
where
    B: HttpBody,
    B::Error: Into<BoxError>,
{
    let receipt = Receipt::open(Arc::new([]), settings.catalogue.nameless(arrived.target.endpoint.guess()));
    match identify(settings, arrived, Ok(gate_headers), body, &receipt).await {
        Ok(call) => {
            let ahead = settings.ahead.as_ref().map(|ahead| ahead.foresee(&call));
            let asked = receipt.read(|facts| facts.asked_as.clone());
            let asked = asked.unwrap_or_else(|| call.model.id.clone());
            told(preview::told(&call, &asked, ahead.as_ref()))
        }
        Err(error) => refuse(error, refusal.form),
    }
}

fn told(json: String) -> Response<ReplyBody> {
    let mut reply = Response::new(ReplyBody::unmetered(Body::from(json)));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-tollgate-dry-run", HeaderValue::from_static("true"));
    reply
}
