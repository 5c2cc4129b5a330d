//! The live page: what is being spent on what, for whoever opens the admin port in a browser.
//!
//! Beside it stand pages of the log, the config, keys and budgets, made of links and forms alone.
//!
//! The page is whole without a script; with one it asks for its changing part every two seconds. Nothing comes from
//! elsewhere, and nothing is kept but the last hour by minutes and today's sums.

mod advised;
mod books;
mod budgets;
pub(crate) mod chart;
pub(crate) mod document;
pub(crate) mod figures;
mod form;
mod history;
mod in_force;
mod keys;
mod log;
pub(super) mod observer;
mod similar;
mod speech;
mod still;
mod view;

use std::time::SystemTime;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;

use self::still::{HTML, sent};
use self::view::Now;
use super::admin_state::Admin;

pub(super) fn router() -> Router<Admin> {
    let file = |kind: &'static str, text: &'static str| get(async move || sent(kind, text.to_owned()));
    Router::new()
        .route("/", get(page))
        .route("/page/now", get(fragment))
        .route("/page/log", get(log::list))
        .route("/page/log/{id}", get(log::receipt))
        .route("/page/config", get(in_force::show))
        .route("/page/keys", get(keys::list).post(keys::make))
        .route("/page/key", get(keys::one).post(keys::alter))
        .route("/page/budgets", get(budgets::list))
        .route("/page/budget", get(budgets::one).post(budgets::change))
        .route("/page/style.css", file("text/css; charset=utf-8", include_str!("style.css")))
        .route("/page/script.js", file("text/javascript; charset=utf-8", include_str!("script.js")))
}

async fn page(State(admin): State<Admin>) -> Response {
    sent(HTML, with_now(&admin, view::page))
}

async fn fragment(State(admin): State<Admin>) -> Response {
    sent(HTML, with_now(&admin, |now| view::fragment(now).into_string()))
}

fn with_now(admin: &Admin, view: impl FnOnce(&Now<'_>) -> String) -> String {
    admin.page.look();
    let history = admin.page.history();
    view(&Now {
        at: SystemTime::now(),
        budgets: admin.spending.budgets.get().status(),
        history: &history,
        calls: admin.page.recent.calls(),
        sockets: admin.page.running.sockets(),
        advice: admin.page.advice(),
        similar: admin.cache.semantic(),
        outlook: admin.page.outlook.load().as_deref().copied(),
        records: admin.spending.records.as_ref().map(|records| records.stats()),
        known: &admin.known,
        catalogue: &admin.catalogue,
        trouble: admin.reloads.standing().trouble,
    })
}
