//! `[log]`: what is logged, and how.

use serde::{Deserialize, Serialize};

/// `[log]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Log {
    /// `text` or `json`, on standard error.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` (a line a call) or `trace`, also by module: `info,tollgate::layers=debug`.
    #[serde(deserialize_with = "log_level")]
    pub level: String,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: an object a line.
    Json,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into() }
    }
}

/// A word that is no level would be taken for a module's name, of which everything is logged and of all others nothing.
fn log_level<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let level = String::deserialize(deserializer)?;
    let is_level = |word: &str| {
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        levels.iter().any(|level| level.eq_ignore_ascii_case(word.trim()))
    };
    let is_part = |part: &str| part.rsplit_once('=').map_or_else(|| is_level(part), |(_, level)| is_level(level));
    match level.split(',').all(is_part) {
        true => Ok(level),
        false => Err(serde::de::Error::custom(format!(
            "{level:?} is no level: error, warn, info, debug, trace or off, and after a comma others by module, such as \
             info,tollgate::layers=debug"
        ))),
    }
}
