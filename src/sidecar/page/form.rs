//! Forms: what one of our own pages sent, and what all of them are made of.

use axum::Form;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;

use super::still::still;

/// A form that one of our own pages sent. The [guard](crate::sidecar::guard) refuses what names another page's origin; what names
/// none was sent by no page at all, and programs have an API of their own.
pub(super) struct Sent<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Sent<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        if !is_of_our_own_page(request.headers()) {
            let why = "This form is for the gate's own pages: /keys and /budgets are there for programs.";
            return Err(problem("Refused", StatusCode::FORBIDDEN, why));
        }
        match Form::<T>::from_request(request, state).await {
            Ok(Form(form)) => Ok(Self(form)),
            Err(why) => Err(problem("Refused", why.status(), &why.body_text())),
        }
    }
}

fn is_of_our_own_page(headers: &HeaderMap) -> bool {
    // That it is ours was looked at by the guard.
    headers.contains_key(header::ORIGIN)
        || headers.get("sec-fetch-site").is_some_and(|site| site.as_bytes() == b"same-origin")
}

/// A page that says why not.
pub(super) fn problem(title: &str, status: StatusCode, why: &str) -> Response {
    (status, still(title, "", html! { section { (trouble(why)) } })).into_response()
}

/// Why something was not done, as a screen reader tells it at once.
pub(super) fn trouble(why: &str) -> Markup {
    html! { p.notice #trouble role="alert" { (why) } }
}

/// A field that may be left empty.
pub(super) fn field(name: &str, label: &str, example: &str, value: &str) -> Markup {
    html! {
        label { span { (label) } input name=(name) value=(value) placeholder=(example) autocomplete="off"; }
    }
}

/// A field that has to be filled in.
pub(super) fn needed(name: &str, label: &str, example: &str, value: &str) -> Markup {
    html! {
        label {
            span { (label) " (needed)" }
            input name=(name) value=(value) placeholder=(example) autocomplete="off" required;
        }
    }
}

/// A moment in UTC.
pub(super) fn moment(name: &str, label: &str, value: &str) -> Markup {
    html! { label { span { (label) " (UTC)" } input type="datetime-local" name=(name) value=(value); } }
}

/// What [`moment`] sends; `None` where it was left empty.
pub(super) fn read_moment(text: &str) -> Result<Option<jiff::Timestamp>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    // With a zone it is a moment as it stands.
    let read = text.parse().or_else(|_| jiff::tz::TimeZone::UTC.to_timestamp(text.parse()?));
    read.map(Some).map_err(|_| format!("{text:?} is no moment: write it like 2026-12-24T18:00"))
}

/// The address of what has this name, beside the page that links to it.
pub(super) fn link(page: &str, name: &str) -> String {
    format!("{page}?name={}", encoded(name))
}

/// As it stands in an address.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// To another page, which is asked for by GET: to load it again sends nothing twice.
pub(super) fn see(address: String) -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, address)]).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_as_a_browser_sends_it() {
        let at = |text: &str| read_moment(text).unwrap().map(|at| at.to_string());
        assert_eq!(at("2026-12-24T18:00").as_deref(), Some("2026-12-24T18:00:00Z"));
        assert_eq!(at("2026-12-24T18:00:00+01:00").as_deref(), Some("2026-12-24T17:00:00Z"));
        assert_eq!(at(" "), None);
        assert!(read_moment("tomorrow").unwrap_err().contains("tomorrow"));
    }

    #[test]
    fn a_form_counts_where_a_page_of_ours_sent_it() {
        for (pairs, is_ours) in [
            (&[][..], false),
            (&[("origin", "http://localhost:9787")], true),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "none")], false),
        ] {
            let pairs = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            assert_eq!(is_of_our_own_page(&HeaderMap::from_iter(pairs)), is_ours);
        }
    }
}
