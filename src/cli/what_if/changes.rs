//! What is to be different: other values of the config, another config, another price list, other models.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::catalogue::Entry;
use crate::cli::Failure;
use crate::layers::budget::{Amount, Period, Rule};
use crate::sidecar::config::{Config, Quota, Variables};

#[derive(Args, Debug, Default)]
pub(super) struct Changes {
    /// Every call for the first model asks the second one: `A=B`
    #[arg(long = "model", value_name = "A=B")]
    pub(super) models: Vec<String>,
    /// How long answers are kept: `1h`
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(super) cache_ttl: Option<Duration>,
    /// Keep sampled answers too
    #[arg(long)]
    pub(super) cache_sampled: bool,
    /// A budget's limit, or one more budget: `everyone=5 USD/day`
    #[arg(long = "budget", value_name = "NAME=LIMIT[/WINDOW]")]
    pub(super) budgets: Vec<String>,
    /// A model's limit of requests: `MODEL=300/1m`
    #[arg(long = "limit", value_name = "MODEL=REQUESTS[/TIME]")]
    pub(super) limits: Vec<String>,
    /// How long a call may wait for its turn
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(super) max_wait: Option<Duration>,
    /// Attempts a call
    #[arg(long, value_name = "COUNT")]
    pub(super) max_attempts: Option<NonZeroU32>,
    /// Another price list: a TOML file with `[models."…"]` tables, as a config has them
    #[arg(long, value_name = "FILE")]
    pub(super) prices: Option<PathBuf>,
    /// Another config in the place of the one in force; what else is said here changes that
    #[arg(long = "with", value_name = "FILE")]
    pub(super) with: Option<PathBuf>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Prices {
    models: BTreeMap<String, Entry>,
}

impl Changes {
    pub(super) fn are_any(&self) -> bool {
        let lists = [&self.models, &self.budgets, &self.limits];
        lists.iter().any(|list| !list.is_empty())
            || self.cache_sampled
            || self.cache_ttl.or(self.max_wait).is_some()
            || self.max_attempts.is_some()
            || self.prices.as_ref().or(self.with.as_ref()).is_some()
    }

    /// The config with the changes.
    pub(super) fn of(&self, config: &Config, variables: &Variables) -> Result<Config, Failure> {
        let mut config = match &self.with {
            None => config.clone(),
            Some(path) => {
                Config::load(Some(path), variables).map_err(|error| Failure::Usage(format!("--with: {error}")))?
            }
        };
        if let Some(ttl) = self.cache_ttl {
            config.cache.ttl = ttl;
            config.cache.models.clear();
        }
        config.cache.sampled |= self.cache_sampled;
        config.limits.max_wait = self.max_wait.unwrap_or(config.limits.max_wait);
        config.retry.max_attempts = self.max_attempts.unwrap_or(config.retry.max_attempts);
        self.budgets.iter().try_for_each(|budget| change_budget(&mut config, budget))?;
        self.limits.iter().try_for_each(|limit| change_limit(&mut config, limit))?;
        if let Some(path) = &self.prices {
            let wrong = |why: String| Failure::Usage(format!("--prices {}: {why}", path.display()));
            let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
            let prices: Prices = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
            for (model, entry) in prices.models {
                let known = config.models.entry(model).or_default();
                known.prices = entry.prices.or(known.prices.take());
            }
        }
        Ok(config)
    }

    /// Which model is asked instead of which.
    pub(super) fn models(&self) -> Result<BTreeMap<String, String>, Failure> {
        let wrong = |text: &String| Failure::Usage(format!("--model {text:?}: write the old and the new model as A=B"));
        let pair = |text: &String| {
            let (old, new) = text.split_once('=').filter(|(old, new)| !old.is_empty() && !new.is_empty())?;
            Some((old.to_owned(), new.to_owned()))
        };
        self.models.iter().map(|text| pair(text).ok_or_else(|| wrong(text))).collect()
    }
}

fn change_budget(config: &mut Config, text: &str) -> Result<(), Failure> {
    let wrong = |why: &str| {
        Failure::Usage(format!(
            "--budget {text:?}: {why}; write it like \"everyone=5 USD/day\" or \"everyone=10000 neurons\""
        ))
    };
    let (name, rest) = text.split_once('=').ok_or_else(|| wrong("it names no limit"))?;
    let (limit, window) = rest.split_once('/').map_or((rest, None), |(limit, window)| (limit, Some(window)));
    let limit = limit.parse::<Amount>().map_err(|why| wrong(&why))?;
    let window = window.map(period).transpose().map_err(|why| wrong(&why))?;
    match config.budgets.iter_mut().find(|rule| rule.name == name) {
        Some(rule) => (rule.limit, rule.window) = (limit, window.unwrap_or(rule.window)),
        None => config.budgets.push(Rule::new(name, limit, window.unwrap_or_default())),
    }
    Ok(())
}

fn period(text: &str) -> Result<Period, String> {
    let all = [Period::Minute, Period::Hour, Period::Day, Period::Week, Period::Month];
    all.into_iter().find(|period| period.label() == text.trim()).ok_or_else(|| format!("{text:?} is no window"))
}

fn change_limit(config: &mut Config, text: &str) -> Result<(), Failure> {
    let wrong =
        || Failure::Usage(format!("--limit {text:?} is none: write it like \"@cf/meta/llama-3.2-1b-instruct=300/1m\""));
    let (model, rest) = text.rsplit_once('=').ok_or_else(wrong)?;
    let (requests, per) = rest.split_once('/').unwrap_or((rest, "1m"));
    let requests: NonZeroU32 = requests.trim().parse().map_err(|_| wrong())?;
    let per = humantime::parse_duration(per.trim()).map_err(|_| wrong())?;
    if per < Duration::from_secs(1) || per > Duration::from_secs(24 * 3600) {
        return Err(wrong());
    }
    let tokens = config.limits.models.get(model).filter(|quota| quota.per == per).and_then(|quota| quota.tokens);
    config.limits.models.insert(model.to_owned(), Quota { requests: Some(requests), tokens, per });
    Ok(())
}
