//! The admin port: metrics, health, and behind the [guard](super::guard) what tells of single calls. Not for clients.

use std::time::SystemTime;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::admin_state::Admin;
use super::guard::{self, Guard};
use super::notices::Fact;
use super::reload::ReloadError;
use crate::books::Book;
use crate::books::reconcile::Report;

pub(super) fn router(admin: Admin, guard: Guard) -> Router {
    let guarded = Router::new()
        .route("/cache", get(cache_size).delete(purge))
        .route("/budgets", get(budgets))
        .route("/books", get(books))
        .merge(super::budget_changes::router())
        .route("/reload", post(reload))
        .merge(super::key_api::router())
        .merge(super::logs::router())
        .merge(super::records_copy::router())
        .merge(super::page::router())
        .layer(from_fn_with_state(guard.clone(), guard::check_token));
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .merge(guarded)
        .layer(from_fn_with_state(guard, guard::check_road))
        .with_state(admin)
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match admin.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Reads the config again: 200 where it is in force, 422 where it is wrong and the one before stays.
async fn reload(State(admin): State<Admin>) -> Response {
    let reloads = admin.reloads.clone();
    match tokio::task::spawn_blocking(move || reloads.reload()).await {
        Ok(Ok(reloaded)) => Json(reloaded).into_response(),
        Ok(Err(ReloadError::Config(error))) => {
            let body = json!({"error": error.to_string(), "place": error.place, "what": error.what});
            (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response()
        }
        Ok(Err(error @ ReloadError::NoSource)) => {
            (StatusCode::CONFLICT, Json(json!({"error": error.to_string()}))).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// How each budget stands, the free allocation first.
async fn budgets(State(admin): State<Admin>) -> Response {
    let row = |status: crate::layers::budget::Status| {
        let seconds = |time: std::time::Duration| time.as_secs_f64().round();
        let resets = status.resets_at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |at| at.as_secs());
        json!({
            "name": status.name,
            "currency": status.currency.label(),
            "limit_usd": status.limit.usd(),
            "spent_usd": status.spent.usd(),
            "left_usd": status.left.usd(),
            "limit_neurons": status.limit.as_f64(),
            "spent_neurons": status.spent.as_f64(),
            "reserved_neurons": status.reserved.as_f64(),
            "elsewhere_neurons": status.elsewhere.as_f64(),
            "left_neurons": status.left.as_f64(),
            "buckets": status.buckets,
            "rejected": status.rejected,
            "diverted": status.diverted,
            "neurons_per_second": status.pace_per_second,
            "lasts_seconds": status.lasts.map(seconds),
            "resets_at": resets,
        })
    };
    let rows: Vec<_> = admin.spending.budgets.get().status().into_iter().map(row).collect();
    Json(json!({"budgets": rows})).into_response()
}

/// What was last read in the vendor's own books. `null` where nothing was.
async fn books(State(admin): State<Admin>) -> Response {
    let seconds = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let book = |book: Book| json!({"read_at": book.read_at.map(seconds), "trouble": book.trouble});
    let account = admin.known.account().map(|account| {
        json!({
            "until": seconds(account.until),
            "gate_neurons": account.gate.as_f64(),
            "elsewhere_neurons": account.elsewhere.as_f64(),
            "agrees": account.report.as_ref().map(Report::agrees),
            "verdict": account.report.as_ref().map(Report::verdict),
        })
    });
    let news =
        admin.known.news().into_iter().map(|news| json!({"at": seconds(news.at), "what": news.change.to_string()}));
    let body = json!({
        "models": book(admin.known.list()),
        "analytics": book(admin.known.analytics()),
        "account": account,
        "news": news.collect::<Vec<_>>(),
        "vanished": admin.catalogue.vanished(),
    });
    Json(body).into_response()
}

async fn cache_size(State(admin): State<Admin>) -> Response {
    Json(size(&admin)).into_response()
}

fn size(admin: &Admin) -> serde_json::Value {
    let (entries, bytes) = admin.cache.size();
    json!({"entries": entries, "bytes": bytes})
}

/// What to forget; without a model, all of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Purge {
    model: Option<String>,
}

async fn purge(State(admin): State<Admin>, Query(purge): Query<Purge>) -> Response {
    let model = purge.model.as_deref();
    // What is found at the store from here on is not from before the purge.
    let shared = admin.cache.purge_tier(model);
    admin.cache.purge(model);
    admin.tell(|| Fact::Purge { model: purge.model.clone() });
    let mut body = size(&admin);
    if let Some(shared) = shared {
        let is_done = shared.await;
        body["shared"] = if is_done { "purged" } else { "waits for the store" }.into();
    }
    Json(body).into_response()
}

/// Not ready any more once it is told to stop, so that a load balancer sends nothing new.
async fn ready(State(admin): State<Admin>) -> Response {
    if admin.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response()
    } else {
        let store = admin.store.map(|store| store.describe()).unwrap_or_default();
        let cache = admin.shared_cache.as_ref().map(super::shared_cache::describe).unwrap_or_default();
        format!("ready\n{store}{cache}").into_response()
    }
}
