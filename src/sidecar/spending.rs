//! What the sidecar keeps of money: the records, the budgets, the clients' keys, and how they are set.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::config::{Account, Config, ConfigError, Records, Reservations};
use super::key_store::{self, KeyStore, KeyStoreError, Stored};
use crate::batches::Batches;
use crate::catalogue::Catalogue;
use crate::layers::budget::{self, Budgets, CurrentBudgets, RuleError};
use crate::layers::identify::keys::{KeyError, Keys};
use crate::readers;
use crate::readers::records::{Records as Database, RecordsError};

/// What is open while the sidecar runs.
pub(super) struct Spending {
    pub(super) records: Option<Arc<Database>>,
    pub(super) budgets: CurrentBudgets,
    pub(super) batches: Batches,
    /// The clients' keys that are made while the gate runs.
    pub(super) keys: Option<Arc<KeyStore>>,
}

/// The database of the records, where they are kept.
fn open_records(records: &Records, has_budgets: bool) -> Result<Option<Arc<Database>>, RecordsError> {
    let Some(path) = records.path() else { return Ok(None) };
    let settings = readers::records::Settings {
        path: path.clone(),
        retention: records.retention,
        max_bytes: records.max_size.as_u64(),
        queue: records.queue,
        ..readers::records::Settings::default()
    };
    match Database::open(settings) {
        Err(why) if records.may_be_missing && !has_budgets => {
            tracing::warn!(%why, "going on without records: what is spent will not survive a restart");
            Ok(None)
        }
        opened => opened.map(Some),
    }
}

/// Whether keys, budgets and the keys' limits can be together; opens nothing but the keys' file, where there is one. The keys that
/// are asked for.
pub fn check(config: &Config, catalogue: &Arc<Catalogue>) -> Result<Keys, ConfigError> {
    let keys = Keys::new(&config.keys).map_err(wrong_keys)?;
    budgets(config, catalogue, None, None, None, Arc::new(budget::SystemClock))?;
    check_books(config)?;
    let (asks, stored) = key_store::peek(config).map_err(|error| ConfigError::at("keys_path", error))?;
    let is_known = |name: &&String| {
        let is_stored = stored.binary_search_by(|key| key.name.as_str().cmp(name)).is_ok();
        is_stored || config.keys.iter().any(|key| key.name == **name)
    };
    let unknown = |name: &String| {
        format!("names the key {name:?}, and neither [[keys]] nor the keys made by `tollgate keys new` have that name")
    };
    for rule in &config.budgets {
        if let Some(name) = rule.keys.iter().find(|name| !is_known(name)) {
            return Err(ConfigError::at("[[budgets]]", format!("the budget {:?} {}", rule.name, unknown(name))));
        }
    }
    match config.limits.keys.keys().find(|name| !is_known(name)) {
        Some(name) => Err(ConfigError::at("[limits.keys]", unknown(name))),
        None if asks => with_stored(keys, &stored),
        None => Ok(keys),
    }
}

/// The labels of all keys that have any, by the keys' names.
pub(crate) fn labels(config: &Config) -> Result<BTreeMap<String, BTreeMap<String, String>>, ConfigError> {
    let (_, stored) = key_store::peek(config).map_err(|error| ConfigError::at("keys_path", error))?;
    let stored = stored.into_iter().map(|key| (key.name, key.labels));
    let configured = config.keys.iter().map(|key| (key.name.clone(), key.labels.clone()));
    // Where both have a name, the config's is meant.
    Ok(stored.chain(configured).filter(|(_, labels)| !labels.is_empty()).collect())
}

/// The config's keys, and those of the file that hold. Where both have a name, the config's is meant.
pub(super) fn with_stored(keys: Keys, stored: &[Stored]) -> Result<Keys, ConfigError> {
    let configured = keys.clone();
    let hold = stored.iter().filter(|key| !configured.has_name(&key.name)).flat_map(Stored::keys);
    keys.and(hold).map_err(|error| ConfigError::at("keys_path", error))
}

/// A key stands for the gate's own token.
pub(super) fn check_token(keys: &Keys, has_token: bool) -> Result<(), ConfigError> {
    let what = "clients with the gate's keys have no token for the vendor: set the variable that [upstream] api_token_env names";
    if keys.is_empty() || has_token { Ok(()) } else { Err(ConfigError::at("[[keys]]", what)) }
}

/// What may be meant, and is more likely a slip of the pen: a model that nobody knows may be one to come.
pub fn doubts(config: &Config, catalogue: &Catalogue) -> Vec<String> {
    let mut doubts = Vec::new();
    let mut doubt = |place: String, model: &str| {
        if catalogue.get(model).is_none() {
            doubts.push(format!("{place} names {model:?}, a model in no table: is it spelled right?"));
        }
    };
    for rule in &config.budgets {
        rule.models.iter().for_each(|model| doubt(format!("[[budgets]] {:?} models", rule.name), model));
        if let budget::OnExceeded::Model(model) = &rule.on_exceeded {
            doubt(format!("[[budgets]] {:?} on_exceeded", rule.name), model);
        }
    }
    for key in &config.keys {
        key.models.iter().for_each(|model| doubt(format!("[[keys]] {:?} models", key.name), model));
    }
    config.limits.models.keys().for_each(|model| doubt("[limits.models]".into(), model));
    config.cache.models.keys().for_each(|model| doubt("[cache.models]".into(), model));
    for (model, entry) in &config.models {
        entry.fallback.iter().flatten().for_each(|next| doubt(format!("[models.{model:?}] fallback"), next));
    }
    doubts
}

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn check_books(config: &Config) -> Result<(), ConfigError> {
    let counts_account = |rule: &budget::Rule| rule.scope == budget::Scope::Account;
    if !config.account.analytics && config.budgets.iter().any(counts_account) {
        let what =
            "a budget with scope = \"account\" counts what the vendor's books say: set [account] analytics = true";
        return Err(ConfigError::at("[[budgets]]", what));
    }
    let Account { analytics_every, analytics_lag, .. } = config.account;
    if config.account.analytics && !(SECOND..=DAY).contains(&analytics_every) {
        return Err(ConfigError::at("[account] analytics_every", "is to be from 1s to 1d; write it like 5m"));
    }
    if config.account.analytics && analytics_lag > DAY {
        return Err(ConfigError::at(
            "[account] analytics_lag",
            "is more than 1d, and the books of a day are compared; write it like 15m",
        ));
    }
    let refresh = config.catalogue.refresh;
    if !refresh.is_zero() && !(SECOND..=YEAR).contains(&refresh) {
        return Err(ConfigError::at("[catalogue] refresh", "is to be 0s, or from 1s to 365d; write it like 24h"));
    }
    Ok(())
}

pub(super) fn wrong_keys(error: KeyError) -> ConfigError {
    ConfigError::at("[[keys]]", error)
}

pub(super) fn wrong_store(error: KeyStoreError) -> ConfigError {
    ConfigError::at("keys_path", error)
}

pub(super) fn wrong_budgets(error: RuleError) -> ConfigError {
    ConfigError::at("[[budgets]]", error)
}

fn budgets(
    config: &Config,
    catalogue: &Arc<Catalogue>,
    ledger: Option<Arc<dyn budget::Ledger>>,
    watch: Option<Arc<dyn budget::Watch>>,
    registers: Option<Arc<dyn budget::Registers>>,
    clock: Arc<dyn budget::Clock>,
) -> Result<Budgets, ConfigError> {
    let settings = budget::Settings { ledger, watch, registers, clock, ..budget_settings(config) };
    Budgets::new(settings, catalogue.clone()).map_err(wrong_budgets)
}

/// The budgets as the config has them, the free allocation first.
pub(super) fn budget_settings(config: &Config) -> budget::Settings {
    let Reservations { max_wait, max_waiting, max_buckets, clamp_max_tokens, min_tokens, unpriced, headers, .. } =
        config.reservations.clone();
    budget::Settings {
        rules: std::iter::once(config.account.plan.rule()).chain(config.budgets.iter().cloned()).collect(),
        max_wait,
        max_waiting,
        max_buckets,
        clamp_max_tokens,
        min_tokens,
        unpriced,
        headers,
        ..budget::Settings::default()
    }
}

// === impl Spending ===

impl Spending {
    /// Opens it all. That it can be is [checked](check) before.
    pub(super) fn open(
        config: &Config,
        catalogue: &Arc<Catalogue>,
        watch: Arc<dyn budget::Watch>,
        registers: Option<Arc<dyn budget::Registers>>,
        clock: Arc<dyn budget::Clock>,
    ) -> Result<Self, ConfigError> {
        for doubt in doubts(config, catalogue) {
            tracing::warn!("{doubt}");
        }
        let records = open_records(&config.records, !config.budgets.is_empty())
            .map_err(|error| ConfigError::at("[records] path", error))?;
        let ledger = records.clone().map(|records| records as Arc<dyn budget::Ledger>);
        let budgets = Arc::new(budgets(config, catalogue, ledger, Some(watch), registers, clock)?);
        let batches = Batches::new(config.reservations.release_batches);
        if let Some(records) = &records {
            records.restore_batches(&batches, &budgets).map_err(|error| ConfigError::at("[records] path", error))?;
            batches.keep_in(records.clone());
        }
        batches.release(SystemTime::now());
        let keys = config.keys_path().map(KeyStore::open).transpose();
        let keys = keys.map_err(|error| ConfigError::at("keys_path", error))?.map(Arc::new);
        Ok(Self { records, budgets: budgets.into(), batches, keys })
    }

    /// Writes what there is to be written, once no call runs any more.
    pub(super) fn close(&self) {
        self.budgets.get().release();
        if let Some(records) = &self.records {
            records.close();
        }
    }
}

impl Drop for Spending {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Spending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spending").field("budgets", &self.budgets).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vendors_books_are_read_at_times_that_can_be() {
        let check = |change: fn(&mut Config)| {
            let mut config = Config::default();
            config.account.analytics = true;
            change(&mut config);
            check_books(&config).map_err(|error| error.to_string())
        };
        assert_eq!(check(|_| {}), Ok(()));
        for (change, place) in [
            ((|config| config.account.analytics_every = Duration::ZERO) as fn(&mut Config), "analytics_every"),
            (|config| config.account.analytics_every = Duration::MAX, "analytics_every"),
            (|config| config.account.analytics_lag = Duration::MAX, "analytics_lag"),
            (|config| config.catalogue.refresh = Duration::MAX, "[catalogue] refresh"),
            (|config| config.catalogue.refresh = Duration::from_nanos(1), "[catalogue] refresh"),
        ] {
            assert!(check(change).is_err_and(|why| why.contains(place)), "{place}");
        }
    }

    #[test]
    fn budgets_do_not_begin_anew_where_their_books_cannot_be_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = Some(directory.path().join("none/tollgate.db"));
        let mut records = Records::default();
        (records.path, records.may_be_missing) = (path, true);
        assert!(open_records(&records, false).unwrap().is_none());
        assert!(open_records(&records, true).is_err());
    }
}
