//! Budgets for people: how each and its buckets stand, raised and begun anew by forms.

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::figures::{amount, percent, usd, whole};
use super::form::{Sent, field, link, moment, needed, problem, read_moment, see, trouble};
use super::still::still;
use crate::layers::budget::{BucketStatus, ChangeError, FREE, Status};
use crate::neurons::Neurons;
use crate::peer::Peer;
use crate::sidecar::admin_state::Admin;
use crate::sidecar::budget_changes::{Raise, Reset, raise_by, reset_by, status, who};

/// `GET /page/budget`
#[derive(Deserialize)]
pub(super) struct Named {
    name: String,
    #[serde(default)]
    done: Option<What>,
}

/// `POST /page/budget`
#[derive(Deserialize)]
pub(super) struct Changed {
    name: String,
    what: What,
    #[serde(default)]
    bucket: String,
    #[serde(default)]
    to: String,
    #[serde(default)]
    until: String,
    #[serde(default)]
    reason: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum What {
    Raise,
    Reset,
}

const SHOWN: usize = 100;

pub(super) async fn list(State(admin): State<Admin>) -> Response {
    let all = admin.spending.budgets.get().status();
    let main = html! {
        section #budgets aria-labelledby="budgets-title" {
            h2 #budgets-title { "How they stand" }
            div.scroll tabindex="0" role="group" aria-labelledby="budgets-title" {
                table {
                    thead { tr {
                        @for name in ["budget", "limit of a bucket", "buckets", "spent", "reserved", "left in the fullest", "refused", "diverted", "begins anew (UTC)"] {
                            th scope="col" { (name) }
                        }
                    } }
                    tbody { @for budget in &all { (row(budget)) } }
                }
            }
            p.quiet { "In neurons and US dollars. Rules are changed where the config is; a raise and a reset stand on a budget's own page." }
        }
    };
    still("Budgets", "", main)
}

pub(super) async fn one(State(admin): State<Admin>, Query(named): Query<Named>) -> Response {
    let done = named.done.map(|what| match what {
        What::Raise => "It is raised, and the log says by whom.",
        What::Reset => "It has begun anew, and the log says by whom and why.",
    });
    let said = done.map(|done| html! { p.notice role="status" { (done) } });
    match page(&admin, &named.name, said.as_ref(), None) {
        Some(main) => still("Budget", "", main),
        None => problem("Budget", StatusCode::NOT_FOUND, "There is no such budget."),
    }
}

pub(super) async fn change(
    State(admin): State<Admin>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Sent(form): Sent<Changed>,
) -> Response {
    let done = match form.what {
        What::Raise => raise(&admin, &form, who(peer, &headers)).await.map(|()| "raise"),
        What::Reset => reset(&admin, &form, who(peer, &headers)).await.map(|()| "reset"),
    };
    match done {
        Ok(done) => see(format!("{}&done={done}", link("budget", &form.name))),
        Err(error) => {
            let (status, why) = (status(&error), error.to_string());
            match page(&admin, &form.name, Some(&trouble(&why)), Some(&form)) {
                Some(main) => (status, still("Budget", "", main)).into_response(),
                None => problem("Budget", status, &why),
            }
        }
    }
}

async fn raise(admin: &Admin, form: &Changed, who: String) -> Result<(), ChangeError> {
    let asked = Raise {
        to: form.to.clone(),
        until: read_moment(&form.until).map_err(ChangeError::Refused)?,
        bucket: form.bucket()?,
        who: None,
        reason: Some(form.reason.clone()),
    };
    raise_by(admin, form.name.clone(), asked, who).await.map(drop)
}

async fn reset(admin: &Admin, form: &Changed, who: String) -> Result<(), ChangeError> {
    let asked = Reset { bucket: form.bucket()?, who: None, reason: form.reason.clone() };
    reset_by(admin, form.name.clone(), asked, who).await.map(drop)
}

// === impl Changed ===

impl Changed {
    /// As the page shows a bucket: a JSON array of the values that it is split by; nothing is each of them.
    fn bucket(&self) -> Result<Option<Vec<Value>>, ChangeError> {
        let text = self.bucket.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let why = || format!("{text} is no bucket: write it as the table has it, such as [\"search\"]");
        serde_json::from_str(text).map(Some).map_err(|_| ChangeError::Refused(why()))
    }
}

fn row(budget: &Status) -> Markup {
    html! {
        tr {
            th scope="row" { a href=(link("budget", &budget.name)) { (budget.name) } }
            td { (money(budget.limit)) }
            td { (whole(budget.buckets as f64)) }
            td { (money(budget.spent)) }
            td { (money(budget.reserved)) }
            td { (money(budget.left)) }
            td.bad[budget.rejected > 0] { (whole(budget.rejected as f64)) }
            td { (whole(budget.diverted as f64)) }
            td { (jiff::Timestamp::try_from(budget.resets_at).map(|at| at.strftime("%Y-%m-%d %H:%M").to_string()).unwrap_or_default()) }
        }
    }
}

fn page(admin: &Admin, name: &str, said: Option<&Markup>, sent: Option<&Changed>) -> Option<Markup> {
    let budgets = admin.spending.budgets.get();
    let buckets = budgets.buckets_of(name, SHOWN);
    let budget = budgets.status().into_iter().find(|budget| budget.name == name)?;
    let is_split = buckets.iter().flatten().any(|bucket| !bucket.bucket.is_empty());
    // A raise may be for all of them at once; what is forgotten is one bucket's.
    let form = |what: &str, label: &str, fields: Markup, button: &str| {
        html! {
            form.filter method="post" action="budget" {
                input type="hidden" name="what" value=(what);
                input type="hidden" name="name" value=(name);
                @if is_split {
                    label {
                        span { (label) }
                        input name="bucket" list="buckets" placeholder="[\"search\"]" autocomplete="off" required[what == "reset"]
                            value=(sent.map_or("", |sent| &sent.bucket));
                    }
                }
                (fields)
                p { button type="submit" { (button) } }
            }
        }
    };
    let (to, until, reason) =
        sent.map_or(("", "", ""), |sent| (sent.to.as_str(), sent.until.as_str(), sent.reason.as_str()));
    let is_free = name == FREE;
    Some(html! {
        section #budget aria-labelledby="budget-title" {
            h2 #budget-title { (name) }
            @if let Some(said) = said { (said) }
            div.scroll tabindex="0" role="group" aria-labelledby="budget-title" {
                table {
                    thead { tr {
                        @for name in ["bucket", "limit", "spent", "reserved", "spent of its limit"] { th scope="col" { (name) } }
                    } }
                    tbody {
                        @for bucket in buckets.iter().flatten() { (bucket_row(bucket)) }
                        @if buckets.iter().flatten().next().is_none() {
                            tr {
                                th scope="row" { "all" }
                                td { (money(budget.limit)) } td { (money(budget.spent)) } td { (money(budget.reserved)) }
                                td { (percent(budget.spent.as_f64(), budget.limit.as_f64())) }
                            }
                        }
                    }
                }
            }
            @if budget.buckets > SHOWN { p.quiet { "The " (SHOWN) " of " (budget.buckets) " that have spent most." } }
            datalist #buckets {
                @for bucket in buckets.iter().flatten() { option value=(bucket.bucket) {} }
            }
        }
        @if is_free {
            section { p.quiet { "The vendor gives the free allocation: it is neither raised nor begun anew here." } }
        } @else {
            section aria-labelledby="raise-title" {
                h2 #raise-title { "Raise it for a while" }
                (form("raise", "bucket, none for each", html! {
                    (needed("to", "to", "20 USD", to))
                    (moment("until", "until, else to the window's end", until))
                    (field("reason", "reason", "launch day", reason))
                }, "Raise"))
                p.quiet { "Written like 20 USD or 500 neurons. The limit or less ends a raise." }
            }
            section aria-labelledby="reset-title" {
                h2 #reset-title { "Begin it anew" }
                (form("reset", "bucket (needed)", needed("reason", "reason for the log", "a job ran wild", reason), "Forget what it has spent"))
            }
        }
    })
}

fn bucket_row(bucket: &BucketStatus) -> Markup {
    html! {
        tr {
            th scope="row" { @if bucket.bucket.is_empty() { "all" } @else { (bucket.bucket) } }
            td { (money(bucket.limit)) }
            td { (money(bucket.spent)) }
            td { (money(bucket.reserved)) }
            td { (percent(bucket.spent.as_f64(), bucket.limit.as_f64())) }
        }
    }
}

fn money(neurons: Neurons) -> Markup {
    html! { data value=(neurons.decimal()) { (amount(neurons.as_f64())) } " " span.quiet { (usd(neurons)) } }
}
