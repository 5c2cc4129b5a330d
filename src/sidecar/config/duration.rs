//! Durations as people write them: `500ms`, `5s`, `1m 30s`, `30d`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de};

/// Reads one, and says how to write it where it cannot be read.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|why| {
        de::Error::custom(format!("`{text}` is no duration ({why}): write it like 500ms, 5s, 1m 30s or 30d"))
    })
}

/// Writes one so that it reads back the same.
pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}
