//! The caller's own wishes: what the `cf-aig-*` headers ask for (AI Gateway documentation, 2026-10).

use std::time::Duration;

use http::HeaderMap;
use serde::Deserialize;

use crate::Error;
use crate::call::{Backoff, CustomCost, Options};
use crate::payload::Collect;
use crate::receipt::Metadatum;

/// Everything the headers say.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) options: Options,
    pub(super) metadata: Vec<(String, Metadatum)>,
    pub(super) event_id: Option<String>,
    pub(super) collect: Collect,
}

/// The AI Gateway's own bound.
const MAX_METADATA: usize = 5;
/// One month, its longest time for a cached answer.
const MAX_TTL_SECONDS: u64 = 30 * 24 * 3600;
const MAX_ATTEMPTS: u64 = 10;
const MAX_DELAY_MS: u64 = 60_000;
const MAX_TIMEOUT_MS: u64 = 24 * 3600 * 1000;
const MAX_NAME_BYTES: usize = 512;

impl Wishes {
    /// None where no header speaks of them: the usual case, which costs one look at each name.
    pub(super) fn read(headers: &HeaderMap) -> Result<Option<Self>, Error> {
        if !headers.keys().any(|name| is_ours(name.as_str())) {
            return Ok(None);
        }
        let get = |name| text(headers, name);
        let options = Options {
            skip_cache: either(headers, "cf-aig-skip-cache", "cf-skip-cache", flag)?.unwrap_or(false),
            cache_ttl: either(headers, "cf-aig-cache-ttl", "cf-cache-ttl", |h, v| whole(h, v, 0, MAX_TTL_SECONDS))?
                .map(Duration::from_secs),
            cache_key: get("cf-aig-cache-key")?.map(str::to_owned),
            custom_cost: get("cf-aig-custom-cost")?.map(custom_cost).transpose()?,
            request_timeout: millis(headers, "cf-aig-request-timeout", MAX_TIMEOUT_MS)?,
            max_attempts: get("cf-aig-max-attempts")?
                .map(|v| whole("cf-aig-max-attempts", v, 1, MAX_ATTEMPTS))
                .transpose()?
                .map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            retry_delay: millis(headers, "cf-aig-retry-delay", MAX_DELAY_MS)?,
            backoff: get("cf-aig-backoff")?.map(backoff).transpose()?,
            stream_cost: get(STREAM_COST)?.map(|v| flag(STREAM_COST, v)).transpose()?.unwrap_or(false),
        };
        Ok(Some(Self {
            options,
            metadata: get("cf-aig-metadata")?.map(metadata).transpose()?.unwrap_or_default(),
            event_id: get("cf-aig-event-id")?.map(event_id).transpose()?,
            collect: Collect {
                log: get(LOG)?.map(|v| flag(LOG, v)).transpose()?,
                payload: get(PAYLOAD)?.map(|v| flag(PAYLOAD, v)).transpose()?,
            },
        }))
    }
}

const STREAM_COST: &str = "x-tollgate-stream-cost";
const LOG: &str = "cf-aig-collect-log";
const PAYLOAD: &str = "cf-aig-collect-log-payload";

fn is_ours(name: &str) -> bool {
    name.starts_with("cf-aig-") || matches!(name, "cf-skip-cache" | "cf-cache-ttl" | STREAM_COST)
}

fn wrong(header: &'static str, why: impl Into<String>) -> Error {
    Error::Header { header, why: why.into() }
}

fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Error> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    value.to_str().map(|text| Some(text.trim())).map_err(|_| wrong(name, "must be plain ASCII text"))
}

/// A header by its name or, failing that, by its old one.
fn either<T>(
    headers: &HeaderMap,
    name: &'static str,
    old: &'static str,
    read: impl Fn(&'static str, &str) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    for header in [name, old] {
        if let Some(value) = text(headers, header)? {
            return read(header, value).map(Some);
        }
    }
    Ok(None)
}

fn flag(header: &'static str, value: &str) -> Result<bool, Error> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(wrong(header, "must be true or false")),
    }
}

fn whole(header: &'static str, value: &str, least: u64, most: u64) -> Result<u64, Error> {
    let number = value.parse().ok().filter(|n| (least..=most).contains(n));
    number.ok_or_else(|| wrong(header, format!("must be a whole number from {least} to {most}")))
}

fn millis(headers: &HeaderMap, name: &'static str, most: u64) -> Result<Option<Duration>, Error> {
    let number = text(headers, name)?.map(|value| whole(name, value, 0, most)).transpose()?;
    Ok(number.map(Duration::from_millis))
}

fn backoff(value: &str) -> Result<Backoff, Error> {
    match value {
        "constant" => Ok(Backoff::Constant),
        "linear" => Ok(Backoff::Linear),
        "exponential" => Ok(Backoff::Exponential),
        _ => Err(wrong("cf-aig-backoff", "must be constant, linear or exponential")),
    }
}

fn custom_cost(value: &str) -> Result<CustomCost, Error> {
    #[derive(Deserialize)]
    struct Prices {
        per_token_in: f64,
        per_token_out: f64,
    }
    const TAKES: &str = "must be {\"per_token_in\": USD, \"per_token_out\": USD}, neither of them negative";
    let prices: Prices = serde_json::from_str(value).map_err(|_| wrong("cf-aig-custom-cost", TAKES))?;
    if !(prices.per_token_in >= 0.0 && prices.per_token_out >= 0.0) {
        return Err(wrong("cf-aig-custom-cost", TAKES));
    }
    Ok(CustomCost { usd_per_token_in: prices.per_token_in, usd_per_token_out: prices.per_token_out })
}

fn metadata(value: &str) -> Result<Vec<(String, Metadatum)>, Error> {
    const TAKES: &str = "must be a flat JSON object of at most 5 strings, numbers or booleans";
    let fields: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(value).map_err(|_| wrong("cf-aig-metadata", TAKES))?;
    if fields.len() > MAX_METADATA {
        return Err(wrong("cf-aig-metadata", TAKES));
    }
    let entry = |(key, value)| match value {
        serde_json::Value::String(text) => Ok((key, Metadatum::String(text))),
        serde_json::Value::Number(number) => Ok((key, Metadatum::Number(number))),
        serde_json::Value::Bool(flag) => Ok((key, Metadatum::Bool(flag))),
        _ => Err(wrong("cf-aig-metadata", TAKES)),
    };
    fields.into_iter().map(entry).collect()
}

fn event_id(value: &str) -> Result<String, Error> {
    if value.len() > MAX_NAME_BYTES {
        return Err(wrong("cf-aig-event-id", format!("must be at most {MAX_NAME_BYTES} bytes")));
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &'static str, value: &str) -> Result<Wishes, Error> {
        let headers = HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())]);
        Wishes::read(&headers).map(Option::unwrap_or_default)
    }

    #[test]
    fn nonsense_is_refused_by_the_headers_name() {
        for (name, value) in [
            ("cf-aig-skip-cache", "perhaps"),
            ("cf-aig-cache-ttl", "-1"),
            ("cf-cache-ttl", "soon"),
            ("cf-aig-metadata", "{\"a\":{}}"),
            ("cf-aig-metadata", "{\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1,\"f\":1}"),
            ("cf-aig-custom-cost", "{\"per_token_in\":-1,\"per_token_out\":0}"),
            ("cf-aig-request-timeout", "1.5"),
            ("cf-aig-max-attempts", "0"),
            ("cf-aig-retry-delay", "99999999"),
            ("cf-aig-backoff", "cubic"),
            ("cf-aig-collect-log", "1"),
        ] {
            match read(name, value) {
                Err(Error::Header { header, .. }) => assert_eq!(header, name),
                other => panic!("{name}: {value} gave {other:?}"),
            }
        }
    }

    #[test]
    fn old_names_mean_the_same_and_new_ones_win() {
        assert_eq!(read("cf-cache-ttl", "90").unwrap().options.cache_ttl, Some(Duration::from_secs(90)));
        let headers = HeaderMap::from_iter([
            (http::HeaderName::from_static("cf-cache-ttl"), "90".parse().unwrap()),
            (http::HeaderName::from_static("cf-aig-cache-ttl"), "60".parse().unwrap()),
        ]);
        let wishes = Wishes::read(&headers).unwrap().unwrap();
        assert_eq!(wishes.options.cache_ttl, Some(Duration::from_secs(60)));
    }
}
