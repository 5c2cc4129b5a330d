//! `/keys` on the admin port: clients' keys, made, changed, rotated and revoked while calls go on.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin_state::Admin;
use super::key_store::{KeyStore, KeyStoreError, Wish};
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

async fn list(State(admin): State<Admin>) -> Response {
    done(&admin, None, |store| Ok((StatusCode::OK, json!({"keys": store.all()?})))).await
}

async fn one(State(admin): State<Admin>, Path(name): Path<String>) -> Response {
    done(&admin, None, move |store| Ok((StatusCode::OK, json!(store.get(&name)?)))).await
}

async fn create(State(admin): State<Admin>, body: String) -> Response {
    let read = serde_json::from_str::<Named>(&body).and_then(|named| {
        let wish = serde_json::from_value::<Wish>(Value::Object(named.rest))?;
        Ok((named.name, wish))
    });
    let (name, wish) = match read {
        Ok(read) => read,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, &why.to_string()),
    };
    if admin.reloads.config().keys.iter().any(|key| key.name == name) {
        let why = format!("there is a key {name:?} in the config: choose another name");
        return refuse(StatusCode::CONFLICT, &why);
    }
    if !admin.reloads.has_token() {
        let why = "clients with the gate's keys have no token for the vendor: set the variable that [upstream] api_token_env names";
        return refuse(StatusCode::CONFLICT, why);
    }
    done(&admin, Some(name.clone()), move |store| {
        let key = store.create(&name, &wish)?;
        let mut shown = json!(store.get(&name)?);
        shown["key"] = key.into();
        Ok((StatusCode::CREATED, shown))
    })
    .await
}

async fn change(State(admin): State<Admin>, Path(name): Path<String>, body: String) -> Response {
    let changed = name.clone();
    match serde_json::from_str::<Wish>(&body) {
        Ok(wish) => {
            let work = move |store: &KeyStore| Ok((StatusCode::OK, json!(store.change(&name, &wish)?)));
            done(&admin, Some(changed), work).await
        }
        Err(why) => refuse(StatusCode::BAD_REQUEST, &why.to_string()),
    }
}

async fn revoke(State(admin): State<Admin>, Path(name): Path<String>) -> Response {
    done(&admin, Some(name.clone()), move |store| {
        store.revoke(&name)?;
        Ok((StatusCode::OK, json!(store.get(&name)?)))
    })
    .await
}

async fn rotate(State(admin): State<Admin>, Path(name): Path<String>, body: String) -> Response {
    let rotation = if body.trim().is_empty() { Ok(Rotation::default()) } else { serde_json::from_str(&body) };
    let grace = match rotation.map(|rotation: Rotation| rotation.grace) {
        Err(why) => return refuse(StatusCode::BAD_REQUEST, &why.to_string()),
        Ok(None) => GRACE,
        Ok(Some(text)) => match humantime::parse_duration(&text).ok().filter(|grace| *grace <= LONGEST_GRACE) {
            Some(grace) => grace,
            None => return refuse(StatusCode::BAD_REQUEST, "grace is a time of at most a year, written like 1h"),
        },
    };
    done(&admin, Some(name.clone()), move |store| {
        let key = store.rotate(&name, grace)?;
        let mut shown = json!(store.get(&name)?);
        shown["key"] = key.into();
        Ok((StatusCode::OK, shown))
    })
    .await
}

/// Does it on a thread that may block; what is changed is in force when it is told.
async fn done(
    admin: &Admin,
    changed: Option<String>,
    work: impl FnOnce(&KeyStore) -> Result<(StatusCode, Value), KeyStoreError> + Send + 'static,
) -> Response {
    let Some(store) = admin.spending.keys.clone() else {
        return refuse(StatusCode::CONFLICT, "no keys are kept: set keys_path in the config");
    };
    let told = admin.clone();
    let answer = tokio::task::spawn_blocking(move || {
        let answer = work(&store)?;
        if let Some(name) = changed {
            if let Err(error) = told.reloads.renew() {
                tracing::error!(%error, "keys were changed, and are not in force");
            }
            match store.row(&name) {
                Ok(row) => told.tell(|| Fact::Key { row: Box::new(row) }),
                Err(error) => tracing::error!(%error, "the other gates are not told of a key"),
            }
        }
        Ok::<_, KeyStoreError>(answer)
    });
    match answer.await {
        Ok(Ok((status, body))) => (status, Json(body)).into_response(),
        Ok(Err(error)) => {
            let status = match &error {
                KeyStoreError::NotFound(_) => StatusCode::NOT_FOUND,
                KeyStoreError::Exists(_) => StatusCode::CONFLICT,
                KeyStoreError::Wrong(_) => StatusCode::BAD_REQUEST,
                KeyStoreError::File { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            };
            refuse(status, &error.to_string())
        }
        Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "it could not be done"),
    }
}

fn refuse(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({"error": why}))).into_response()
}
