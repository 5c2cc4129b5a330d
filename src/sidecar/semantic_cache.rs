//! `[cache.semantic]`: answers to questions that mean the same.

use std::time::Duration;

use super::config::{Config, ConfigError};
use crate::catalogue::{Catalogue, Task};
use crate::layers::cache::semantic::Settings;

const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Some four gigabytes of vectors of 1,024 dimensions.
const MOST_ENTRIES: usize = 1_000_000;
const MOST_SAMPLES: usize = 1000;

impl Config {
    /// Checks the settings; `None` where no question is answered as another one.
    pub(crate) fn semantic_cache(&self, catalogue: &Catalogue) -> Result<Option<Settings>, ConfigError> {
        let Some(own) = &self.cache.semantic else { return Ok(None) };
        let wrong = |name: &str, what: String| Err(ConfigError { place: format!("[cache.semantic] {name}"), what });
        let model = catalogue.find(&own.model, Task::TextEmbeddings);
        if model.task != Task::TextEmbeddings {
            return wrong("model", format!("{} makes no vectors of texts: name one like @cf/baai/bge-m3", own.model));
        }
        if !(own.threshold > 0.0 && own.threshold <= 1.0) {
            return wrong(
                "threshold",
                "is to be above 0 and at most 1, which is the same: 0.95 is a careful one".into(),
            );
        }
        if own.wait.is_zero() || own.wait > LONGEST_WAIT {
            return wrong("wait", "is to be from 1ms to 30s; write it like 1s".into());
        }
        if !(1..=MOST_ENTRIES).contains(&own.max_entries) {
            return wrong("max_entries", format!("is to be from 1 to {MOST_ENTRIES}; each takes some 4 KiB"));
        }
        if own.samples > MOST_SAMPLES {
            return wrong("samples", format!("is to be {MOST_SAMPLES} at most; 0 keeps no text"));
        }
        let names = |names: &[String]| names.iter().map(|name| name.as_str().into()).collect();
        Ok(Some(Settings {
            model: own.model.as_str().into(),
            threshold: own.threshold,
            models: names(&own.models),
            keys: names(&own.keys),
            wait: own.wait,
            max_entries: own.max_entries,
            samples: own.samples,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_told_with_the_mend() {
        let read = |text: &str| {
            Config::parse(&format!("[cache.semantic]\n{text}"), "t").unwrap().semantic_cache(&Catalogue::default())
        };
        for (text, place, what) in [
            ("model = \"@cf/meta/llama-3.2-1b-instruct\"", "model", "@cf/baai/bge-m3"),
            ("threshold = 0.0", "threshold", "above 0"),
            ("threshold = 1.01", "threshold", "above 0"),
            ("threshold = nan", "threshold", "above 0"),
            ("wait = \"0s\"", "wait", "1ms"),
            ("max_entries = 0", "max_entries", "from 1"),
            ("samples = 1001", "samples", "at most"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.place == format!("[cache.semantic] {place}") && error.what.contains(what), "{text}: {error}");
        }
        let own = read("models = [\"m\"]\nkeys = [\"k\"]\nthreshold = 1.0").unwrap().unwrap();
        assert_eq!((own.models.len(), own.keys.len(), own.samples), (1, 1, 20));
        assert_eq!(Config::default().semantic_cache(&Catalogue::default()).unwrap(), None);
    }
}
