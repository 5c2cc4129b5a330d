//! What an operator changes of budgets on the admin port, behind the [guard](super::guard): a raise until a moment, and a bucket
//! begun anew.

use std::time::{Duration, SystemTime};

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin_state::Admin;
use super::notices::Fact;
use crate::layers::budget::{Amount, Budgets, ChangeError, Which};
use crate::neurons::Neurons;
use crate::peer::Peer;
use crate::receipt::Metadatum;

pub(super) fn router() -> Router<Admin> {
    Router::new()
        .route("/budgets/{name}", get(buckets))
        .route("/budgets/{name}/raise", post(raise))
        .route("/budgets/{name}/reset", post(reset))
}

/// `POST /budgets/{name}/raise`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raise {
    /// `"20 USD"` or `"500 neurons"`; the limit or less ends a raise.
    pub(super) to: String,
    /// Until when, such as `2026-12-24T18:00:00Z`; to the window's end where it is left out.
    pub(super) until: Option<jiff::Timestamp>,
    /// The values of one bucket, in the order of `split_by`; where it is left out, each bucket of the budget.
    pub(super) bucket: Option<Vec<Value>>,
    pub(super) who: Option<String>,
    pub(super) reason: Option<String>,
}

/// `POST /budgets/{name}/reset`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reset {
    pub(super) bucket: Option<Vec<Value>>,
    pub(super) who: Option<String>,
    pub(super) reason: String,
}

/// `GET /budgets/{name}`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    limit: Option<usize>,
}

/// Buckets that are shown, where nothing else is said, and at most.
const SHOWN: usize = 100;
const MOST_SHOWN: usize = 1_000;
/// What somebody writes into the log, in letters.
const MAX_WORDS: usize = 500;

/// How the buckets of a budget stand, those first that have spent most.
async fn buckets(State(admin): State<Admin>, Path(name): Path<String>, Query(page): Query<Page>) -> Response {
    let most = page.limit.unwrap_or(SHOWN).min(MOST_SHOWN);
    let Some(all) = admin.spending.budgets.get().buckets_of(&name, most) else {
        return problem(&ChangeError::NotFound(format!("there is no budget {name:?}")));
    };
    let row = |status: crate::layers::budget::BucketStatus| {
        let bucket: Value = serde_json::from_str(&status.bucket).unwrap_or_else(|_| status.bucket.to_string().into());
        json!({
            "bucket": bucket,
            "limit_neurons": status.limit.as_f64(),
            "spent_neurons": status.spent.as_f64(),
            "reserved_neurons": status.reserved.as_f64(),
        })
    };
    Json(json!({"name": name, "buckets": all.into_iter().map(row).collect::<Vec<_>>()})).into_response()
}

async fn raise(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Json(asked): Json<Raise>,
) -> Response {
    let who = asked.who.clone().unwrap_or_else(|| who(peer, &headers));
    answer(raise_by(&admin, name, asked, who).await, |(to, until)| {
        let until = jiff::Timestamp::try_from(until).map(|at| at.to_string()).unwrap_or_default();
        json!({"to_neurons": to.as_f64(), "until": until})
    })
}

/// Raises a budget or a bucket of it; tells to what, and until when.
pub(super) async fn raise_by(
    admin: &Admin,
    budget: String,
    asked: Raise,
    who: String,
) -> Result<(Neurons, SystemTime), ChangeError> {
    let Amount { neurons: to, .. } = asked.to.parse().map_err(ChangeError::Refused)?;
    let which = which(budget, asked.bucket.clone(), who, asked.reason.unwrap_or_default())?;
    let (store, until) = (admin.store.clone(), asked.until.map(moment));
    let until = change(admin, move |budgets| match store {
        Some(store) => store.board.raise(budgets, (&which, asked.bucket), to, until),
        None => budgets.raise(&which, to, until),
    });
    Ok((to, until.await?))
}

async fn reset(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Json(asked): Json<Reset>,
) -> Response {
    let who = asked.who.clone().unwrap_or_else(|| who(peer, &headers));
    let forgotten = reset_by(&admin, name, asked, who).await;
    answer(forgotten, |forgotten| json!({"forgotten_neurons": forgotten.as_f64()}))
}

/// Begins a budget or a bucket of it anew; tells what is forgotten.
pub(super) async fn reset_by(admin: &Admin, budget: String, asked: Reset, who: String) -> Result<Neurons, ChangeError> {
    if asked.reason.trim().is_empty() {
        return Err(ChangeError::Refused("give a `reason`: it goes into the log beside what is forgotten".into()));
    }
    let which = which(budget, asked.bucket.clone(), who, asked.reason)?;
    let told = which.clone();
    let forgotten = change(admin, move |budgets| budgets.reset(&which)).await?;
    let Which { budget, who, reason, .. } = told;
    admin.tell(|| Fact::Reset { budget, bucket: asked.bucket, who, reason });
    Ok(forgotten)
}

/// A moment before 1970 is 1970.
fn moment(at: jiff::Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(at.as_millisecond()).unwrap_or(0))
}

/// Off the admin port's thread: it waits for the disk.
async fn change<T: Send + 'static>(
    admin: &Admin,
    change: impl FnOnce(&Budgets) -> Result<T, ChangeError> + Send + 'static,
) -> Result<T, ChangeError> {
    let budgets = admin.spending.budgets.get();
    let changed = tokio::task::spawn_blocking(move || change(&budgets)).await;
    changed.unwrap_or_else(|_| Err(ChangeError::Refused("it failed; the log says why".into())))
}

fn answer<T>(changed: Result<T, ChangeError>, show: impl FnOnce(T) -> Value) -> Response {
    match changed {
        Ok(changed) => Json(show(changed)).into_response(),
        Err(error) => problem(&error),
    }
}

fn problem(error: &ChangeError) -> Response {
    (status(error), Json(json!({"error": error.to_string()}))).into_response()
}

pub(super) fn status(error: &ChangeError) -> StatusCode {
    match error {
        ChangeError::NotFound(_) => StatusCode::NOT_FOUND,
        ChangeError::NotKept(_) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    }
}

fn which(budget: String, bucket: Option<Vec<Value>>, who: String, reason: String) -> Result<Which, ChangeError> {
    let mut which = Which::budget(budget);
    (which.who, which.reason) = (words(who), words(reason));
    which.bucket = bucket.map(|values| values.into_iter().map(value).collect()).transpose()?;
    Ok(which)
}

/// Who asks, where he does not say: the name that came with the token, or the address.
pub(super) fn who(peer: Peer, headers: &HeaderMap) -> String {
    user(headers).unwrap_or_else(|| format!("somebody at {}", peer.0.ip()))
}

fn value(value: Value) -> Result<Metadatum, ChangeError> {
    match value {
        Value::String(text) => Ok(Metadatum::String(text)),
        Value::Number(number) => Ok(Metadatum::Number(number)),
        Value::Bool(is_so) => Ok(Metadatum::Bool(is_so)),
        Value::Null => Ok(Metadatum::Null),
        other => Err(ChangeError::Refused(format!(
            "{other} is no value of a bucket: those are texts, numbers, true, false, null"
        ))),
    }
}

/// The name that a browser, or `curl -u`, sends with the token.
fn user(headers: &HeaderMap) -> Option<String> {
    let pair = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let pair = String::from_utf8(STANDARD.decode(pair.trim()).ok()?).ok()?;
    pair.split_once(':').map(|(user, _)| user.to_owned()).filter(|user| !user.is_empty())
}

fn words(text: String) -> String {
    if text.len() <= MAX_WORDS { text } else { text.chars().take(MAX_WORDS).collect() }
}
