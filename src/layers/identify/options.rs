//! What the caller asks for in `cf-aig-*` headers (AI Gateway documentation, 2026-10).
//!
//! As lenient as the AI Gateway: no header turns a call away. A value out of bounds is taken as the nearest one that can be, one
//! that makes no sense is ignored, and the log is told of both.

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderMap;
use serde_json::value::RawValue;

use super::complaints::Complaints;
use crate::call::{Backoff, CustomCost, Options};
use crate::headers::GATEWAY_ID;
use crate::payload::Collect;
use crate::receipt::Metadatum;

/// Everything the headers say.
#[derive(Debug, Default)]
pub(super) struct CallerOptions {
    pub(super) options: Options,
    pub(super) metadata: Vec<(String, Metadatum)>,
    pub(super) event_id: Option<String>,
    pub(super) collect: Collect,
}

/// What came of a header's value.
enum Value<T> {
    Taken(T),
    /// Something like it, and why.
    Mended(T, &'static str),
    Ignored(&'static str),
}

/// The headers of one request, and who is told of what is wrong with them.
struct Headers<'a> {
    headers: &'a HeaderMap,
    complaints: &'a Complaints,
}

const STREAM_COST: &str = "x-tollgate-stream-cost";
const SEMANTIC_CACHE: &str = "x-tollgate-semantic-cache";

/// Of more metadata the first so many count, as they do at the AI Gateway.
const MAX_METADATA: usize = 5;
/// One month, the AI Gateway's longest time for a cached answer.
const MAX_TTL_SECONDS: f64 = 30.0 * 24.0 * 3600.0;
const MAX_ATTEMPTS: f64 = 10.0;
/// The AI Gateway's own.
const MAX_DELAY_MS: f64 = 5_000.0;
const MAX_TIMEOUT_MS: f64 = 24.0 * 3600.0 * 1000.0;
const MAX_EVENT_ID_BYTES: usize = 512;
/// Nobody charges a dollar a token; more is a slip, or meant to spoil a sum.
const MAX_USD_PER_TOKEN: f64 = 1.0;
const MAX_USD: f64 = 1e6;

impl CallerOptions {
    /// `has_gateway`: calls leave through a gateway of the config's, so that none that a request names is asked.
    pub(super) fn read(headers: &HeaderMap, has_gateway: bool, complaints: &Complaints) -> Self {
        let goes_to_a_gateway = !has_gateway && headers.contains_key(GATEWAY_ID);
        let read = Headers { headers, complaints };
        let attempts = read.value("cf-aig-max-attempts", attempts);
        let retry_delay = read.value("cf-aig-retry-delay", |text| millis(text, MAX_DELAY_MS));
        let backoff = read.value("cf-aig-backoff", backoff);
        // A gateway that tries again by itself is asked once: else attempts would multiply.
        let (max_attempts, retry_delay, backoff) = match goes_to_a_gateway {
            true => (attempts.map(|_| 1), None, None),
            false => (attempts, retry_delay, backoff),
        };
        let options = Options {
            skip_cache: read.either("cf-aig-skip-cache", "cf-skip-cache", flag).unwrap_or(false),
            cache_ttl: read.either("cf-aig-cache-ttl", "cf-cache-ttl", ttl),
            cache_key: read.text("cf-aig-cache-key").map(Cow::into_owned),
            custom_cost: read.value("cf-aig-custom-cost", custom_cost),
            request_timeout: read.value("cf-aig-request-timeout", |text| millis(text, MAX_TIMEOUT_MS)),
            max_attempts,
            retry_delay,
            backoff,
            stream_cost: read.value(STREAM_COST, flag).unwrap_or(false),
            semantic: read.value(SEMANTIC_CACHE, flag),
        };
        let collect = Collect {
            log: read.value("cf-aig-collect-log", flag),
            payload: read.value("cf-aig-collect-log-payload", flag),
        };
        let metadata = read.value("cf-aig-metadata", metadata).unwrap_or_default();
        Self { options, metadata, event_id: read.value("cf-aig-event-id", event_id), collect }
    }
}

/// Whether a header of this name is read here: where none is, nothing has to be.
pub(super) fn is_option(name: &str) -> bool {
    name.starts_with("cf-aig-") || matches!(name, "cf-skip-cache" | "cf-cache-ttl" | STREAM_COST | SEMANTIC_CACHE)
}

// === impl Headers ===

impl<'a> Headers<'a> {
    /// UTF-8, or else Latin-1, which any bytes are.
    fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        let bytes = self.headers.get(name)?.as_bytes().trim_ascii();
        Some(match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect::<String>().into(),
        })
    }

    fn value<T>(&self, name: &'static str, read: impl FnOnce(&str) -> Value<T>) -> Option<T> {
        let (value, why) = match read(&self.text(name)?) {
            Value::Taken(value) => return Some(value),
            Value::Mended(value, why) => (Some(value), why),
            Value::Ignored(why) => (None, why),
        };
        self.complaints.tell(name, why);
        value
    }

    /// A header by its name or, failing that, by its old one.
    fn either<T>(&self, name: &'static str, old: &'static str, read: impl Fn(&str) -> Value<T>) -> Option<T> {
        self.value(name, &read).or_else(|| self.value(old, &read))
    }
}

// === values ===

fn flag(text: &str) -> Value<bool> {
    match text {
        "1" => Value::Taken(true),
        "0" => Value::Taken(false),
        _ if text.eq_ignore_ascii_case("true") => Value::Taken(true),
        _ if text.eq_ignore_ascii_case("false") => Value::Taken(false),
        _ => Value::Ignored("it is neither true nor false, so it is ignored"),
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn at_most(number: f64, most: f64) -> Value<f64> {
    if number > most {
        Value::Mended(most, "it is over the most it can be, which is taken")
    } else {
        Value::Taken(number)
    }
}

impl<T> Value<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Value<U> {
        match self {
            Self::Taken(value) => Value::Taken(change(value)),
            Self::Mended(value, why) => Value::Mended(change(value), why),
            Self::Ignored(why) => Value::Ignored(why),
        }
    }
}

/// A time under the AI Gateway's least, a minute, is kept to as it is: the answer is not kept longer than was asked.
fn ttl(text: &str) -> Value<Duration> {
    match number(text).filter(|seconds| *seconds >= 0.0) {
        Some(seconds) => at_most(seconds, MAX_TTL_SECONDS).map(Duration::from_secs_f64),
        None => Value::Ignored("it is no number of seconds, so it is ignored"),
    }
}

fn millis(text: &str, most: f64) -> Value<Duration> {
    match number(text).filter(|millis| *millis >= 0.0) {
        Some(millis) => at_most(millis, most).map(|millis| Duration::from_nanos((millis * 1e6) as u64)),
        None => Value::Ignored("it is no number of milliseconds, so it is ignored"),
    }
}

fn attempts(text: &str) -> Value<u32> {
    match number(text) {
        Some(attempts) if attempts < 1.0 => Value::Mended(1, "there is one attempt at least"),
        Some(attempts) => at_most(attempts, MAX_ATTEMPTS).map(|attempts| attempts as u32),
        None => Value::Ignored("it is no number, so it is ignored"),
    }
}

fn backoff(text: &str) -> Value<Backoff> {
    let known = [("constant", Backoff::Constant), ("linear", Backoff::Linear), ("exponential", Backoff::Exponential)];
    match known.into_iter().find(|(name, _)| text.eq_ignore_ascii_case(name)) {
        Some((_, backoff)) => Value::Taken(backoff),
        None => Value::Ignored("it is none of constant, linear and exponential, so it is ignored"),
    }
}

/// Of one price alone the other is nothing; cached tokens without a price of their own cost as much as others.
fn custom_cost(text: &str) -> Value<CustomCost> {
    let Ok(prices) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text) else {
        return Value::Ignored("it is no JSON object of numbers, so it is ignored");
    };
    let price = |name: &str| prices.get(name).filter(|value| !value.is_null());
    let figure = |name: &str, most: f64| -> Result<Option<f64>, ()> {
        let Some(value) = price(name) else { return Ok(None) };
        let figure = value.as_f64().or_else(|| number(value.as_str()?.trim()));
        figure.filter(|usd| (0.0..=most).contains(usd)).map(Some).ok_or(())
    };
    let per_token = |name| figure(name, MAX_USD_PER_TOKEN);
    let read = (per_token("per_token_in"), per_token("per_token_out"), per_token("per_cache_read_token"));
    match (figure("total_cost", MAX_USD), read) {
        (Ok(Some(usd)), _) => Value::Taken(CustomCost::Total(usd)),
        (Ok(None), (Ok(None), Ok(None), Ok(_))) => Value::Ignored("it names no price, so it is ignored"),
        (Ok(None), (Ok(read), Ok(written), Ok(cached))) => {
            let usd_per_token_in = read.unwrap_or(0.0);
            Value::Taken(CustomCost::PerToken {
                usd_per_token_in,
                usd_per_cached_token_in: cached.unwrap_or(usd_per_token_in),
                usd_per_token_out: written.unwrap_or(0.0),
            })
        }
        _ => Value::Ignored("a price in it is negative, over a dollar a token, or no number, so it is ignored"),
    }
}

/// The entries as they stand, raw: one that cannot be read takes no other with it.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Entries<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> serde::de::Visitor<'de> for InOrder {
            type Value = Vec<(String, &'de RawValue)>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries: Self::Value = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    // Of a name that is there twice the last value counts, as for JSON.parse.
                    match entries.iter().position(|(known, _)| *known == name) {
                        Some(place) => entries[place].1 = value,
                        None if entries.len() < MAX_ENTRIES => entries.push((name, value)),
                        None => {}
                    }
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(InOrder).map(Self)
    }
}

/// More are not looked at, so that a header of one-letter names costs no quadratic time.
const MAX_ENTRIES: usize = 64;

fn metadata(text: &str) -> Value<Vec<(String, Metadatum)>> {
    let Ok(Entries(entries)) = serde_json::from_str(text) else {
        return Value::Ignored("it is no JSON object, so it is ignored");
    };
    let count = entries.len();
    let entry = |(name, value): (String, &RawValue)| {
        let value = match serde_json::from_str(value.get()).ok()? {
            serde_json::Value::String(text) => Metadatum::String(text),
            serde_json::Value::Number(number) => Metadatum::Number(number),
            serde_json::Value::Bool(flag) => Metadatum::Bool(flag),
            serde_json::Value::Null => Metadatum::Null,
            serde_json::Value::Array(_) | serde_json::Value::Object(_) => return None,
        };
        Some((name, value))
    };
    let flat: Vec<_> = entries.into_iter().filter_map(entry).collect();
    let is_flat = flat.len() == count;
    let first: Vec<_> = flat.into_iter().take(MAX_METADATA).collect();
    match is_flat {
        false => Value::Mended(first, "entries that are no text, number or boolean are left out"),
        true if count > MAX_METADATA => Value::Mended(first, "the first five entries count"),
        true => Value::Taken(first),
    }
}

fn event_id(text: &str) -> Value<String> {
    if text.len() <= MAX_EVENT_ID_BYTES {
        return Value::Taken(text.to_owned());
    }
    let mut end = MAX_EVENT_ID_BYTES;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Value::Mended(text[..end].to_owned(), "it is over 512 bytes, of which the first are kept")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pairs: &[(&'static str, &[u8])]) -> CallerOptions {
        let header = |(name, value): &(&'static str, &[u8])| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_bytes(value).unwrap())
        };
        let headers = HeaderMap::from_iter(pairs.iter().map(header));
        CallerOptions::read(&headers, false, &Complaints::default())
    }

    fn one(name: &'static str, value: &str) -> CallerOptions {
        read(&[(name, value.as_bytes())])
    }

    #[test]
    fn what_the_ai_gateway_takes_is_taken() {
        for yes in ["true", "True", "TRUE", "1", " true "] {
            assert!(one("cf-aig-skip-cache", yes).options.skip_cache, "{yes}");
            assert_eq!(one("cf-aig-collect-log", yes).collect.log, Some(true), "{yes}");
        }
        assert_eq!(one("cf-aig-collect-log", "False").collect.log, Some(false));
        let ttl = |value| one("cf-aig-cache-ttl", value).options.cache_ttl.map(|ttl| ttl.as_secs_f64());
        for (value, seconds) in [
            ("60", Some(60.0)),
            ("1", Some(1.0)),
            ("0", Some(0.0)),
            ("90.5", Some(90.5)),
            ("2592001", Some(2_592_000.0)),
            ("1e300", Some(2_592_000.0)),
            ("-1", None),
            ("soon", None),
            ("inf", None),
            ("NaN", None),
            ("", None),
        ] {
            assert_eq!(ttl(value), seconds, "{value}");
        }
        let delay = |value| one("cf-aig-retry-delay", value).options.retry_delay;
        assert_eq!(delay("1.5"), Some(Duration::from_micros(1500)));
        assert_eq!(delay("60000"), Some(Duration::from_secs(5)));
        assert_eq!(delay("-3"), None);
        assert_eq!(one("cf-aig-request-timeout", "1500").options.request_timeout, Some(Duration::from_millis(1500)));
        let attempts = |value| one("cf-aig-max-attempts", value).options.max_attempts;
        for (value, count) in
            [("3", Some(3)), ("0", Some(1)), ("-9", Some(1)), ("2.9", Some(2)), ("99", Some(10)), ("many", None)]
        {
            assert_eq!(attempts(value), count, "{value}");
        }
        assert_eq!(one("cf-aig-backoff", "Linear").options.backoff, Some(Backoff::Linear));
        assert_eq!(one("cf-aig-backoff", "cubic").options.backoff, None);
        assert_eq!(one("cf-aig-event-id", &"é".repeat(400)).event_id.map(|id| id.len()), Some(512));
    }

    #[test]
    fn metadata_is_what_its_first_five_flat_entries_say() {
        let names = |value: &str| -> Vec<String> {
            one("cf-aig-metadata", value).metadata.into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(r#"{"z":1,"b":"x","y":true,"c":null,"a":2,"f":6}"#), ["z", "b", "y", "c", "a"]);
        assert_eq!(names(r#"{"deep":{"a":1},"list":[1],"big":1e999,"kept":1}"#), ["kept"]);
        assert_eq!(one("cf-aig-metadata", r#"{"a":null}"#).metadata, [("a".into(), Metadatum::Null)]);
        assert_eq!(one("cf-aig-metadata", r#"{"a":1,"a":2}"#).metadata, [("a".into(), Metadatum::Number(2.into()))]);
        let latin = read(&[("cf-aig-metadata", b"{\"city\":\"K\xf6ln\"}")]).metadata;
        assert_eq!(latin, [("city".into(), Metadatum::String("Köln".into()))]);
        let utf8 = one("cf-aig-metadata", r#"{"city":"Köln"}"#).metadata;
        assert_eq!(utf8, latin);
        for nonsense in ["", "team", "[1]", "\"a\"", "{\"a\":", "null"] {
            assert!(one("cf-aig-metadata", nonsense).metadata.is_empty(), "{nonsense}");
        }
    }

    #[test]
    fn a_price_is_taken_from_one_side_as_a_total_or_not_at_all() {
        let cost = |value| one("cf-aig-custom-cost", value).options.custom_cost;
        let per_token = |usd_per_token_in, usd_per_cached_token_in, usd_per_token_out| {
            Some(CustomCost::PerToken { usd_per_token_in, usd_per_cached_token_in, usd_per_token_out })
        };
        assert_eq!(cost(r#"{"per_token_in":0.1,"per_token_out":0.2}"#), per_token(0.1, 0.1, 0.2));
        assert_eq!(cost(r#"{"per_token_in":0.1}"#), per_token(0.1, 0.1, 0.0));
        assert_eq!(cost(r#"{"per_token_out":"0.2","per_token_in":null}"#), per_token(0.0, 0.0, 0.2));
        assert_eq!(cost(r#"{"per_token_in":0.1,"per_cache_read_token":0.01}"#), per_token(0.1, 0.01, 0.0));
        assert_eq!(cost(r#"{"total_cost":0.5,"per_token_in":0.1}"#), Some(CustomCost::Total(0.5)));
        for nonsense in [
            "{}",
            "0.1",
            "{\"per_token_in\":-1}",
            "{\"per_token_in\":1e308}",
            "{\"per_token_in\":1e999}",
            "{\"total_cost\":-0.1}",
            "{\"total_cost\":1e308}",
            "{\"total_cost\":\"inf\"}",
            "{\"total_cost\":NaN}",
            "{\"per_token_in\":\"NaN\"}",
            "{\"per_token_out\":[1]}",
        ] {
            assert_eq!(cost(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn old_names_mean_the_same_and_new_ones_win() {
        assert_eq!(one("cf-cache-ttl", "90").options.cache_ttl, Some(Duration::from_secs(90)));
        let both = read(&[("cf-cache-ttl", b"90"), ("cf-aig-cache-ttl", b"60")]);
        assert_eq!(both.options.cache_ttl, Some(Duration::from_secs(60)));
    }

    #[test]
    fn a_gateway_that_is_named_tries_again_by_itself() {
        let pairs: [(&str, &[u8]); 4] = [
            ("cf-aig-max-attempts", b"5"),
            ("cf-aig-retry-delay", b"100"),
            ("cf-aig-backoff", b"linear"),
            ("cf-aig-cache-ttl", b"90"),
        ];
        let own = read(&pairs).options;
        assert_eq!((own.max_attempts, own.retry_delay), (Some(5), Some(Duration::from_millis(100))));
        let named = read(&[&pairs[..], &[("cf-aig-gateway-id", b"mine")]].concat()).options;
        assert_eq!((named.max_attempts, named.retry_delay, named.backoff), (Some(1), None, None));
        assert_eq!(named.cache_ttl, Some(Duration::from_secs(90)));
    }

    proptest! {
        #[test]
        fn whatever_a_header_says_it_turns_no_call_away_and_stays_in_bounds(
            name in prop::sample::select(&[
                "cf-aig-cache-ttl", "cf-aig-custom-cost", "cf-aig-request-timeout", "cf-aig-max-attempts", "cf-aig-retry-delay",
                "cf-aig-metadata", "cf-aig-event-id",
            ][..]),
            value in prop_oneof![
                "(-|[0-9.e]|inf|NaN| ){0,12}",
                "\\{(\"(per_token_in|per_token_out|total_cost|a|b)\":(-?[0-9.]{1,6}(e-?[0-9]{1,4})?|null|\"x\"|\\[1\\]|\\{\\}),?){0,7}\\}",
                "[ -~\u{a0}-\u{ff}]{0,40}",
            ],
        ) {
            let all = one(name, &value);
            let options = &all.options;
            prop_assert!(options.cache_ttl.is_none_or(|ttl| ttl <= Duration::from_secs(30 * 24 * 3600)));
            prop_assert!(options.max_attempts.is_none_or(|count| (1..=10).contains(&count)));
            prop_assert!(options.retry_delay.is_none_or(|delay| delay <= Duration::from_secs(5)));
            prop_assert!(all.metadata.len() <= MAX_METADATA);
            let figures = match options.custom_cost {
                None => vec![],
                Some(CustomCost::Total(usd)) => vec![usd],
                Some(CustomCost::PerToken { usd_per_token_in, usd_per_cached_token_in, usd_per_token_out }) => {
                    vec![usd_per_token_in, usd_per_cached_token_in, usd_per_token_out]
                }
            };
            prop_assert!(figures.iter().all(|usd| (0.0..=MAX_USD).contains(usd)));
        }
    }
}
