//! `GET …/ai/models/search`: the hosted models as the vendor lists them, with prices in US dollars.

use serde_json::{Value, json};

use crate::catalogue::{Catalogue, Model, Unit};
use crate::neurons::Neurons;

/// One page. `query` has `page` and `per_page`.
pub(super) fn page(catalogue: &Catalogue, query: &str) -> Value {
    let number =
        |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
    let (page, per_page): (usize, usize) =
        (number("page").unwrap_or(1).max(1), number("per_page").unwrap_or(20).max(1));
    let models = catalogue.models();
    let hosted: Vec<_> = models.iter().filter(|model| model.deprecated.is_none()).collect();
    let listed: Vec<_> =
        hosted.iter().skip((page - 1).saturating_mul(per_page)).take(per_page).map(|model| entry(model)).collect();
    json!({
        "result": listed, "success": true, "errors": [], "messages": [],
        "result_info": {"count": listed.len(), "page": page, "per_page": per_page, "total_count": hosted.len()}
    })
}

fn entry(model: &Model) -> Value {
    let mut properties = vec![json!({"property_id": "price", "value": prices(model)})];
    if let Some(context) = model.context {
        properties.push(json!({"property_id": "context_window", "value": context.to_string()}));
    }
    if model.paid_plan_only {
        properties.push(json!({"property_id": "require_workers_paid", "value": "true"}));
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
