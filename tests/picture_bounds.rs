//! The bound of a picture's cost, held against a plain reckoning over sizes and steps in every spelling, as JSON and as forms.
//! `TOLLGATE_CASES=100000` for the full count.

#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::LazyLock;

use proptest::prelude::*;
use tollgate::call::Endpoint;
use tollgate::catalogue::{Catalogue, Model, StepsField, Unit};
use tollgate::layers::identify::measure;
use tollgate::receipt::Estimate;

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(Catalogue::default);

const MODELS: [&str; 6] = [
    "@cf/black-forest-labs/flux-1-schnell",
    "@cf/black-forest-labs/flux-2-dev",
    "@cf/black-forest-labs/flux-2-klein-4b",
    "@cf/black-forest-labs/flux-2-klein-9b",
    "@cf/leonardo/lucid-origin",
    "@cf/leonardo/phoenix-1.0",
];
const NAMES: [&str; 4] = ["width", "height", "steps", "num_steps"];
/// A spelling in JSON and what `Number` makes of it; a form has the same without quotes.
const VALUES: [(&str, f64); 16] = [
    ("512", 512.0),
    ("2000", 2000.0),
    ("8", 8.0),
    ("1", 1.0),
    ("0", 0.0),
    ("-7", -7.0),
    ("900.5", 900.5),
    ("1e3", 1000.0),
    ("1024.0", 1024.0),
    ("null", f64::NAN),
    ("\"1536\"", 1536.0),
    ("\" 77 \"", 77.0),
    ("\"2e3\"", 2000.0),
    ("\"\"", 0.0),
    ("\"wide\"", f64::NAN),
    ("\"0\"", 0.0),
];

type Field = (&'static str, (&'static str, f64));

fn fields() -> impl Strategy<Value = Vec<Field>> {
    let field = (prop::sample::select(&NAMES[..]), prop::sample::select(&VALUES[..]));
    prop::collection::vec(field, 0..6)
}

fn json(fields: &[Field]) -> String {
    let fields: String = fields.iter().map(|(name, (value, _))| format!(",\"{name}\":{value}")).collect();
    format!("{{\"prompt\":\"x\"{fields}}}")
}

fn form(fields: &[Field], line: &str) -> String {
    let part = |name: &str, value: &str| {
        format!("--b{line}Content-Disposition: form-data; name=\"{name}\"{line}{line}{value}{line}")
    };
    let fields: String = fields.iter().map(|(name, (value, _))| part(name, value.trim_matches('"'))).collect();
    format!("preamble{line}{}{fields}--b--{line}", part("prompt", "a --b\rfox"))
}

/// What a field comes to, of twins the first or the last; zero, nothing and `NaN` are the default, and less is at most the most.
fn read(fields: &[Field], name: &str, is_last: bool, default: u32, most: Option<u32>) -> f64 {
    let mut found = fields.iter().filter(|(key, _)| *key == name).map(|(_, (_, number))| *number);
    let number = if is_last { found.next_back() } else { found.next() };
    match number {
        Some(number) if number > 0.0 => number.ceil(),
        Some(number) if number < 0.0 => f64::from(most.unwrap_or(default)),
        _ => f64::from(default),
    }
}

/// Neurons of the picture that a plain reader of these fields makes.
fn cost(model: &Model, fields: &[Field], is_last: bool) -> f64 {
    let (default, limits) = (model.image.unwrap(), model.image_limits);
    let side = |name, default| {
        if limits.fixed_size { f64::from(default) } else { read(fields, name, is_last, default, limits.max_side) }
    };
    let steps = |name| read(fields, name, is_last, default.steps, limits.max_steps);
    let is_given = |name: &str| fields.iter().any(|(key, (value, _))| *key == name && *value != "null");
    let steps = match limits.steps_field {
        StepsField::NumSteps => steps("num_steps"),
        StepsField::Either if !is_given("steps") && is_given("num_steps") => steps("num_steps"),
        _ => steps("steps"),
    };
    let area = side("width", default.size.width) * side("height", default.size.height);
    let (tiles, megapixels) = (area / 262_144.0, (area / 1_048_576.0).ceil());
    let price = |unit| model.prices.published(unit).unwrap_or(0.0);
    let first = price(Unit::FirstMegapixel);
    let megapixels = if first > 0.0 { first + price(Unit::NextMegapixel) * (megapixels - 1.0).max(0.0) } else { 0.0 };
    tiles * (price(Unit::Tile) + steps * price(Unit::TileStep)) + megapixels
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("TOLLGATE_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(2_000);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn no_picture_costs_more_than_its_bound(
        fields in fields(),
        within in fields(),
        shape in 0..5,
        model in prop::sample::select(&MODELS[..]),
    ) {
        let model = CATALOGUE.get(model).unwrap();
        let wrapped = || format!("{},\"input\":{}}}", json(&fields).trim_end_matches('}'), json(&within));
        let as_json = |form: &str| serde_json::json!({"multipart": {"body": form, "contentType": "multipart/form-data; boundary=b"}});
        let (body, content_type) = match shape {
            0 => (json(&fields), "application/json"),
            1 => (wrapped(), "application/json"),
            2 => (form(&fields, "\r\n"), "multipart/form-data; boundary=b"),
            3 => (form(&fields, "\n"), "Multipart/Form-Data; Boundary=\"b\""),
            _ => (as_json(&form(&fields, "\r\n")).to_string(), "application/json"),
        };
        let ask = measure(body.as_bytes(), content_type, Endpoint::Run).unwrap();
        let Some(bound) = Estimate::new(&ask, &model).upper else {
            // Steps without end on a model that names no most: nothing bounds them.
            prop_assert_eq!(&*model.id, "@cf/black-forest-labs/flux-2-dev");
            prop_assert!(ask.reach.image.steps.or_most || ask.reach.image.num_steps.or_most, "{}", body);
            return Ok(());
        };
        let bound = bound.as_f64();
        let readings: &[&[Field]] = if shape == 1 { &[&fields, &within] } else { &[&fields] };
        for reading in readings {
            for is_last in [true, false] {
                let cost = cost(&model, reading, is_last);
                prop_assert!(bound >= cost * (1.0 - 1e-9) - 1e-6, "{bound} under {cost} for {body}");
            }
        }
    }
}
