//! The config, read again while calls go on.
//!
//! A config that is read again is checked whole. Where it is wrong the old one stays in force. Where it is right it comes into
//! force for every call that comes in from then on, in one step: each call takes one [`Generation`] at the door and keeps it.
//! What has state lives on between them: the windows of limits, what budgets have spent and reserved, the cache, the queues, the
//! metrics. What cannot be changed while the gate runs is named, and stays as it was.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::config::{Config, ConfigError, Variables};
use super::generation::{Generation, Lasting};
use super::key_rows;
use super::webhooks::{self, Endpoint, Sending};
use crate::readers::metrics::reloads::Reloading;

/// Where the config is read again, and who is told that it was.
pub(super) struct Reloads {
    lasting: Arc<Lasting>,
    variables: Variables,
    webhooks: Arc<Sending>,
    source: OnceLock<Source>,
    /// One at a time.
    state: Mutex<ReloadState>,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

/// Reads the config as it was read at the start: file, variables and flags.
pub(super) struct Source {
    pub(super) read: Box<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>,
    /// Told of each config that has come into force.
    pub(super) applied: Box<dyn Fn(&Config) + Send + Sync>,
}

struct ReloadState {
    config: Config,
    last_good: SystemTime,
    last_failure: Option<(SystemTime, ConfigError)>,
}

/// What came of reading the config again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Reloaded {
    /// The settings that are in force from now on, such as `limits.max_wait`.
    pub changed: Vec<String>,
    /// The settings that were changed in the file and wait for a restart: they stay as they were.
    pub needs_restart: Vec<String>,
}

/// Why nothing was reloaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The config cannot be. The old one stays in force.
    #[error("{0}; the config as it was stays in force")]
    Config(#[from] ConfigError),
    /// Nobody said where the config is.
    #[error("this gate was started without a config that could be read again")]
    NoSource,
}

/// How reading the config again has gone so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ReloadStatus {
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    /// Why the last one was refused; `None` where it was not.
    pub(super) trouble: Option<String>,
    /// When the config in force came into force.
    pub(super) since: Option<SystemTime>,
}

/// Keeps what cannot change: each setting that differs is named, and takes the old value.
macro_rules! keep {
    ($new:ident, $old:ident; $($($part:ident).+),+ $(,)?) => {{
        let mut kept = Vec::new();
        $(if $new.$($part).+ != $old.$($part).+ {
            $new.$($part).+ = $old.$($part).+.clone();
            kept.push([$(stringify!($part)),+].join("."));
        })+
        kept
    }};
}

/// What is made once, at the start: sockets, threads, files.
fn keep_fixed(new: &mut Config, old: &Config) -> Vec<String> {
    keep!(new, old;
        listen,
        admin,
        workers,
        max_body_memory,
        max_connections,
        max_connections_per_address,
        timeouts.handshake,
        timeouts.header,
        timeouts.send,
        timeouts.send_min_rate,
        timeouts.linger,
        timeouts.idle,
        timeouts.call,
        shutdown_timeout,
        watch_config,
        replicas,
        otel,
        tls,
        admin_tls,
        reservations.release_batches,
        keys_path,
        handover_path,
        log.format,
        upstream.connect_timeout,
        upstream.ca,
        compat.compress,
        cache.max_bytes,
        cache.path,
        cache.shared,
        cache.store,
        cache.shared_wait,
        cache.shared_max_entry,
        cache.shared_write_rate,
        account.analytics,
        account.analytics_every,
        account.analytics_lag,
        records.path,
        records.retention,
        records.max_size,
        records.queue,
        catalogue.refresh,
        catalogue.path,
    )
}

// === impl Reloads ===

impl Reloads {
    pub(super) fn new(lasting: Arc<Lasting>, config: Config, variables: Variables, webhooks: Arc<Sending>) -> Self {
        let state = Mutex::new(ReloadState { config, last_good: SystemTime::now(), last_failure: None });
        let source = OnceLock::new();
        Self { lasting, variables, webhooks, source, state, succeeded: AtomicU64::new(0), failed: AtomicU64::new(0) }
    }

    /// Only the first one counts.
    pub(super) fn read_by(&self, source: Source) {
        let _ = self.source.set(source);
    }

    /// Reads the config again. Blocks, for it reads files.
    pub(super) fn reload(&self) -> Result<Reloaded, ReloadError> {
        let source = self.source.get().ok_or(ReloadError::NoSource)?;
        let mut state = self.state.lock();
        let reloaded = (source.read)().and_then(|config| self.apply(&mut state, config));
        if reloaded.is_ok() {
            (source.applied)(&state.config);
        }
        Ok(self.noted(&mut state, reloaded)?)
    }

    /// Puts a config in force.
    pub(super) fn put(&self, config: Config) -> Result<Reloaded, ConfigError> {
        let mut state = self.state.lock();
        let reloaded = self.apply(&mut state, config);
        self.noted(&mut state, reloaded)
    }

    /// The labels of keys as they are now, by the keys' names.
    pub(super) fn labels(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let stored = self.lasting.parts.spending.keys.as_ref().and_then(|store| store.all().ok()).unwrap_or_default();
        let stored = stored.into_iter().map(|key| (key.name, key.labels));
        let configured: Vec<_> =
            self.state.lock().config.keys.iter().map(|key| (key.name.clone(), key.labels.clone())).collect();
        stored.chain(configured).filter(|(_, labels)| !labels.is_empty()).collect()
    }

    /// What reading the config again would change. Changes nothing, and blocks.
    pub(super) fn preview(&self) -> Result<Reloaded, ReloadError> {
        let mut config = (self.source.get().ok_or(ReloadError::NoSource)?.read)()?;
        Ok(self.compare(&self.state.lock(), &mut config)?.0)
    }

    /// What the config would change, which cannot be put in force whole: it keeps what cannot change.
    fn compare(&self, state: &ReloadState, config: &mut Config) -> Result<(Reloaded, Vec<Endpoint>), ConfigError> {
        // What is not named in the file is named by `serve`, and read no other way.
        config.records.may_be_missing = state.config.records.may_be_missing;
        super::check(config, &self.variables)?;
        let needs_restart = keep_fixed(config, &state.config);
        let changed = difference(&state.config, config);
        let endpoints = webhooks::endpoints(&config.webhooks, &self.variables, &config.road(&self.variables)?)?;
        Ok((Reloaded { changed, needs_restart }, endpoints))
    }

    fn apply(&self, state: &mut ReloadState, mut config: Config) -> Result<Reloaded, ConfigError> {
        let (reloaded, endpoints) = self.compare(state, &mut config)?;
        Generation::follow(&self.lasting, config.clone(), &self.variables)?;
        if let Err(error) = self.webhooks.tell(endpoints) {
            tracing::error!(%error, "webhooks are not told: the system refuses their thread");
        }
        state.config = config;
        Ok(reloaded)
    }

    fn noted(&self, state: &mut ReloadState, reloaded: Result<Reloaded, ConfigError>) -> Result<Reloaded, ConfigError> {
        match &reloaded {
            Ok(Reloaded { changed, needs_restart }) => {
                self.succeeded.fetch_add(1, Ordering::Relaxed);
                (state.last_good, state.last_failure) = (SystemTime::now(), None);
                tracing::info!(changed = changed.join(", "), "the config was read again and is in force");
                if !needs_restart.is_empty() {
                    let settings = needs_restart.join(", ");
                    tracing::warn!(settings, "these settings have changed and stay as they were until a restart");
                }
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                state.last_failure = Some((SystemTime::now(), error.clone()));
                tracing::error!(
                    place = error.place,
                    what = error.what,
                    "the config is wrong: the one before stays in force"
                );
            }
        }
        reloaded
    }

    /// The config in force.
    pub(super) fn config(&self) -> Config {
        self.state.lock().config.clone()
    }

    /// Makes the next generation of the same config, for what stands beside it: keys that were made or revoked.
    pub(super) fn renew(&self) -> Result<(), ConfigError> {
        let state = self.state.lock();
        Generation::follow(&self.lasting, state.config.clone(), &self.variables)
    }

    /// Of the config in force, without what each gate has of its own: where it is, its name, its files, certificates and log.
    pub(super) fn digest(&self) -> String {
        let mut config = self.state.lock().config.clone();
        let own = Config::default();
        (config.listen, config.admin, config.workers) = (own.listen, own.admin, own.workers);
        config.replicas.name.clear();
        config.replicas.peers.clear();
        (config.records.path, config.keys_path, config.cache.path) = (own.records.path, own.keys_path, own.cache.path);
        config.catalogue.path = own.catalogue.path;
        config.handover_path = own.handover_path;
        (config.tls, config.admin_tls, config.log) = (own.tls, own.admin_tls, own.log);
        let text = toml::to_string(&config).unwrap_or_default();
        key_rows::shown(&Sha256::digest(text.as_bytes()))
    }

    /// How often the config was read again and came into force.
    pub(super) fn succeeded(&self) -> u64 {
        self.succeeded.load(Ordering::Relaxed)
    }

    /// The gate has a token of its own, for which keys stand.
    pub(super) fn has_token(&self) -> bool {
        self.lasting.now.load().target.has_token()
    }

    /// The same for the metrics.
    pub(super) fn counts(&self) -> Reloading {
        let ReloadStatus { succeeded, failed, trouble, since } = self.standing();
        let since = since.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let since_seconds = since.map_or(0.0, |since| since.as_secs_f64());
        Reloading { succeeded, failed, is_well: trouble.is_none(), since_seconds }
    }

    pub(super) fn standing(&self) -> ReloadStatus {
        let state = self.state.lock();
        ReloadStatus {
            succeeded: self.succeeded.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            trouble: state.last_failure.as_ref().map(|(_, why)| why.to_string()),
            since: Some(state.last_good),
        }
    }
}

/// The settings whose values differ, by name; those of a table as `table.key`, and a list as a whole.
fn difference(old: &Config, new: &Config) -> Vec<String> {
    let table = |config: &Config| toml::Table::try_from(config).unwrap_or_default();
    let (before, after) = (table(old), table(new));
    let mut names = Vec::new();
    if old.admin_token != new.admin_token {
        names.push("admin_token".to_owned());
    }
    for name in before.keys().chain(after.keys().filter(|name| !before.contains_key(*name))) {
        match (before.get(name), after.get(name)) {
            (Some(toml::Value::Table(before)), Some(toml::Value::Table(after))) => {
                let all = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
                let differs = all.filter(|key| before.get(*key) != after.get(*key));
                names.extend(differs.map(|key| format!("{name}.{key}")));
            }
            (before, after) if before != after => names.push(name.clone()),
            _ => {}
        }
    }
    // A secret is told apart by itself, and by its table only where it comes or goes.
    names.sort_unstable();
    names.dedup();
    names
}

impl Reloaded {
    /// Nothing has changed at all.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.needs_restart.is_empty()
    }
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.changed.is_empty() {
            true => f.write_str("nothing has changed")?,
            false => write!(f, "in force: {}", self.changed.join(", "))?,
        }
        if !self.needs_restart.is_empty() {
            write!(f, "; as before until a restart: {}", self.needs_restart.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Reloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reloads").field(&self.standing()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_named_by_setting() {
        let read = |text: &str| Config::parse(text, "t").unwrap();
        let old = read("max_body = \"1MiB\"\n[limits]\nmax_wait = \"1s\"\n[log]\nlevel = \"info\"\n");
        let mut new = read(
            "listen = \"127.0.0.1:1\"\nadmin_token = \"s\"\n[cache]\nshared = true\n[limits]\nmax_wait = \"2s\"\n[[budgets]]\nname = \"b\"\n\
             limit = \"1 USD\"\n",
        );
        assert_eq!(keep_fixed(&mut new, &old), ["listen", "cache.shared"]);
        assert_eq!(new.listen, old.listen);
        let mut changed = difference(&old, &new);
        changed.sort();
        assert_eq!(changed, ["admin_token", "budgets", "limits.max_wait", "max_body"]);
        assert!(difference(&old, &old).is_empty());
    }
}
