//! Pages that stand still, and how every page is sent.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::document::{document, styled};

/// Scripts and styles are ours alone; nothing is sent anywhere. Bars and colours are set in `style` attributes.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; \
    img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

pub(super) const HTML: &str = "text/html; charset=utf-8";

/// A page that stands still. `up` leads to the folder of the style.
pub(super) fn still(title: &str, up: &str, main: Markup) -> Response {
    let body = html! {
        header {
            h1 { (title) }
            nav.quiet aria-label="Pages" {
                a href=(format!("{up}../")) { "live" } " · " a href=(format!("{up}log")) { "log" } " · "
                a href=(format!("{up}keys")) { "keys" } " · " a href=(format!("{up}budgets")) { "budgets" } " · "
                a href=(format!("{up}config")) { "config" }
            }
        }
        main { (main) }
    };
    sent(HTML, document(&format!("{title} · Tollgate"), &styled(&format!("{up}style.css")), &body))
}

pub(super) fn sent(kind: &'static str, text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // A form's request has its page's origin by this, and `null` where nothing is told of the page at all.
        (header::REFERRER_POLICY, "same-origin"),
    ];
    (headers, text).into_response()
}
