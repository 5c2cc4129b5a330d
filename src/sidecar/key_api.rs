//! `/keys` on the admin port: clients' keys, made, changed, rotated and revoked while calls go on.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::admin_state::Admin;
use super::key_store::{KeyStore, KeyStoreError, Stored, Wish};
use super::notices::Fact;

/// `POST /keys`
#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

/// `POST /keys/{name}/rotate`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Rotation {
    grace: Option<String>,
}

/// How long the key before holds as well, where nothing is said.
pub const GRACE: Duration = Duration::from_secs(3600);
const LONGEST_GRACE: Duration = Duration::from_secs(366 * 24 * 3600);

pub(super) fn router() -> Router<Admin> {
    Router::new()
        .route("/keys", get(list).post(create))
        .route("/keys/{name}", patch(change).get(one).delete(revoke))
        .route("/keys/{name}/rotate", post(rotate))
}

/// Why something of keys was not done.
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) why: String,
}

/// What was made: the key itself, which nobody is told again, and what is kept of it.
pub(super) struct Made {
    pub(super) key: String,
    pub(super) stored: Stored,
}

async fn list(State(admin): State<Admin>) -> Result<Response, Refusal> {
    let keys = ask(&admin, KeyStore::all).await?;
    Ok(Json(json!({"keys": keys})).into_response())
}

async fn one(State(admin): State<Admin>, Path(name): Path<String>) -> Result<Response, Refusal> {
    ask(&admin, move |store| store.get(&name)).await.map(|stored| Json(stored).into_response())
}

async fn create(State(admin): State<Admin>, body: String) -> Result<Response, Refusal> {
    let named: Named = read(&body)?;
    let wish = serde_json::from_value(Value::Object(named.rest)).map_err(Refusal::bad)?;
    make(&admin, named.name, wish).await.map(|made| (StatusCode::CREATED, Json(made.shown())).into_response())
}

async fn change(State(admin): State<Admin>, Path(name): Path<String>, body: String) -> Result<Response, Refusal> {
    let wish: Wish = read(&body)?;
    let changed = alter(&admin, "changed", name, move |store, name| store.change(name, &wish)).await?;
    Ok(Json(changed).into_response())
}

async fn revoke(State(admin): State<Admin>, Path(name): Path<String>) -> Result<Response, Refusal> {
    let revoked = alter(&admin, "revoked", name, |store, name| {
        store.revoke(name)?;
        store.get(name)
    });
    Ok(Json(revoked.await?).into_response())
}

async fn rotate(State(admin): State<Admin>, Path(name): Path<String>, body: String) -> Result<Response, Refusal> {
    let rotation: Rotation = if body.trim().is_empty() { Rotation::default() } else { read(&body)? };
    let grace = rotation.grace.as_deref().map_or(Ok(GRACE), grace)?;
    let made = alter(&admin, "rotated", name, move |store, name| {
        Ok(Made { key: store.rotate(name, grace)?, stored: store.get(name)? })
    });
    Ok(Json(made.await?.shown()).into_response())
}

/// How long the key before holds as well, as it is written.
pub(super) fn grace(text: &str) -> Result<Duration, Refusal> {
    let grace = humantime::parse_duration(text).ok().filter(|grace| *grace <= LONGEST_GRACE);
    grace.ok_or_else(|| Refusal::bad("grace is a time of at most a year, written like 1h"))
}

/// Makes a key, where clients with it could be answered.
pub(super) async fn make(admin: &Admin, name: String, wish: Wish) -> Result<Made, Refusal> {
    if admin.reloads.config().keys.iter().any(|key| key.name == name) {
        let why = format!("there is a key {name:?} in the config: choose another name");
        return Err(Refusal { status: StatusCode::CONFLICT, why });
    }
    if !admin.reloads.has_token() {
        let why = "clients with the gate's keys have no token for the vendor: set the variable that [upstream] api_token_env names";
        return Err(Refusal { status: StatusCode::CONFLICT, why: why.into() });
    }
    let work =
        move |store: &KeyStore, name: &str| Ok(Made { key: store.create(name, &wish)?, stored: store.get(name)? });
    alter(admin, "made", name, work).await
}

/// Asks the file on a thread that may block.
pub(super) async fn ask<T: Send + 'static>(
    admin: &Admin,
    question: impl FnOnce(&KeyStore) -> Result<T, KeyStoreError> + Send + 'static,
) -> Result<T, Refusal> {
    let Some(store) = admin.spending.keys.clone() else {
        return Err(Refusal {
            status: StatusCode::CONFLICT,
            why: "no keys are kept: set keys_path in the config".into(),
        });
    };
    let answer = tokio::task::spawn_blocking(move || question(&store)).await;
    let failed = || Refusal { status: StatusCode::INTERNAL_SERVER_ERROR, why: "it could not be done".into() };
    answer.map_err(|_| failed())?.map_err(Refusal::from)
}

/// Changes the key of this name; what is changed is in force when it is told, and the log and the other gates know of it.
pub(super) async fn alter<T: Send + 'static>(
    admin: &Admin,
    what: &'static str,
    name: String,
    work: impl FnOnce(&KeyStore, &str) -> Result<T, KeyStoreError> + Send + 'static,
) -> Result<T, Refusal> {
    let told = admin.clone();
    ask(admin, move |store| {
        let answer = work(store, &name)?;
        tracing::info!(key = name, what, "a key was changed");
        if let Err(error) = told.reloads.renew() {
            tracing::error!(%error, "keys were changed, and are not in force");
        }
        match store.row(&name) {
            Ok(row) => told.tell(|| Fact::Key { row: Box::new(row) }),
            Err(error) => tracing::error!(%error, "the other gates are not told of a key"),
        }
        Ok(answer)
    })
    .await
}

fn read<T: DeserializeOwned>(body: &str) -> Result<T, Refusal> {
    serde_json::from_str(body).map_err(Refusal::bad)
}

// === impl Made ===

impl Made {
    fn shown(self) -> Value {
        let mut shown = json!(self.stored);
        shown["key"] = self.key.into();
        shown
    }
}

// === impl Refusal ===

impl Refusal {
    pub(super) fn bad(why: impl ToString) -> Self {
        Self { status: StatusCode::BAD_REQUEST, why: why.to_string() }
    }
}

impl From<KeyStoreError> for Refusal {
    fn from(error: KeyStoreError) -> Self {
        let status = match &error {
            KeyStoreError::NotFound(_) => StatusCode::NOT_FOUND,
            KeyStoreError::Exists(_) => StatusCode::CONFLICT,
            KeyStoreError::Wrong(_) => StatusCode::BAD_REQUEST,
            KeyStoreError::File { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, why: error.to_string() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"error": self.why}))).into_response()
    }
}
