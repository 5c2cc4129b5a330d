//! The log API, in the shape of Cloudflare's AI Gateway: `…/ai-gateway/gateways/{gateway}/logs`, and `/logs` for short.

use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin_state::Admin;
use crate::payload::{Part, Payload};
use crate::readers::records::{Archive, Filter, Record, RecordsError, Stats};
use crate::receipt::{CallId, Outcome};

/// Cloudflare's own paths; account and gateway may be any, for there is one of each here.
const LONG: &str = "/client/v4/accounts/{account}/ai-gateway/gateways/{gateway}/logs";

pub(super) fn router() -> Router<Admin> {
    let all = || get(list).delete(delete_all);
    let one = || get(get_one).patch(patch);
    Router::new()
        .route("/logs", all())
        .route("/logs/{id}", one())
        .route("/logs/{id}/request", get(request_body))
        .route("/logs/{id}/response", get(response_body))
        .route(LONG, all())
        .route(&format!("{LONG}/{{id}}"), one())
        .route(&format!("{LONG}/{{id}}/request"), get(request_body))
        .route(&format!("{LONG}/{{id}}/response"), get(response_body))
}

/// What the list takes after the `?`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LogQuery {
    page: Option<usize>,
    per_page: Option<usize>,
    model: Option<String>,
    key: Option<String>,
    outcome: Option<String>,
    status: Option<u16>,
    event_id: Option<String>,
    vendor_id: Option<String>,
    success: Option<bool>,
    cached: Option<bool>,
    feedback: Option<i64>,
    /// RFC 3339.
    start_date: Option<jiff::Timestamp>,
    /// RFC 3339.
    end_date: Option<jiff::Timestamp>,
    /// `name:value` of `cf-aig-metadata`.
    metadata: Option<String>,
    /// In US dollars.
    min_cost: Option<f64>,
    max_cost: Option<f64>,
    /// In milliseconds.
    min_duration: Option<f64>,
    max_duration: Option<f64>,
    min_tokens_in: Option<u32>,
    max_tokens_in: Option<u32>,
    min_tokens_out: Option<u32>,
    max_tokens_out: Option<u32>,
    /// The id of the last record of the page before: faster than a page's number.
    before: Option<String>,
}

/// The parts of the path. Only the id matters.
#[derive(Deserialize)]
struct RecordId {
    id: String,
}

/// What a caller thinks of an answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Verdict {
    feedback: Option<i64>,
    score: Option<i64>,
    metadata: Option<serde_json::Map<String, Value>>,
}

const PER_PAGE: (usize, usize) = (20, 50);
/// Far pages are read by `before`.
const MAX_SKIPPED: usize = 10_000;
/// A total that is larger is not counted to its end.
const MAX_COUNTED: usize = 10_000;

async fn list(
    State(admin): State<Admin>,
    wanted: Result<Query<LogQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Query(wanted) = match wanted {
        Ok(wanted) => wanted,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, 7001, &why.body_text()),
    };
    let asked = wanted.paging().and_then(|paging| Ok((paging, wanted.filter()?)));
    let ((page, per_page), filter) = match asked {
        Ok(asked) => asked,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, 7001, &why),
    };
    let skipped = (page - 1) * per_page;
    ask(&admin, move |archive| {
        let rows: Vec<_> = archive.page(&filter, skipped, per_page)?.into_iter().map(shape).collect();
        let total = archive.count(&Filter { before: None, ..filter }, MAX_COUNTED)?;
        let info = json!({
            "page": page,
            "per_page": per_page,
            "count": rows.len(),
            "total_count": total,
            "total_is_at_least": total == MAX_COUNTED,
        });
        Ok(Json(json!({"success": true, "errors": [], "messages": [], "result": rows, "result_info": info}))
            .into_response())
    })
    .await
}

async fn get_one(State(admin): State<Admin>, Path(place): Path<RecordId>) -> Response {
    let Some(id) = CallId::parse(&place.id) else { return not_found() };
    written(&admin).await;
    ask(&admin, move |archive| Ok(archive.get(id)?.map_or_else(not_found, |record| good(shape(record))))).await
}

async fn patch(
    State(admin): State<Admin>,
    Path(place): Path<RecordId>,
    verdict: Result<Json<Verdict>, axum::extract::rejection::JsonRejection>,
) -> Response {
    let Json(verdict) = match verdict {
        Ok(verdict) => verdict,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, 7001, &why.body_text()),
    };
    let is_flat = |value: &Value| value.is_string() || value.is_number() || value.is_boolean();
    if verdict.feedback.is_some_and(|feedback| !(-1..=1).contains(&feedback)) {
        return refuse(StatusCode::BAD_REQUEST, 7001, "feedback is -1, 0 or 1");
    }
    if verdict.score.is_some_and(|score| !(0..=100).contains(&score)) {
        return refuse(StatusCode::BAD_REQUEST, 7001, "score is a whole number from 0 to 100");
    }
    if verdict.metadata.as_ref().is_some_and(|map| map.len() > 5 || !map.values().all(is_flat)) {
        return refuse(
            StatusCode::BAD_REQUEST,
            7001,
            "metadata is a flat object of at most 5 strings, numbers or booleans",
        );
    }
    let Some(id) = CallId::parse(&place.id) else { return not_found() };
    let metadata = verdict.metadata.map(|map| Value::Object(map).to_string());
    written(&admin).await;
    ask(&admin, move |archive| {
        let is_there = archive.judge(id, verdict.feedback, verdict.score, metadata.as_deref())?;
        Ok(if is_there { good(json!({})) } else { not_found() })
    })
    .await
}

async fn delete_all(
    State(admin): State<Admin>,
    wanted: Result<Query<LogQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let filter = wanted.map_err(|why| why.body_text()).and_then(|Query(wanted)| {
        if wanted.page.or(wanted.per_page).is_some() {
            return Err("all that a filter finds is deleted, not a page of it: leave out `page` and `per_page`".into());
        }
        wanted.filter()
    });
    match filter {
        Ok(filter) => {
            ask(&admin, move |archive| archive.delete(&filter).map(|rows| good(json!({"deleted": rows})))).await
        }
        Err(why) => refuse(StatusCode::BAD_REQUEST, 7001, &why),
    }
}

async fn request_body(state: State<Admin>, place: Path<RecordId>) -> Response {
    body(state, place, |payload| payload.request).await
}

async fn response_body(state: State<Admin>, place: Path<RecordId>) -> Response {
    body(state, place, |payload| payload.response).await
}

/// A body as it was, as far as it was kept. It is somebody's own words: a browser is told to run none of it.
async fn body(State(admin): State<Admin>, Path(place): Path<RecordId>, part: fn(Payload) -> Part) -> Response {
    let Some(id) = CallId::parse(&place.id) else { return not_found() };
    written(&admin).await;
    ask(&admin, move |archive| {
        let Some(part) = archive.payload(id)?.map(part) else {
            let is_there = archive.get(id)?.is_some();
            return Ok(if is_there { refuse(StatusCode::NOT_FOUND, 7002, NOT_KEPT) } else { not_found() });
        };
        let whole = part.length;
        let cut = part.is_cut().then(|| [("x-tollgate-cut-from-bytes", whole.to_string())]);
        let kind = Some(part.content_type).filter(|kind| !kind.is_empty());
        let headers = [
            (header::CONTENT_TYPE, kind.unwrap_or_else(|| "application/octet-stream".into())),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff".into()),
            (header::CONTENT_SECURITY_POLICY, "sandbox".into()),
        ];
        Ok((headers, cut.map(AppendHeaders), part.bytes).into_response())
    })
    .await
}

const NOT_KEPT: &str = "this call's bodies were not kept: set [records] payloads = true, or send \
    cf-aig-collect-log-payload: true with the call";

impl LogQuery {
    /// The page's number, from 1, and the records on each.
    fn paging(&self) -> Result<(usize, usize), String> {
        let (page, per_page) = (self.page.unwrap_or(1), self.per_page.unwrap_or(PER_PAGE.0));
        if page == 0 {
            return Err("`page` counts from 1".into());
        }
        if !(1..=PER_PAGE.1).contains(&per_page) {
            return Err(format!("`per_page` is from 1 to {}", PER_PAGE.1));
        }
        if (page - 1).saturating_mul(per_page) > MAX_SKIPPED {
            return Err("that `page` is too far: give `before`, the id of the last record seen".into());
        }
        Ok((page, per_page))
    }

    pub(super) fn filter(self) -> Result<Filter, String> {
        let before = match self.before.as_deref().map(CallId::parse) {
            Some(None) => return Err("`before` is no record's id".into()),
            known => known.flatten(),
        };
        let outcomes = Outcome::ALL.map(Outcome::label);
        if self.outcome.as_deref().is_some_and(|outcome| !outcomes.contains(&outcome)) {
            return Err(format!("`outcome` is one of {}", outcomes.join(", ")));
        }
        let metadata = match self.metadata.as_deref().map(|entry| entry.split_once(':')) {
            Some(None) => return Err("`metadata` is an entry's name and value, such as team:search".into()),
            known => known.flatten().map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())),
        };
        let millis = |at: jiff::Timestamp| u64::try_from(at.as_millisecond()).unwrap_or(0);
        Ok(Filter {
            model: self.model,
            key: self.key,
            outcome: self.outcome,
            status: self.status,
            event_id: self.event_id,
            vendor_id: self.vendor_id,
            success: self.success,
            cached: self.cached,
            feedback: self.feedback,
            since_ms: self.start_date.map(millis),
            until_ms: self.end_date.map(millis),
            metadata,
            usd: (self.min_cost, self.max_cost),
            duration_ms: (self.min_duration, self.max_duration),
            tokens_in: (self.min_tokens_in, self.max_tokens_in),
            tokens_out: (self.min_tokens_out, self.max_tokens_out),
            before,
        })
    }
}

/// A record as Cloudflare's API has it, and what is ours beside.
fn shape(record: Record) -> Value {
    let created =
        jiff::Timestamp::from_millisecond(record.received_ms).map_or_else(|_| String::new(), |at| at.to_string());
    json!({
        "id": record.id,
        "created_at": created,
        "provider": "workers-ai",
        "model": record.model,
        "success": matches!(&*record.outcome, "ok" | "cache_hit"),
        "cached": record.outcome == "cache_hit",
        "status_code": record.status,
        "path": record.route,
        "tokens_in": record.input_tokens,
        "tokens_out": record.output_tokens,
        "cost": record.usd,
        "duration": record.duration_ms,
        "metadata": record.metadata,
        "feedback": record.feedback,
        "score": record.score,
        "neurons": record.neurons,
        "cost_source": record.source,
        "outcome": record.outcome,
        "refused": record.refused,
        "key": record.key,
        "account": record.account,
        "asked": record.asked,
        "stream": record.stream,
        "tokens_cached": record.cached_input_tokens,
        "cache_status": record.cache,
        "attempts": record.attempts,
        "vendor_code": record.vendor_code,
        "vendor_id": record.vendor_id,
        "event_id": record.event_id,
        "waited": record.waited_ms,
        "upstream": record.upstream_ms,
    })
}

/// Lets those records be written that wait, for who asks for one by its id may have got that from a reply just now.
pub(super) async fn written(admin: &Admin) {
    let Some(records) = &admin.spending.records else { return };
    let awaited = records.stats();
    let is_written = |now: Stats| now.written >= awaited.written + awaited.waiting || now.waiting == 0;
    for _ in 0..20 {
        if is_written(records.stats()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Asks the database on a thread that may block.
pub(super) async fn ask(
    admin: &Admin,
    question: impl FnOnce(&Archive) -> Result<Response, RecordsError> + Send + 'static,
) -> Response {
    let Some(path) = admin.records_path.clone() else {
        return refuse(StatusCode::NOT_FOUND, 7002, "no records are kept: set [records] path");
    };
    let answer = tokio::task::spawn_blocking(move || Archive::open(&path).and_then(|archive| question(&archive))).await;
    match answer {
        Ok(Ok(reply)) => reply,
        Ok(Err(error)) => refuse(StatusCode::INTERNAL_SERVER_ERROR, 7500, &error.to_string()),
        Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, 7500, "the question could not be answered"),
    }
}

fn good(result: Value) -> Response {
    Json(json!({"success": true, "errors": [], "messages": [], "result": result})).into_response()
}

fn not_found() -> Response {
    refuse(StatusCode::NOT_FOUND, 7002, "there is no such record")
}

fn refuse(status: StatusCode, code: u32, message: &str) -> Response {
    let errors = json!([{"code": code, "message": format!("tollgate: {message}")}]);
    (status, Json(json!({"success": false, "errors": errors, "messages": [], "result": null}))).into_response()
}
