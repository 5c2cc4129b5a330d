//! `[limits]` and `[retry]`.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::call::Backoff;
use crate::catalogue::Limit;
use crate::layers::rate_limit::FairBy;
use crate::layers::{rate_limit, retry};

/// `[limits]`: the catalogue's, unless changed here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Limits {
    /// How long a call may wait for its turn; `0s` refuses at once.
    #[serde(with = "super::duration")]
    pub max_wait: Duration,
    /// Calls that may wait for one model.
    pub max_queue: usize,
    /// Other limits for models, by name.
    pub models: BTreeMap<String, Quota>,
    /// Limits of keys, by name, on each model, besides the model's own.
    pub keys: BTreeMap<String, Quota>,
    /// What tells callers apart, for turns that are fair, where there are no `[[keys]]`: `token`, `address` or `metadata.NAME`.
    pub fair_by: FairBy,
}

/// `[limits.models."…"]` and `[limits.keys."…"]`: so much a time. What is left out stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Quota {
    /// Requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<NonZeroU32>,
    /// Input and output tokens together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<NonZeroU32>,
    /// In how long, from a second to a day.
    #[serde(default = "minute", deserialize_with = "window", serialize_with = "super::duration::serialize")]
    pub per: Duration,
}

/// `[retry]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Retry {
    /// Attempts a call, the first among them; 1 is no retry.
    pub max_attempts: NonZeroU32,
    /// The first pause.
    #[serde(with = "super::duration")]
    pub delay: Duration,
    /// How it grows: `constant`, `linear` or `exponential`.
    pub backoff: Backoff,
    /// The longest pause.
    #[serde(with = "super::duration")]
    pub max_delay: Duration,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

fn minute() -> Duration {
    Duration::from_secs(60)
}

fn window<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let per = super::duration::deserialize(deserializer)?;
    if (Duration::from_secs(1)..=DAY).contains(&per) {
        Ok(per)
    } else {
        Err(de::Error::custom("a limit's time must be from 1s to 1day: write it like 1m"))
    }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        let rate_limit::Settings { max_wait, max_queue, fair_by, .. } = rate_limit::Settings::default();
        Self { max_wait, max_queue, models: BTreeMap::new(), keys: BTreeMap::new(), fair_by }
    }
}

impl Limits {
    /// As the layer takes them.
    pub fn settings(&self) -> rate_limit::Settings {
        let quotas =
            |all: &BTreeMap<String, Quota>| all.iter().map(|(name, quota)| (name.clone(), quota.as_taken())).collect();
        rate_limit::Settings {
            max_wait: self.max_wait,
            max_queue: self.max_queue,
            models: quotas(&self.models),
            keys: quotas(&self.keys),
            fair_by: self.fair_by.clone(),
        }
    }
}

// === impl Quota ===

impl Quota {
    fn as_taken(self) -> rate_limit::Quota {
        let limit = |requests| Limit { requests, per: self.per };
        rate_limit::Quota { requests: self.requests.map(limit), tokens: self.tokens.map(limit) }
    }
}

// === impl Retry ===

impl Default for Retry {
    fn default() -> Self {
        let retry::Settings { max_attempts, pause, .. } = retry::Settings::default();
        Self {
            max_attempts: NonZeroU32::new(max_attempts).unwrap_or(NonZeroU32::MIN),
            delay: pause.delay,
            backoff: pause.backoff,
            max_delay: pause.max_delay,
        }
    }
}

impl Retry {
    /// As the layer takes them.
    pub fn settings(&self) -> retry::Settings {
        retry::Settings {
            max_attempts: self.max_attempts.get(),
            pause: retry::Pause { delay: self.delay, backoff: self.backoff, max_delay: self.max_delay },
            ..retry::Settings::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::Config;
    use super::*;

    #[test]
    fn limits_and_retries_are_read() {
        let text = "[limits]\nmax_wait = \"2s\"\n[limits.models.\"@cf/a/b\"]\nrequests = 50\ntokens = 100000\n\
            [limits.keys.team]\nrequests = 5\nper = \"1s\"\n[retry]\nmax_attempts = 7\nbackoff = \"linear\"\n\
            [models.\"@cf/a/b\"]\nfallback = [\"@cf/a/c\"]\n";
        let config = Config::parse(text, "").unwrap();
        let settings = config.limits.settings();
        assert_eq!(settings.max_wait, Duration::from_secs(2));
        let quota = settings.models["@cf/a/b"];
        assert_eq!((quota.requests, quota.tokens), (Some(Limit::a_minute(50)), Some(Limit::a_minute(100_000))));
        assert_eq!(settings.keys["team"].requests.map(|limit| limit.per), Some(Duration::from_secs(1)));
        let retry = config.retry.settings();
        assert_eq!((retry.max_attempts, retry.pause.backoff), (7, Backoff::Linear));
        assert_eq!(Config::parse(&config.show().unwrap(), "").unwrap(), config);
    }

    #[test]
    fn callers_are_told_apart_as_the_config_says() {
        let read = |text: &str| Config::parse(text, "").unwrap();
        assert_eq!(read("").limits.fair_by, FairBy::Token);
        for (text, fair_by) in [
            ("token", FairBy::Token),
            ("address", FairBy::Address),
            ("metadata.user_id", FairBy::Metadata("user_id".into())),
        ] {
            let config = read(&format!("[limits]\nfair_by = \"{text}\"\n"));
            assert_eq!(config.limits.settings().fair_by, fair_by);
            assert_eq!(read(&config.show().unwrap()).limits, config.limits);
        }
    }

    #[test]
    fn what_cannot_be_is_named_by_its_place() {
        for (text, place, what) in [
            ("[limits.models.\"@cf/a/b\"]\nrequests = 0\n", "t:2:12: ", "nonzero"),
            ("[limits.keys.a]\ntokens = 0\n", "t:2:10: ", "nonzero"),
            ("[limits]\nmax_wait = \"-1s\"\n", "t:2:12: ", "no duration"),
            ("[limits]\nmax_queue = -1\n", "t:2:13: ", "integer `-1`"),
            ("[limits.models.x]\nper = \"0s\"\n", "t:2:7: ", "from 1s"),
            ("[limits.models.x]\nrequest = 1\n", "t:2:1: ", "unknown field"),
            ("[limits]\nfair_by = \"ip\"\n", "t:2:11: ", "token, address or metadata.NAME"),
            ("[limits]\nfair_by = \"metadata.\"\n", "t:2:11: ", "metadata.NAME"),
            ("[retry]\nmax_attempts = 0\n", "t:2:16: ", "nonzero"),
            ("[retry]\ndelay = \"-1s\"\n", "t:2:9: ", "no duration"),
            ("[retry]\nbackoff = \"cubic\"\n", "t:2:11: ", "exponential"),
        ] {
            let error = Config::parse(text, "t").unwrap_err().to_string();
            assert!(error.starts_with(place) && error.contains(what), "{text}: {error}");
        }
    }
}
