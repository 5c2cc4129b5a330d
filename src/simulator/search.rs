//! `GET …/ai/models/search`: the hosted models as the vendor lists them, with prices in US dollars.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::catalogue::{Catalogue, Model, Unit};
use crate::neurons::Neurons;

/// One page. `query` has `page` and `per_page`.
pub(super) fn page(catalogue: &Catalogue, query: &str) -> Value {
    let (page, per_page) = place(query);
    let models = catalogue.models();
    let hosted: Vec<_> = models.iter().filter(|model| !is_gone(model)).collect();
    let listed: Vec<_> =
        hosted.iter().skip((page - 1).saturating_mul(per_page)).take(per_page).map(|model| entry(model)).collect();
    json!({
        "result": listed, "success": true, "errors": [], "messages": [],
        "result_info": {"count": listed.len(), "page": page, "per_page": per_page, "total_count": hosted.len()}
    })
}

/// One page of a list without end.
pub(super) fn endless_page(query: &str) -> Value {
    let (page, per_page) = place(query);
    let junk = |n| json!({"name": format!("@cf/endless/{page}-{n}"), "task": {"name": "Text Generation"}});
    json!({"result": (0..per_page.min(1000)).map(junk).collect::<Vec<_>>(), "success": true, "errors": [], "messages": []})
}

/// Which page, and how many models are on one.
fn place(query: &str) -> (usize, usize) {
    let number =
        |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
    (number("page").unwrap_or(1).max(1), number("per_page").unwrap_or(20).max(1))
}

/// Its last day has come.
pub(super) fn is_gone(model: &Model) -> bool {
    model.days_left(SystemTime::now()).is_some_and(|days| days <= 0)
}

fn entry(model: &Model) -> Value {
    let mut properties = vec![json!({"property_id": "price", "value": prices(model)})];
    if let Some(context) = model.context {
        properties.push(json!({"property_id": "context_window", "value": context.to_string()}));
    }
    if model.paid_plan_only {
        properties.push(json!({"property_id": "require_workers_paid", "value": "true"}));
    }
    if let Some(day) = &model.deprecated {
        properties.push(json!({"property_id": "planned_deprecation_date", "value": day}));
    }
    json!({"id": &*model.id, "name": &*model.id, "task": {"name": model.task}, "properties": properties})
}

fn prices(model: &Model) -> Vec<Value> {
    let priced = UNITS.iter().filter_map(|(unit, words)| Some((model.prices.published(*unit)?, words)));
    priced.map(|(neurons, words)| json!({"unit": words, "price": dollars(neurons), "currency": "USD"})).collect()
}

/// Three significant digits, as the vendor rounds.
fn dollars(neurons: f64) -> f64 {
    let usd = Neurons::from_f64(neurons).usd();
    format!("{usd:.2e}").parse().unwrap_or(usd)
}

/// As the vendor words them: "per step" is per tile and step.
const UNITS: [(Unit, &str); 13] = [
    (Unit::InputToken, "per M input tokens"),
    (Unit::CachedInputToken, "per M cached input tokens"),
    (Unit::OutputToken, "per M output tokens"),
    (Unit::Tile, "per 512 by 512 tile"),
    (Unit::TileStep, "per step"),
    (Unit::InputTile, "per input 512 by 512 tile"),
    (Unit::InputTileStep, "per input 512 by 512 tile, per step"),
    (Unit::FirstMegapixel, "per first MP (1024 by 1024)"),
    (Unit::NextMegapixel, "per subsequent MP (1024 by 1024)"),
    (Unit::InputMegapixel, "per input image MP (1024 by 1024)"),
    (Unit::AudioMinute, "per audio minute"),
    (Unit::KiloCharacters, "per 1k characters"),
    (Unit::Image, "per M images"),
];
