//! What usage is summed up by, labels of keys among it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::str::FromStr;

use super::files::failed;
use super::span::Span;
use crate::cli::Failure;
use crate::cli::settings::KEYS;
use crate::readers::records::{Archive, Group, Usage};
use crate::sidecar::config::Config;
use crate::sidecar::spending::labels;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum By {
    Day,
    Month,
    Model,
    Key,
    Account,
    /// A label of the client's key, as the keys have it now. Calls without one have an empty name.
    Label(String),
}

/// Lines of usage of a time.
pub(in crate::cli) struct Lines<'a> {
    archive: &'a Archive,
    span: &'a Span,
    /// The labels of keys, by their names.
    labels: BTreeMap<String, BTreeMap<String, String>>,
}

impl By {
    pub(in crate::cli) fn name(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Day => "day",
            Self::Month => "month",
            Self::Model => "model",
            Self::Key => "key",
            Self::Account => "account",
            Self::Label(name) => return Cow::Owned(name.clone()),
        })
    }

    fn group(&self) -> Group {
        match self {
            Self::Day => Group::Day,
            Self::Month => Group::Month,
            Self::Model => Group::Model,
            Self::Key | Self::Label(_) => Group::Key,
            Self::Account => Group::Account,
        }
    }
}

impl FromStr for By {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Self::Day, Self::Month, Self::Model, Self::Key, Self::Account];
        let label = text.strip_prefix("label.").filter(|name| !name.is_empty());
        let found = known.into_iter().find(|by| by.name() == text);
        found.or_else(|| label.map(|name| Self::Label(name.to_owned()))).ok_or_else(|| {
            format!(
                "{text:?} is none of day, month, model, key and account; a label of keys is written like label.team"
            )
        })
    }
}

impl<'a> Lines<'a> {
    /// Reads the keys' labels where any of these is one.
    pub(in crate::cli) fn of(
        archive: &'a Archive,
        config: &Config,
        span: &'a Span,
        by: &[By],
    ) -> Result<Self, Failure> {
        let asks = by.iter().any(|by| matches!(by, By::Label(_)));
        let labels = if asks { named(config)? } else { BTreeMap::new() };
        Ok(Self { archive, span, labels })
    }

    /// What was used, by these. One group of names alone comes with the dearest first, anything else in the order of its names.
    pub(in crate::cli) fn read(&self, by: &[By]) -> Result<Vec<Usage>, Failure> {
        let groups: Vec<_> = by.iter().map(By::group).collect();
        let Span { from_ms, until_ms, zone } = self.span;
        let lines = self.archive.usage(*from_ms, *until_ms, &groups, zone).map_err(failed)?;
        if !by.iter().any(|by| matches!(by, By::Label(_))) {
            return Ok(lines);
        }
        let mut summed: BTreeMap<Vec<String>, Usage> = BTreeMap::new();
        for line in lines {
            let names: Vec<_> = line.names.iter().zip(by).map(|(name, by)| self.value(name, by)).collect();
            let sum = summed.entry(names.clone()).or_insert_with(|| Usage { names, ..Usage::default() });
            sum.add(&line);
        }
        let mut lines: Vec<_> = summed.into_values().collect();
        if by.len() == 1 {
            lines.sort_by_key(|line| std::cmp::Reverse(line.neurons));
        }
        Ok(lines)
    }

    fn value(&self, name: &str, by: &By) -> String {
        match by {
            By::Label(label) => self.labels.get(name).and_then(|labels| labels.get(label)).cloned().unwrap_or_default(),
            _ => name.to_owned(),
        }
    }
}

/// The labels of all keys, by their names: of the config's, and of those that the gate of this config has made.
pub(in crate::cli) fn named(config: &Config) -> Result<BTreeMap<String, BTreeMap<String, String>>, Failure> {
    let mut config = config.clone();
    config.keys_path.get_or_insert_with(|| KEYS.into());
    labels(&config).map_err(|error| Failure::Failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_summed_up_by_is_read_or_told_to_be_wrong() {
        assert_eq!("label.team".parse(), Ok(By::Label("team".into())));
        assert_eq!("account".parse(), Ok(By::Account));
        for wrong in ["team", "label.", "", "Day"] {
            assert!(wrong.parse::<By>().is_err_and(|why| why.contains("label.team")), "{wrong:?}");
        }
    }
}
