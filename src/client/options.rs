//! What a caller wants of its calls, besides an answer.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::Failure;
use crate::receipt::Metadatum;

/// Options of calls; the default leaves all to the gate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Keep the answer so long; zero keeps nothing.
    pub cache_ttl: Option<Duration>,
    /// Do not answer from the cache.
    pub skip_cache: bool,
    /// Tags for records and budgets: at most five.
    pub metadata: Vec<(String, Metadatum)>,
    /// How long until the reply begins, retries and waits included.
    pub deadline: Option<Duration>,
    /// Attempts, the first among them.
    pub max_attempts: Option<u32>,
}

impl Options {
    pub(super) fn write(&self, headers: &mut HeaderMap) -> Result<(), Failure> {
        if let Some(ttl) = self.cache_ttl {
            headers.insert("cf-aig-cache-ttl", HeaderValue::from(ttl.as_secs()));
        }
        if self.skip_cache {
            headers.insert("cf-aig-skip-cache", HeaderValue::from_static("true"));
        }
        if let Some(deadline) = self.deadline {
            headers.insert("cf-aig-request-timeout", HeaderValue::from(deadline.as_millis() as u64));
        }
        if let Some(attempts) = self.max_attempts {
            headers.insert("cf-aig-max-attempts", HeaderValue::from(attempts));
        }
        if !self.metadata.is_empty() {
            let entries: serde_json::Map<_, _> = self
                .metadata
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), serde_json::to_value(value).ok()?)))
                .collect();
            headers.insert("cf-aig-metadata", ascii(&serde_json::Value::Object(entries).to_string())?);
        }
        Ok(())
    }
}

/// A header carries ASCII; JSON can say everything in it.
fn ascii(json: &str) -> Result<HeaderValue, Failure> {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter.is_ascii() {
            text.push(letter);
            continue;
        }
        let mut units = [0; 2];
        letter.encode_utf16(&mut units).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}")));
    }
    HeaderValue::try_from(text).map_err(|_| Failure::invalid("the metadata make no header".into()))
}
