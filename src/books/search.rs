//! The models that the vendor lists: `GET …/ai/models/search`.

use std::collections::BTreeMap;

use http::Method;
use jiff::civil::Date;
use serde::Deserialize;
use serde_json::Value;

use super::{Books, BooksError, Reading};
use crate::body::Body;
use crate::catalogue::{Entry, Prices, Task, Unit};

const WANTED: Reading = Reading { what: "the list of models", permission: "Workers AI: Read" };
const PER_PAGE: usize = 100;
/// About 65 models are listed (2026-10); a list of more pages than this, or of as many models, does not end.
const MAX_PAGES: usize = 20;
const MAX_MODELS: usize = MAX_PAGES * PER_PAGE;
/// A longer name is no model's.
const MAX_NAME_BYTES: usize = 256;
/// The published price of a neuron: $0.011 per 1,000 (pricing page, 2026-08-28).
const USD_A_NEURON: f64 = 0.000_011;
/// The dearest unit costs some dollars (2026-10). What is listed at more than this is no price, and believed it would refuse every
/// call that a budget counts.
const MAX_USD_A_UNIT: f64 = 10_000.0;

#[derive(Deserialize)]
struct Page {
    result: Vec<Value>,
}

/// What is read of a model; the rest of what is said is left.
#[derive(Deserialize)]
struct Listed {
    name: String,
    #[serde(default)]
    task: Option<Named>,
    #[serde(default)]
    properties: Vec<Property>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Property {
    property_id: String,
    #[serde(default)]
    value: Value,
}

#[derive(Deserialize)]
struct Price {
    unit: String,
    price: Value,
    currency: String,
}

impl Books {
    /// Every model that is listed, by name, with prices in neurons.
    pub async fn models(&self) -> Result<BTreeMap<String, Entry>, BooksError> {
        let mut models = BTreeMap::new();
        for page in 1..=MAX_PAGES {
            let path =
                format!("/client/v4/accounts/{}/ai/models/search?per_page={PER_PAGE}&page={page}", self.account());
            let answer = self.ask(WANTED, Method::GET, &path, Body::empty()).await?;
            let Page { result } =
                serde_json::from_slice(&answer).map_err(|error| BooksError::Garbage(error.to_string()))?;
            let before = models.len();
            models.extend(result.iter().filter_map(model));
            if models.len() > MAX_MODELS {
                break;
            }
            // A page that brings nothing new is the last, whatever it says of itself.
            if result.len() < PER_PAGE || models.len() == before {
                return if models.is_empty() {
                    Err(BooksError::Garbage("it lists no model".into()))
                } else {
                    Ok(models)
                };
            }
        }
        Err(BooksError::Garbage(format!(
            "the list of models has no end: {MAX_PAGES} pages or {MAX_MODELS} models and more"
        )))
    }
}

/// A model that cannot be read is none that could be called.
fn model(listed: &Value) -> Option<(String, Entry)> {
    let Listed { name, task, properties } = Listed::deserialize(listed).ok()?;
    if !is_name(&name) {
        return None;
    }
    let property = |id: &str| properties.iter().find(|property| property.property_id == id).map(|found| &found.value);
    let task = task.and_then(|task| serde_json::from_value::<Task>(Value::String(task.name)).ok());
    let mut entry = Entry { task: Some(task.unwrap_or(Task::Unknown)), ..Entry::default() };
    entry.prices = property("price").map(prices).filter(|prices| !prices.is_empty());
    entry.context = property("context_window").and_then(number);
    entry.paid_plan_only = property("require_workers_paid").map(is_true);
    entry.deprecated = property("planned_deprecation_date").and_then(Value::as_str).and_then(day);
    Some((name, entry))
}

/// What is shown in logs, on pages and in terminals, and asked for in a path.
fn is_name(name: &str) -> bool {
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"@/-_.:+".contains(&byte);
    name.len() <= MAX_NAME_BYTES && name.starts_with('@') && name.contains('/') && name.bytes().all(is_usual)
}

/// A number that may be written as a text.
fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| number.try_into().ok()).or_else(|| value.as_str()?.trim().parse().ok())
}

fn is_true(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| value.as_str().is_some_and(|text| text.eq_ignore_ascii_case("true")))
}

/// A day, or the day of a moment.
fn day(text: &str) -> Option<String> {
    let day: Date = text.get(..10)?.parse().ok()?;
    Some(day.to_string())
}

fn prices(listed: &Value) -> Prices {
    let listed = listed.as_array().map(Vec::as_slice).unwrap_or_default();
    let read = listed.iter().filter_map(|price| Price::deserialize(price).ok());
    read.filter_map(|price| Some((unit(&price.unit)?, dollars(&price)? / USD_A_NEURON)))
        .fold(Prices::default(), |prices, (unit, neurons)| prices.with_published(unit, neurons))
}

/// Nothing is sold for nothing: a zero is a price that nobody has filled in, and believed it would let every budget be overspent.
fn dollars(price: &Price) -> Option<f64> {
    let figure = price.price.as_f64().or_else(|| price.price.as_str()?.trim().parse().ok());
    figure.filter(|usd| price.currency.eq_ignore_ascii_case("USD") && *usd > 0.0 && *usd <= MAX_USD_A_UNIT)
}

/// The unit behind the vendor's words. "Per step" is per tile *and* step, as bills show.
fn unit(words: &str) -> Option<Unit> {
    let words = words.to_ascii_lowercase();
    let has = |part: &str| words.contains(part);
    let unit = match () {
        () if has("token") && has("cached") => Unit::CachedInputToken,
        () if has("token") && has("input") => Unit::InputToken,
        () if has("token") && has("output") => Unit::OutputToken,
        () if has("step") && has("input") => Unit::InputTileStep,
        () if has("step") => Unit::TileStep,
        () if has("tile") && has("input") => Unit::InputTile,
        () if has("tile") => Unit::Tile,
        () if has("mp") && has("first") => Unit::FirstMegapixel,
        () if has("mp") && has("subsequent") => Unit::NextMegapixel,
        () if has("mp") && has("input") => Unit::InputMegapixel,
        () if has("minute") && has("websocket") => Unit::AudioMinuteWebsocket,
        () if has("minute") => Unit::AudioMinute,
        () if has("character") => Unit::KiloCharacters,
        () if has("image") => Unit::Image,
        () => return None,
    };
    Some(unit)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_wording_of_a_unit_is_understood() {
        for (words, wanted) in [
            ("per M input tokens", Unit::InputToken),
            ("per M cached input tokens", Unit::CachedInputToken),
            ("per M output tokens", Unit::OutputToken),
            ("per 512 by 512 tile", Unit::Tile),
            ("per 512x512 tile", Unit::Tile),
            ("per step", Unit::TileStep),
            ("per 512x512 tile, per step", Unit::TileStep),
            ("per output 512x512 tile, per step", Unit::TileStep),
            ("per input 512x512 tile", Unit::InputTile),
            ("per input 512 by 512 tile, per step", Unit::InputTileStep),
            ("per first MP (1024x1024)", Unit::FirstMegapixel),
            ("per subsequent MP", Unit::NextMegapixel),
            ("per input image MP", Unit::InputMegapixel),
            ("per audio minute", Unit::AudioMinute),
            ("per audio minute (WebSocket)", Unit::AudioMinuteWebsocket),
            ("per 1k characters input", Unit::KiloCharacters),
            ("per M images", Unit::Image),
        ] {
            assert_eq!(unit(words), Some(wanted), "{words}");
        }
        assert_eq!(unit("per fortnight"), None);
    }

    #[test]
    fn a_model_is_read_with_what_it_says_and_without_what_it_does_not() {
        let (name, entry) = model(&json!({
            "id": "f8703a00", "source": 1, "name": "@cf/meta/llama-3.3-70b-instruct-fp8-fast", "description": "…",
            "task": {"id": "c329", "name": "Text Generation", "description": "…"}, "tags": [],
            "properties": [
                {"property_id": "async_queue", "value": "true"},
                {"property_id": "context_window", "value": "24000"},
                {"property_id": "price", "value": [
                    {"unit": "per M input tokens", "price": 0.293, "currency": "USD"},
                    {"unit": "per M output tokens", "price": 2.253, "currency": "USD"},
                    {"unit": "per fortnight", "price": 1, "currency": "USD"},
                    {"unit": "per M cached input tokens", "price": 1, "currency": "EUR"},
                    {"unit": "per step", "price": -1, "currency": "USD"}, 7]},
                {"property_id": "require_workers_paid", "value": "true"},
                {"property_id": "planned_deprecation_date", "value": "2026-12-30"},
                {"property_id": "terms", "value": null}
            ]
        }))
        .unwrap();
        assert_eq!(name, "@cf/meta/llama-3.3-70b-instruct-fp8-fast");
        let prices = entry.prices.unwrap();
        // 26,668 and 204,805 on the pricing page.
        assert_eq!(prices.published(Unit::InputToken), Some(26_636.0));
        assert_eq!(prices.published(Unit::OutputToken), Some(204_818.0));
        assert_eq!((prices.get(Unit::CachedInputToken), prices.get(Unit::TileStep)), (None, None));
        assert_eq!((entry.task, entry.context), (Some(Task::TextGeneration), Some(24_000)));
        assert_eq!((entry.paid_plan_only, entry.deprecated.as_deref()), (Some(true), Some("2026-12-30")));

        let (_, bare) = model(&json!({"name": "@cf/a/b", "task": {"name": "Mind Reading"}})).unwrap();
        assert_eq!((bare.task, bare.prices, bare.deprecated), (Some(Task::Unknown), None, None));
        for wrong in [json!({"name": "../../etc"}), json!({"name": "@cf/a b"}), json!({}), json!(7), json!(null)] {
            assert!(model(&wrong).is_none(), "{wrong}");
        }
        for name in
            ["@", "@cf/\u{1b}[31mred", "@cf/a\"b", "@cf/<script>", "@cf/\u{202e}b", &format!("@cf/{}", "a".repeat(300))]
        {
            assert!(model(&json!({"name": name})).is_none(), "{name:?}");
        }
    }

    #[test]
    fn a_price_of_nothing_or_of_a_fortune_is_no_price_and_a_text_is_one() {
        let read = |price: Value| {
            let listed = json!([{"unit": "per M input tokens", "price": price, "currency": "USD"}]);
            prices(&listed).published(Unit::InputToken)
        };
        for wrong in
            [json!(0), json!("0.0"), json!(-0.1), json!(1e308), json!(1e6), json!("NaN"), json!("inf"), json!(null)]
        {
            assert_eq!(read(wrong.clone()), None, "{wrong}");
        }
        assert_eq!((read(json!(0.011)), read(json!(" 0.011 "))), (Some(1000.0), Some(1000.0)));
    }

    proptest::proptest! {
        #[test]
        fn no_answer_breaks_the_reader(text in ".{0,200}", price in proptest::num::f64::ANY) {
            let listed = json!({"name": format!("@{text}"), "task": {"name": &text}, "properties": [
                {"property_id": "price", "value": [{"unit": &text, "price": price, "currency": "USD"}]},
                {"property_id": "planned_deprecation_date", "value": &text},
                {"property_id": "context_window", "value": &text},
            ]});
            let _ = model(&listed);
        }
    }
}
