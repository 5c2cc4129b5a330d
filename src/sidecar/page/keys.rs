//! Clients' keys for people: made, changed, rotated and revoked by forms.

use std::collections::BTreeMap;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::form::{Sent, encoded, field, link, moment, needed, problem, read_moment, see, trouble};
use super::still::still;
use crate::sidecar::admin_state::Admin;
use crate::sidecar::key_api::{self, Made, Refusal};
use crate::sidecar::key_store::{KeyStoreError, Stored, Wish};

/// `GET /page/keys`
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Shown {
    words: String,
    after: String,
}

/// `GET /page/key`
#[derive(Deserialize)]
pub(super) struct Named {
    name: String,
}

/// What a form says that a key is to be: words, as they were typed.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Typed {
    name: String,
    owner: String,
    labels: String,
    models: String,
    requests_per_minute: String,
    expires_at: String,
}

/// `POST /page/key`
#[derive(Deserialize)]
pub(super) struct Altered {
    /// Which of the page's forms.
    what: What,
    /// When the key was changed last, as the page had it: a form that is sent twice, or late, changes nothing.
    seen: i64,
    #[serde(default)]
    grace: String,
    #[serde(flatten)]
    typed: Typed,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum What {
    Change,
    Rotate,
    Revoke,
}

const AT_ONCE: usize = 100;

pub(super) async fn list(State(admin): State<Admin>, Query(shown): Query<Shown>) -> Response {
    page(&admin, &shown, &Typed::default(), None).await
}

/// The new key itself is told on the page that answers, and on no other.
pub(super) async fn make(State(admin): State<Admin>, Sent(typed): Sent<Typed>) -> Response {
    let made = match typed.wish() {
        Ok(wish) => key_api::make(&admin, typed.name.clone(), wish).await,
        Err(why) => Err(why),
    };
    match made {
        Ok(made) => told(&made, "A new key", StatusCode::CREATED),
        Err(why) => {
            let status = why.status;
            (status, page(&admin, &Shown::default(), &typed, Some(&why)).await).into_response()
        }
    }
}

pub(super) async fn one(State(admin): State<Admin>, Query(Named { name }): Query<Named>) -> Response {
    match key_api::ask(&admin, move |store| store.get(&name)).await {
        Ok(key) => still("Key", "", key_page(&key, None)),
        Err(why) => problem("Key", why.status, &why.why),
    }
}

pub(super) async fn alter(State(admin): State<Admin>, Sent(form): Sent<Altered>) -> Response {
    let name = form.typed.name.clone();
    let altered = match form.what {
        What::Change => change(&admin, &form).await.map(|_| see(link("key", &name))),
        What::Revoke => revoke(&admin, &form).await.map(|()| see(link("key", &name))),
        What::Rotate => rotate(&admin, &form).await.map(|made| told(&made, "The next key", StatusCode::OK)),
    };
    let why = match altered {
        Ok(page) => return page,
        Err(why) => why,
    };
    let now = key_api::ask(&admin, move |store| store.get(&name)).await;
    let main = now.map_or_else(|_| html! { section { (trouble(&why.why)) } }, |key| key_page(&key, Some(&why)));
    (why.status, still("Key", "", main)).into_response()
}

async fn change(admin: &Admin, form: &Altered) -> Result<Stored, Refusal> {
    let (wish, seen) = (form.typed.change()?, form.seen);
    key_api::alter(admin, "changed", form.typed.name.clone(), move |store, name| {
        as_seen(&store.get(name)?, seen)?;
        store.change(name, &wish)
    })
    .await
}

async fn revoke(admin: &Admin, form: &Altered) -> Result<(), Refusal> {
    let seen = form.seen;
    key_api::alter(admin, "revoked", form.typed.name.clone(), move |store, name| {
        as_seen(&store.get(name)?, seen)?;
        store.revoke(name)
    })
    .await
}

async fn rotate(admin: &Admin, form: &Altered) -> Result<Made, Refusal> {
    let (grace, seen) = (key_api::grace(&form.grace)?, form.seen);
    key_api::alter(admin, "rotated", form.typed.name.clone(), move |store, name| {
        as_seen(&store.get(name)?, seen)?;
        Ok(Made { key: store.rotate(name, grace)?, stored: store.get(name)? })
    })
    .await
}

fn as_seen(key: &Stored, seen: i64) -> Result<(), KeyStoreError> {
    let why = "nothing was done: the key has been changed since this page was made. Here is how it stands now";
    if key.changed_ms == seen { Ok(()) } else { Err(KeyStoreError::Wrong(why.into())) }
}

// === impl Typed ===

impl Typed {
    /// Of a new key: what was left empty is not said.
    fn wish(&self) -> Result<Wish, Refusal> {
        let text = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let each = |text: &str| -> Vec<_> {
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        let label = |pair: String| match pair.split_once('=') {
            Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
            None => Err(Refusal::bad(format!("{pair:?} is no label: write labels like team=search, cost=12"))),
        };
        let labels: BTreeMap<_, _> = each(&self.labels).into_iter().map(label).collect::<Result<_, _>>()?;
        let requests = text(&self.requests_per_minute).map(|text| text.parse::<u32>()).transpose();
        let why = "requests a minute are a whole number; 0 is no limit";
        Ok(Wish {
            owner: text(&self.owner),
            labels: Some(labels).filter(|labels| !labels.is_empty()),
            models: Some(each(&self.models)).filter(|models| !models.is_empty()),
            requests_per_minute: requests.map_err(|_| Refusal::bad(why))?,
            expires_at: read_moment(&self.expires_at).map_err(Refusal::bad)?,
            never_expires: false,
        })
    }

    /// Of a key that is there: its form was filled with what it has, so what is empty now was taken away.
    fn change(&self) -> Result<Wish, Refusal> {
        let wish = self.wish()?;
        Ok(Wish {
            owner: Some(wish.owner.unwrap_or_default()),
            labels: Some(wish.labels.unwrap_or_default()),
            models: Some(wish.models.unwrap_or_default()),
            requests_per_minute: Some(wish.requests_per_minute.unwrap_or(0)),
            never_expires: wish.expires_at.is_none(),
            ..wish
        })
    }

    fn of(key: &Stored) -> Self {
        Self {
            name: key.name.clone(),
            owner: key.owner.clone(),
            labels: labels(key),
            models: key.models.join(", "),
            requests_per_minute: key.requests_per_minute.map(|requests| requests.to_string()).unwrap_or_default(),
            expires_at: key.expires_at.map(|at| at.strftime("%Y-%m-%dT%H:%M").to_string()).unwrap_or_default(),
        }
    }

    fn fields(&self) -> Markup {
        html! {
            (field("owner", "owner", "ops", &self.owner))
            (field("labels", "labels", "team=search, cost=12", &self.labels))
            (field("models", "models, none for all", "@cf/…, @cf/…", &self.models))
            (field("requests_per_minute", "requests a minute", "60", &self.requests_per_minute))
            (moment("expires_at", "expires", &self.expires_at))
        }
    }
}

async fn page(admin: &Admin, shown: &Shown, typed: &Typed, why: Option<&Refusal>) -> Response {
    let (after, words) = (shown.after.clone(), shown.words.trim().to_owned());
    let found = key_api::ask(admin, move |store| store.some(&after, &words, AT_ONCE)).await;
    let in_config: Vec<_> = admin.reloads.config().keys.iter().map(|key| key.name.clone()).collect();
    let main = html! {
        section aria-labelledby="new-title" {
            h2 #new-title { "A new key" }
            @if let Some(why) = why { (trouble(&why.why)) }
            form.filter method="post" action="keys" {
                (needed("name", "name", "search", &typed.name))
                (typed.fields())
                p { button type="submit" { "Make it" } }
            }
        }
        section #keys aria-labelledby="keys-title" {
            h2 #keys-title { "Keys made at run time" }
            form.filter method="get" action="keys" {
                (field("words", "in name, owner or labels", "", &shown.words))
                p { button type="submit" { "Find" } " " a href="keys" { "all" } }
            }
            @match &found {
                Ok(keys) => (table(keys, &shown.words)),
                Err(why) => (trouble(&why.why)),
            }
        }
        section aria-labelledby="config-title" {
            h2 #config-title { "Keys of the config" }
            @if in_config.is_empty() { p.quiet { "none" } }
            @else { p { @for (n, name) in in_config.iter().enumerate() { @if n > 0 { ", " } code { (name) } } } }
            p.quiet { "They are changed where the config is." }
        }
    };
    still("Keys", "", main)
}

fn table(keys: &[Stored], words: &str) -> Markup {
    html! {
        div.scroll tabindex="0" role="group" aria-labelledby="keys-title" {
            table {
                thead { tr {
                    @for name in ["name", "stands", "owner", "labels", "models", "requests a minute", "made (UTC)", "expires (UTC)"] {
                        th scope="col" { (name) }
                    }
                } }
                tbody {
                    @for key in keys { (row(key)) }
                    @if keys.is_empty() { tr { td.quiet colspan="8" { "no such key" } } }
                }
            }
        }
        @if let Some(last) = keys.last().filter(|_| keys.len() == AT_ONCE) {
            p { a rel="next" href=(format!("keys?words={}&after={}", encoded(words), encoded(&last.name))) { "more" } }
        }
    }
}

fn row(key: &Stored) -> Markup {
    html! {
        tr {
            th scope="row" { a href=(link("key", &key.name)) { (key.name) } }
            td.bad[!holds(key)] { (standing(key)) }
            td { (or_dash(&key.owner)) }
            td { (or_dash(&labels(key))) }
            td { (models(key)) }
            td { (limit(key)) }
            td { (at(key.created_at)) }
            td { (key.expires_at.map_or_else(|| "never".into(), at)) }
        }
    }
}

fn key_page(key: &Stored, why: Option<&Refusal>) -> Markup {
    let (name, seen) = (&key.name, key.changed_ms);
    let hidden = |what: &str| {
        html! {
            input type="hidden" name="what" value=(what);
            input type="hidden" name="name" value=(name);
            input type="hidden" name="seen" value=(seen);
        }
    };
    let typed = Typed::of(key);
    html! {
        section aria-labelledby="key-title" {
            h2 #key-title { (name) }
            @if let Some(why) = why { (trouble(&why.why)) }
            table.receipt {
                tbody {
                    @for (what, value) in [
                        ("stands", standing(key).to_owned()),
                        ("owner", or_dash(&key.owner).to_owned()),
                        ("labels", or_dash(&labels(key)).to_owned()),
                        ("models", models(key)),
                        ("requests a minute", limit(key)),
                        ("made (UTC)", at(key.created_at)),
                        ("expires (UTC)", key.expires_at.map_or_else(|| "never".into(), at)),
                        ("the one before holds until (UTC)", key.old_holds_until.map_or_else(|| "–".into(), at)),
                    ] { tr { th scope="row" { (what) } td { (value) } } }
                }
            }
        }
        @if key.revoked_at.is_some() {
            section { p.quiet { "It opens nothing. A new key may have its name." } }
        } @else {
            section aria-labelledby="change-title" {
                h2 #change-title { "Change it" }
                form.filter method="post" action="key" {
                    (hidden("change"))
                    (typed.fields())
                    p { button type="submit" { "Change" } }
                }
            }
            section aria-labelledby="rotate-title" {
                h2 #rotate-title { "Rotate it" }
                form.filter method="post" action="key" {
                    (hidden("rotate"))
                    (needed("grace", "the old one holds for", "1h", "1h"))
                    p { button type="submit" { "Make the next key" } }
                }
            }
            section aria-labelledby="revoke-title" {
                h2 #revoke-title { "Revoke it" }
                form.filter method="post" action="key" {
                    (hidden("revoke"))
                    label { input type="checkbox" name="sure" required; " Its clients are refused from then on" }
                    p { button type="submit" { "Revoke" } }
                }
            }
        }
    }
}

/// A key is told once: nothing keeps it, this page least of all.
fn told(made: &Made, title: &str, status: StatusCode) -> Response {
    let Made { key, stored } = made;
    let main = html! {
        section aria-labelledby="made-title" {
            h2 #made-title { (stored.name) }
            p role="status" { "It is in force. Copy it now: it is shown this once." }
            p { label { span { "key " } input.key #made readonly value=(key) size=(key.len()) autocomplete="off"; } }
            @if let Some(until) = stored.old_holds_until { p.quiet { "The one before holds until " (at(until)) " UTC." } }
            p { a href=(link("key", &stored.name)) { "this key" } " · " a href="keys" { "all keys" } }
        }
    };
    (status, still(title, "", main)).into_response()
}

fn holds(key: &Stored) -> bool {
    standing(key) == "holds"
}

fn standing(key: &Stored) -> &'static str {
    match key {
        revoked if revoked.revoked_at.is_some() => "revoked",
        expired if expired.expires_at.is_some_and(|at| at <= jiff::Timestamp::now()) => "expired",
        _ => "holds",
    }
}

fn labels(key: &Stored) -> String {
    key.labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
}

fn models(key: &Stored) -> String {
    if key.models.is_empty() { "all".into() } else { key.models.join(", ") }
}

fn limit(key: &Stored) -> String {
    key.requests_per_minute.map_or_else(|| "–".into(), |requests| requests.to_string())
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "–" } else { text }
}

fn at(moment: jiff::Timestamp) -> String {
    moment.strftime("%Y-%m-%d %H:%M").to_string()
}
