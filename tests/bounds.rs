//! The bound of a call's cost, held against a slow and plain reckoning of what a vendor could charge for it: generated bodies
//! of every form, each read in every way in which JavaScript may read it.
//!
//! The reckoning reads no bytes: it knows the body as it was generated, so that a mistake of the gate's reader is not made
//! twice. `TOLLGATE_CASES=100000` for the full count.

#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::LazyLock;

use proptest::prelude::*;
use tollgate::call::Endpoint;
use tollgate::catalogue::{Catalogue, Model, Unit};
use tollgate::layers::identify::measure;
use tollgate::neurons::Neurons;
use tollgate::receipt::Estimate;

/// A JSON value as it is generated: keys may come twice, numbers and strings have their spelling.
#[derive(Clone, Debug)]
enum Js {
    Literal(&'static str),
    Text(String),
    List(Vec<Js>),
    Object(Vec<(String, Js)>),
}

/// How code that takes a count coerces it.
#[derive(Clone, Copy, Debug)]
enum Coercion {
    /// `Number.isSafeInteger(x) && x > 0`, else an error.
    Strict,
    /// `Number(x) || fallback`
    Number,
    /// `parseInt(x) || fallback`
    ParseInt,
    /// `x ?? fallback`, and then compared as it is: `NaN` and negative numbers bound nothing.
    AsItIs,
}

const COERCIONS: [Coercion; 4] = [Coercion::Strict, Coercion::Number, Coercion::ParseInt, Coercion::AsItIs];

/// What a count comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Counted {
    Refused,
    Default,
    Boundless,
    Of(u128),
}

// === rendering ===

impl Js {
    fn render(&self, spelling: u64, out: &mut String) {
        let space = ["", " ", "\n\t"][(spelling % 3) as usize];
        match self {
            Self::Literal(literal) => out.push_str(literal),
            Self::Text(text) => quote(text, spelling, out),
            Self::List(items) => {
                out.push('[');
                for (n, item) in items.iter().enumerate() {
                    out.push_str(if n > 0 { "," } else { space });
                    item.render(spelling.rotate_right(7), out);
                }
                out.push(']');
            }
            Self::Object(fields) => {
                out.push('{');
                for (n, (name, value)) in fields.iter().enumerate() {
                    out.push_str(if n > 0 { "," } else { space });
                    quote(name, spelling.rotate_right(n as u32), out);
                    out.push_str(space);
                    out.push(':');
                    value.render(spelling.rotate_right(11), out);
                }
                out.push('}');
            }
        }
    }

    fn body(&self, spelling: u64) -> Vec<u8> {
        let mut out = String::from(if spelling & 256 == 0 { "" } else { "\u{feff}" });
        self.render(spelling, &mut out);
        // U+FFFF stands for what is half an emoji, and U+FFFE for a byte that is no UTF-8.
        let out = out.replace('\u{ffff}', "\\ud83d").into_bytes();
        let mut bytes = Vec::new();
        let mut rest = &out[..];
        while let Some(at) = memchr::memmem::find(rest, "\u{fffe}".as_bytes()) {
            bytes.extend_from_slice(&rest[..at]);
            bytes.push(0xff);
            rest = &rest[at + 3..];
        }
        bytes.extend_from_slice(rest);
        bytes.extend_from_slice([&b""[..], b"\n", b"\0\0"][(spelling / 3 % 3) as usize]);
        bytes
    }

    /// Of twins the last.
    fn get(&self, name: &str) -> Option<&Js> {
        let Self::Object(fields) = self else { return None };
        fields.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Every text in it, in bytes of UTF-8.
    fn text_bytes(&self) -> u128 {
        match self {
            Self::Literal(_) => 0,
            Self::Text(text) => text.len() as u128,
            Self::List(items) => items.iter().map(Self::text_bytes).sum(),
            Self::Object(fields) => fields.iter().map(|(_, value)| value.text_bytes()).sum(),
        }
    }
}

fn quote(text: &str, spelling: u64, out: &mut String) {
    out.push('"');
    for (n, char) in text.chars().enumerate() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            '\n' => out.push_str("\\n"),
            char if char.is_ascii() && spelling >> (n % 48) & 5 == 5 => {
                out.push_str(&format!("\\u{:04x}", char as u32))
            }
            char => out.push(char),
        }
    }
    out.push('"');
}

// === the reckoning ===

fn js_number(text: &str) -> f64 {
    let text = text.trim();
    if let Some(digits) = text.strip_prefix("0x") {
        return u32::from_str_radix(digits, 16).map_or(f64::NAN, f64::from);
    }
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    if text.is_empty() {
        0.0
    } else if is_decimal {
        text.parse().unwrap_or(f64::NAN)
    } else {
        f64::NAN
    }
}

fn js_parse_int(text: &str) -> f64 {
    let text = text.trim();
    if text.starts_with("0x") {
        return js_number(text);
    }
    let digits: String = text
        .chars()
        .enumerate()
        .take_while(|(n, c)| c.is_ascii_digit() || *n == 0 && *c == '-')
        .map(|(_, c)| c)
        .collect();
    digits.parse().unwrap_or(f64::NAN)
}

fn number_of(value: &Js, parse: fn(&str) -> f64) -> f64 {
    match value {
        Js::Literal("true") => 1.0,
        Js::Literal("false" | "null") => 0.0,
        Js::Literal(number) => parse(number),
        Js::Text(text) => parse(text),
        Js::List(items) => match &items[..] {
            [] => 0.0,
            [one] => number_of(one, parse),
            _ => f64::NAN,
        },
        Js::Object(_) => f64::NAN,
    }
}

fn counted(value: Option<&Js>, coercion: Coercion) -> Counted {
    let Some(value) = value.filter(|value| !matches!(value, Js::Literal("null"))) else { return Counted::Default };
    // More than any safe integer is more than any window.
    let is_size = |number: &f64| (0.0..=9_007_199_254_740_991.0).contains(number);
    let by_size =
        |number: f64| Some(number).filter(is_size).map_or(Counted::Boundless, |size| Counted::Of(size.ceil() as u128));
    match coercion {
        Coercion::Strict => match value {
            Js::Literal(literal) if !matches!(*literal, "true" | "false") => {
                let number = js_number(literal);
                let is_count = number.fract() == 0.0 && number > 0.0 && number <= 9_007_199_254_740_991.0;
                if is_count { Counted::Of(number as u128) } else { Counted::Refused }
            }
            _ => Counted::Refused,
        },
        Coercion::Number | Coercion::ParseInt => {
            let parse = if matches!(coercion, Coercion::Number) { js_number } else { js_parse_int };
            let number = number_of(value, parse);
            if number == 0.0 || number.is_nan() { Counted::Default } else { by_size(number) }
        }
        Coercion::AsItIs => by_size(number_of(value, js_number)),
    }
}

/// What a text model charges for one object of inputs.
fn text_cost(model: &Model, inputs: &Js, form: Form, coercion: Coercion) -> Option<u128> {
    let names: &[&str] = match form {
        Form::Responses => &["max_output_tokens"],
        // gpt-oss has OpenAI's own schema on that route.
        _ if model.max_tokens_default.is_some() && !(form == Form::Chat && model.default_on_run_only) => {
            &["max_tokens"]
        }
        _ => &["max_tokens", "max_completion_tokens"],
    };
    let window = model.context.map(u128::from);
    let default = match form {
        Form::Responses => None,
        Form::Chat if model.default_on_run_only => None,
        _ => model.max_tokens_default.map(u128::from),
    };
    let limits: Vec<_> = names.iter().map(|name| counted(inputs.get(name), coercion)).collect();
    if limits.contains(&Counted::Refused) {
        return Some(0);
    }
    let given =
        limits.iter().filter_map(|limit| if let Counted::Of(tokens) = limit { Some(*tokens) } else { None }).max();
    let tokens = match given {
        _ if limits.contains(&Counted::Boundless) => window?,
        Some(tokens) => tokens,
        None => default.or(window)?,
    };
    let answers = match counted(inputs.get("n"), coercion) {
        Counted::Refused => return Some(0),
        Counted::Boundless => 128,
        Counted::Default => 1,
        // The schema takes no more.
        Counted::Of(answers) => answers.clamp(1, 128),
    };
    let names = ["prompt", "messages", "input", "text", "instructions", "tools"];
    let read: u128 = names.iter().filter_map(|name| inputs.get(name)).map(Js::text_bytes).sum();
    let read = window.map_or(read, |window| read.min(window));
    let rate = |unit| model.prices.get(unit).map_or(0, |price| u128::from(price.micro()));
    Some(read * rate(Unit::InputToken) + tokens * answers * rate(Unit::OutputToken))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Run,
    Chat,
    Responses,
}

/// All that the vendor may make of a body: as it is, by its `input`, or by its `requests`.
fn dearest(model: &Model, body: &Js, endpoint: Endpoint) -> Option<u128> {
    let form = |inputs: &Js| match endpoint {
        Endpoint::ChatCompletions => Form::Chat,
        Endpoint::Run if !inputs.get("input").is_some_and(|input| !matches!(input, Js::Object(_))) => Form::Run,
        _ => Form::Responses,
    };
    let mut most = 0;
    for coercion in COERCIONS {
        let inner = body.get("input").filter(|input| matches!(input, Js::Object(_)));
        let items: Option<&[Js]> = match body.get("requests") {
            Some(Js::List(items)) if !items.is_empty() => Some(items),
            _ => None,
        };
        let cost = match (inner, items) {
            (Some(inner), _) => text_cost(model, inner, form(inner), coercion)?,
            (None, Some(items)) => {
                let costs = items.iter().map(|item| text_cost(model, item, form(item), coercion));
                costs.sum::<Option<u128>>()?
            }
            (None, None) => text_cost(model, body, form(body), coercion)?,
        };
        most = most.max(cost);
    }
    Some(most)
}

// === generated bodies ===

const COUNTS: [&str; 18] = [
    "1",
    "7",
    "300",
    "5000",
    "0",
    "-1",
    "-0",
    "50.9",
    "1e3",
    "1E+2",
    "1e21",
    "9007199254740993",
    "true",
    "false",
    "null",
    "4096.0",
    "2147483648",
    "16",
];

fn counts() -> impl Strategy<Value = Js> {
    let literal = || prop::sample::select(&COUNTS[..]).prop_map(Js::Literal);
    let text = || prop::sample::select(&["4096", " 12 ", "1e4", "", "many", "300abc", "-5", "0", "0x20", "77.5"][..]);
    prop_oneof![
        6 => literal(),
        2 => text().prop_map(|text| Js::Text(text.into())),
        1 => prop::collection::vec(literal(), 0..3).prop_map(Js::List),
        1 => Just(Js::Object(Vec::new())),
    ]
}

fn texts() -> impl Strategy<Value = Js> {
    prop_oneof![
        "[a-z ]{0,40}",
        "(é|\u{ffff}|\u{fffe}|😀|[\"\\\\\n]|data:|a){0,12}",
        Just("data:image/png;base64,AAAA ".repeat(20)),
        Just("x".repeat(900)),
    ]
    .prop_map(Js::Text)
}

fn messages() -> impl Strategy<Value = Js> {
    let content = prop_oneof![
        texts(),
        texts().prop_map(|text| Js::List(vec![Js::Object(vec![
            ("type".into(), Js::Text("text".into())),
            ("text".into(), text)
        ])])),
        texts().prop_map(|text| {
            // Deeper than a parser with a stack of its own goes.
            (0..200).fold(text, |inner, _| Js::List(vec![inner]))
        }),
    ];
    let message = content
        .prop_map(|content| Js::Object(vec![("role".into(), Js::Text("user".into())), ("content".into(), content)]));
    prop::collection::vec(message, 0..4).prop_map(Js::List)
}

fn named(name: &'static str, value: impl Strategy<Value = Js>) -> impl Strategy<Value = (String, Js)> {
    value.prop_map(move |value| (name.to_owned(), value))
}

fn field() -> impl Strategy<Value = (String, Js)> {
    prop_oneof![
        3 => named("max_tokens", counts()),
        2 => named("max_completion_tokens", counts()),
        2 => named("max_output_tokens", counts()),
        2 => named("n", counts()),
        2 => named("prompt", texts()),
        2 => named("messages", messages()),
        1 => named("input", texts()),
        1 => named("instructions", texts()),
        1 => named("tools", texts().prop_map(|text| Js::List(vec![Js::Object(vec![("description".into(), text)])]))),
        1 => named("stream", counts()),
        1 => named("temperature", counts()),
        1 => named("image", texts()),
        1 => named("unknown", texts()),
        1 => named("steps", counts()),
        1 => named("requests", counts()),
        1 => named("request_id", texts()),
    ]
}

fn inputs() -> impl Strategy<Value = Js> {
    prop::collection::vec(field(), 0..7).prop_map(Js::Object)
}

/// A body: plain, wrapped in `input`, or a batch, and fields beside what it wraps.
fn bodies() -> impl Strategy<Value = Js> {
    let beside = || prop::collection::vec(field(), 0..2);
    let with = |mut fields: Vec<(String, Js)>, name: &str, value| {
        fields.push((name.to_owned(), value));
        Js::Object(fields)
    };
    prop_oneof![
        5 => inputs(),
        2 => (beside(), inputs()).prop_map(move |(fields, inner)| with(fields, "input", inner)),
        2 => (beside(), prop::collection::vec(inputs(), 0..4)).prop_map(move |(fields, items)| with(fields, "requests", Js::List(items))),
    ]
}

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(Catalogue::default);

const MODELS: [&str; 10] = [
    "@cf/meta/llama-3.2-1b-instruct",
    "@cf/meta/llama-3.3-70b-instruct-fp8-fast",
    "@cf/qwen/qwen3-30b-a3b-fp8",
    "@cf/qwen/qwen3.8-27b",
    "@cf/moonshotai/kimi-k2.6",
    "@cf/zai-org/glm-4.7-flash",
    "@cf/google/gemma-4-26b-a4b-it",
    "@cf/openai/gpt-oss-120b",
    "@cf/meta/llama-3.1-8b-instruct-fp8-fast",
    "@cf/cloudflare/clef-flash",
];
const ENDPOINTS: [Endpoint; 3] = [Endpoint::Run, Endpoint::ChatCompletions, Endpoint::Responses];

/// What the gate would reserve; `None` is more than anything.
fn bound(model: &Model, bytes: &[u8], endpoint: Endpoint) -> Option<Neurons> {
    Estimate::new(&measure(bytes, "application/json", endpoint).unwrap(), model).upper
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("TOLLGATE_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(2_000);
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_global_rejects: cases * 4,
        max_shrink_iters: 10_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn no_body_costs_more_than_its_bound(
        body in bodies(),
        spelling: u64,
        model in prop::sample::select(&MODELS[..]),
        endpoint in prop::sample::select(&ENDPOINTS[..]),
    ) {
        let model = CATALOGUE.get(model).unwrap();
        let bytes = body.body(spelling);
        match (bound(&model, &bytes, endpoint), dearest(&model, &body, endpoint)) {
            (Some(bound), Some(cost)) => prop_assert!(u128::from(bound.micro()) >= cost.min(u64::MAX.into()), "{bound} under {cost} µ"),
            (Some(bound), None) => prop_assert!(false, "{bound}, and nothing bounds it"),
            (None, _) => {}
        }
    }

    #[test]
    fn no_field_makes_a_bound_smaller(
        body in prop::collection::vec(field(), 1..5),
        extra in field(),
        at in any::<prop::sample::Index>(),
        spelling: u64,
        model in prop::sample::select(&MODELS[..]),
    ) {
        let names: Vec<_> = body.iter().map(|(name, _)| name.clone()).collect();
        let sets_limit = extra.0.starts_with("max_") && !names.iter().any(|name| name.starts_with("max_"));
        // A body that asks for nothing but a batch's answers is none any more with another field.
        let is_poll = names.iter().all(|name| name == "request_id");
        prop_assume!(!sets_limit && !is_poll);
        // A limit that is sure to be read makes another one, that was not, a limit: the larger still counts.
        prop_assume!(!extra.0.starts_with("max_") || names.contains(&extra.0));
        let model = CATALOGUE.get(model).unwrap();
        let mut more = body.clone();
        more.insert(at.index(body.len() + 1), extra);
        let without = bound(&model, &Js::Object(body).body(spelling), Endpoint::Run);
        let with = bound(&model, &Js::Object(more).body(spelling), Endpoint::Run);
        prop_assert!(with.is_none_or(|with| without.is_some_and(|without| with >= without)), "{without:?}, and {with:?} with it");
    }
}
