//! The log for people: calls by filter, and one call's receipt.

use std::path::PathBuf;

use axum::extract::{Path, Query, RawQuery, State};
use axum::response::Response;
use http::Uri;
use maud::{Markup, html};

use super::figures::{amount, short};
use super::still::still;
use crate::payload::{Part, Payload};
use crate::readers::records::{Archive, Record, RecordsError};
use crate::receipt::{CallId, Outcome};
use crate::sidecar::admin_state::Admin;
use crate::sidecar::logs::{self, LogQuery};

/// A field of the form: its name in the address, its label, and what may be written there.
type Field = (&'static str, &'static str, &'static str);

const FIELDS: [Field; 15] = [
    ("model", "model", "@cf/…"),
    ("key", "key", ""),
    ("status", "status", "200"),
    ("metadata", "metadata", "team:search"),
    ("event_id", "event id", ""),
    ("start_date", "from", "2026-11-24T08:00:00Z"),
    ("end_date", "before", "2026-11-25T00:00:00Z"),
    ("min_cost", "USD from", "0.001"),
    ("max_cost", "USD to", ""),
    ("min_duration", "ms from", "1000"),
    ("max_duration", "ms to", ""),
    ("min_tokens_in", "tokens in from", ""),
    ("max_tokens_in", "tokens in to", ""),
    ("min_tokens_out", "tokens out from", ""),
    ("max_tokens_out", "tokens out to", ""),
];
const SHOWN: usize = 50;
/// Of a body, in bytes.
const MOST_OF_A_BODY: usize = 64 << 10;
const NONE_KEPT: &str = "No records are kept: set [records] path.";

pub(super) async fn list(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    // A browser sends the fields that were left empty, too.
    let query = query.unwrap_or_default();
    let kept: Vec<_> =
        query.split('&').filter(|pair| pair.split_once('=').is_some_and(|(_, v)| !v.is_empty())).collect();
    let address = format!("/?{}", kept.join("&"));
    let address = address.parse::<Uri>().unwrap_or_default();
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(&address).map(|Query(pairs)| pairs).unwrap_or_default();
    let wanted = Query::<LogQuery>::try_from_uri(&address).map_err(|why| why.body_text());
    let found = match wanted.and_then(|Query(wanted)| wanted.filter()) {
        Ok(filter) => ask(&admin, move |archive| archive.list(&filter, SHOWN)).await,
        Err(why) => Err(why),
    };
    let older: Vec<_> = kept.into_iter().filter(|pair| !pair.starts_with("before=")).collect();
    let main = html! {
        section aria-labelledby="filter-title" { h2 #filter-title { "Which calls" } (form(&pairs)) }
        section #calls aria-labelledby="calls-title" {
            h2 #calls-title { "Calls, newest first" }
            @match &found {
                Ok(records) => (table(records, &older.join("&"))),
                Err(why) => p.notice #trouble { (why) },
            }
        }
    };
    still("Log", "", main)
}

pub(super) async fn receipt(State(admin): State<Admin>, Path(id): Path<String>) -> Response {
    let found = match CallId::parse(&id) {
        Some(id) => {
            logs::written(&admin).await;
            ask(&admin, move |archive| Ok((archive.get(id)?, archive.payload(id)?))).await
        }
        None => Ok((None, None)),
    };
    let main = match &found {
        Ok((Some(record), payload)) => one(record, payload.as_ref()),
        Ok((None, _)) => html! { section { p.notice #trouble { "There is no such record." } } },
        Err(why) => html! { section { p.notice #trouble { (why) } } },
    };
    still("Receipt", "../", main)
}

/// Asks the database on a thread that may block.
async fn ask<T: Send + 'static>(
    admin: &Admin,
    question: impl FnOnce(&Archive) -> Result<T, RecordsError> + Send + 'static,
) -> Result<T, String> {
    let path: PathBuf = admin.records_path.clone().ok_or(NONE_KEPT)?;
    let answer = tokio::task::spawn_blocking(move || Archive::open(&path).and_then(|archive| question(&archive))).await;
    answer.map_err(|_| "It cannot be shown; the log says why.".to_owned())?.map_err(|error| error.to_string())
}

/// Filters are an address, so that they can be kept and sent on; nothing is changed by them.
fn form(pairs: &[(String, String)]) -> Markup {
    let value = |name: &str| pairs.iter().find(|(of, _)| of == name).map_or("", |(_, value)| value);
    let choices = [
        ("outcome", "how it ended", Outcome::ALL.map(Outcome::label).to_vec()),
        ("success", "answered", vec!["true", "false"]),
        ("cached", "from the cache", vec!["true", "false"]),
        ("feedback", "feedback", vec!["-1", "0", "1"]),
    ];
    html! {
        form.filter method="get" action="log" {
            @for (name, label, example) in FIELDS {
                label { span { (label) } input name=(name) value=(value(name)) placeholder=(example) autocomplete="off"; }
            }
            @for (name, label, all) in &choices {
                label {
                    span { (label) }
                    select name=(name) {
                        option value="" { "any" }
                        @for one in all { option value=(one) selected[value(name) == *one] { (one) } }
                    }
                }
            }
            p { button type="submit" { "Show" } " " a href="log" { "all" } }
        }
    }
}

fn table(records: &[Record], filters: &str) -> Markup {
    html! {
        div.scroll tabindex="0" role="group" aria-labelledby="calls-title" {
            table {
                thead { tr {
                    @for name in ["time (UTC)", "model", "how it ended", "neurons", "USD", "tokens in / out", "took", "key", "receipt"] {
                        th scope="col" { (name) }
                    }
                } }
                tbody {
                    @for record in records { (row(record)) }
                    @if records.is_empty() { tr { td.quiet colspan="9" { "no such call" } } }
                }
            }
        }
        @if let Some(last) = records.last().filter(|_| records.len() == SHOWN) {
            p { a rel="next" href=(format!("log?{filters}&before={}", last.id)) { "older" } }
        }
    }
}

fn row(record: &Record) -> Markup {
    let is_bad = !matches!(&*record.outcome, "ok" | "cache_hit");
    html! {
        tr {
            td { (time(record)) }
            td title=(record.model) { (short(&record.model)) }
            td.bad[is_bad] { (record.refused.as_deref().unwrap_or(&record.outcome)) @if let Some(status) = record.status { " " (status) } }
            td { (amount(record.neurons)) }
            td { (format!("{:.6}", record.usd)) }
            td { (record.input_tokens) " / " (record.output_tokens) }
            td { (format!("{:.0} ms", record.duration_ms)) }
            td { (record.key.as_deref().unwrap_or("–")) }
            td { a href=(format!("log/{}", record.id)) title=(record.id) aria-label=(format!("Receipt {}", &record.id)) { "receipt" } }
        }
    }
}

fn time(record: &Record) -> String {
    jiff::Timestamp::from_millisecond(record.received_ms).map_or_else(|_| String::new(), |at| format!("{at:.0}"))
}

fn one(record: &Record, payload: Option<&Payload>) -> Markup {
    let all = serde_json::to_value(record).ok();
    let all = all.as_ref().and_then(|value| value.as_object()).into_iter().flatten();
    let shown = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    html! {
        section aria-labelledby="record-title" {
            h2 #record-title { (time(record)) " · " (record.model) }
            div.scroll tabindex="0" role="group" aria-labelledby="record-title" {
                table.receipt {
                    tbody {
                        @for (name, value) in all.filter(|(_, value)| !value.is_null()) {
                            tr { th scope="row" { (name.replace('_', " ")) } td { (shown(value)) } }
                        }
                    }
                }
            }
        }
        @match payload {
            Some(payload) => {
                (body(&record.id, "request", &payload.request))
                (body(&record.id, "response", &payload.response))
            }
            None => section { p.quiet { "Its bodies were not kept ([records] payloads, cf-aig-collect-log-payload)." } },
        }
    }
}

/// Somebody's own words, as text alone.
fn body(id: &str, name: &str, part: &Part) -> Markup {
    let begin = &part.bytes[..part.bytes.len().min(MOST_OF_A_BODY)];
    let title = format!("{name}-title");
    html! {
        section aria-labelledby=(title) {
            h2 id=(title) { "Its " (name) " " span.quiet { (part.content_type) ", " (part.length) " bytes" } }
            pre.scroll tabindex="0" role="group" aria-labelledby=(title) { (String::from_utf8_lossy(begin)) }
            p { a href=(format!("../../logs/{id}/{name}")) { "as it was" } }
        }
    }
}
