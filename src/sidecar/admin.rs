//! The admin port: metrics and health. Not for clients.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::layers::cache::CacheLayer;
use crate::readers::metrics::Metrics;

/// What the admin port shows.
#[derive(Clone)]
pub(super) struct Admin {
    pub(super) metrics: Arc<Metrics>,
    pub(super) cache: CacheLayer,
    pub(super) stop: CancellationToken,
}

pub(super) fn router(admin: Admin) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/cache", get(cache_size).delete(purge))
        .with_state(admin)
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match admin.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn cache_size(State(admin): State<Admin>) -> Response {
    let (entries, bytes) = admin.cache.size();
    Json(json!({"entries": entries, "bytes": bytes})).into_response()
}

/// What to forget; without a model, all of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Purge {
    model: Option<String>,
}

async fn purge(State(admin): State<Admin>, Query(purge): Query<Purge>) -> Response {
    admin.cache.purge(purge.model.as_deref());
    cache_size(State(admin)).await
}

/// Not ready any more once it is told to stop, so that a load balancer sends nothing new.
async fn ready(State(admin): State<Admin>) -> Response {
    if admin.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response()
    } else {
        "ready\n".into_response()
    }
}
