//! The vendor's own books, read in the background: prices by the day, the account's spend by the minute.
//!
//! All of it is on the admin port's thread. When the vendor does not answer, what was known stays in force, the log says once
//! what is missing, and it is asked again later.

mod account;
mod kept;
mod list;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::account::AccountWatch;
use self::kept::Kept;
pub(crate) use self::kept::Learned;
use self::list::ListWatch;
use super::config::{Config, ConfigError, Variables};
use crate::catalogue::Catalogue;
use crate::layers::budget::CurrentBudgets;
use crate::layers::retry::Pause;
use crate::readers::metrics::Metrics;
use crate::readers::ran::Ran;
use crate::receipt::Reader;
use crate::upstream::Client;
use crate::vendor::{Books, Known};

/// `[catalogue]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct CatalogueSettings {
    /// How often the vendor's list of models is read, for new models and prices; `0s` is never.
    #[serde(with = "super::duration")]
    pub refresh: Duration,
    /// Where the last good list is kept, and what was learned of prices; an empty one is nowhere. `tollgate serve` keeps
    /// `tollgate.models.json` where none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

/// What is read, for whom.
pub(super) struct Reading {
    pub(super) known: Arc<Known>,
    kept: Kept,
    list: Option<ListWatch>,
    account: Option<AccountWatch>,
}

/// Who asks again and again asks no two times at the same distance: so far off, either way.
const JITTER: f64 = 0.1;
/// After a failure; then twice as long each time, at most [`LONGEST`].
const AFTER_FAILURE: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);

// === impl CatalogueSettings ===

impl CatalogueSettings {
    /// Where it is kept, if it is.
    pub fn path(&self) -> Option<&PathBuf> {
        self.path.as_ref().filter(|path| !path.as_os_str().is_empty())
    }
}

// === impl Reading ===

impl Reading {
    /// Puts in force what an earlier run has learned, and gets ready to read what the config asks for.
    pub(super) fn new(
        config: &Config,
        variables: &Variables,
        catalogue: &Arc<Catalogue>,
        budgets: &CurrentBudgets,
    ) -> Result<Self, ConfigError> {
        let (list, account) = asked_for(config, variables)?;
        let known = Arc::new(Known::default());
        let kept = Kept::load(config.catalogue.path().cloned(), catalogue, !config.catalogue.refresh.is_zero());
        let refresh = config.catalogue.refresh;
        let list = list.map(|books| ListWatch::new(books, catalogue.clone(), known.clone(), kept.clone(), refresh));
        let own = account::Own { catalogue: catalogue.clone(), budgets: budgets.clone(), known: known.clone() };
        let records = config.records.path().cloned();
        let account = account.map(|books| AccountWatch::new(books, own, &config.account, records));
        Ok(Self { known, kept, list, account })
    }

    /// What counts the gate's own side, where it is needed.
    pub(super) fn reader(&self) -> Option<Arc<dyn Reader>> {
        self.account.as_ref().map(|account| account.ran() as Arc<Ran> as Arc<dyn Reader>)
    }

    /// What is to be read for the admin port's runtime to go on with.
    pub(super) fn start(&self, metrics: &Arc<Metrics>) {
        tokio::spawn(self.kept.clone().watch());
        if let Some(list) = self.list.clone() {
            tokio::spawn(list.watch(metrics.clone()));
        }
        if let Some(account) = self.account.clone() {
            tokio::spawn(account.watch());
        }
    }

    /// Keeps what was learned, once no call runs any more.
    pub(super) fn close(&self) {
        self.kept.save();
    }
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reading(list: {}, account: {})", self.list.is_some(), self.account.is_some())
    }
}

/// Whether the books that the config asks for can be read, as far as that can be told without asking.
pub fn check(config: &Config, variables: &Variables) -> Result<(), ConfigError> {
    asked_for(config, variables).map(drop)
}

/// The books of the list and of the analytics, where they are to be read.
fn asked_for(config: &Config, variables: &Variables) -> Result<(Option<Books>, Option<Books>), ConfigError> {
    let wanted = |is_wanted: bool, setting| is_wanted.then(|| books(config, variables, setting)).transpose();
    let list = wanted(!config.catalogue.refresh.is_zero(), "[catalogue] refresh")?;
    Ok((list, wanted(config.account.analytics, "[account] analytics")?))
}

/// The account's books with the gate's own token; `setting` is who asks for them.
pub(crate) fn books(config: &Config, variables: &Variables, setting: &str) -> Result<Books, ConfigError> {
    let wrong = |what: String| ConfigError { place: setting.to_owned(), what };
    let account = config.account(variables).ok_or_else(|| {
        wrong("needs the account whose books to read: set [upstream] account_id or CLOUDFLARE_ACCOUNT_ID".into())
    })?;
    let token = config.token(variables).ok_or_else(|| {
        wrong(format!("needs the gate's own API token: set the variable {}", config.upstream.api_token_env))
    })?;
    let client = Client::with_tls(config.road(variables)?.tls()).map_err(|error| wrong(error.to_string()))?;
    Books::new(client, config.books_url(), account, token).map_err(|error| wrong(error.to_string()))
}

/// The pause until a book is read again, after so many failures in a row.
fn pause(every: Duration, failures: u32) -> Duration {
    let doubling = Pause { delay: AFTER_FAILURE, max_delay: LONGEST, ..Pause::default() };
    let length = match failures {
        0 => every,
        // A book that is read often is not to be read more often because it cannot be; one that is read by the day is.
        n => doubling.before(n - 1, 1.0).max(if every < LONGEST { every } else { Duration::ZERO }),
    };
    length.mul_f64(1.0 + JITTER * (fastrand::f64() * 2.0 - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_jittered_and_grow_with_failures_up_to_an_hour() {
        let minute = Duration::from_secs(60);
        for (every, failures, about) in [
            (5 * minute, 0, 5 * minute),
            (5 * minute, 1, 5 * minute),
            (5 * minute, 5, 16 * minute),
            (5 * minute, 40, 60 * minute),
            (24 * 60 * minute, 0, 24 * 60 * minute),
            (24 * 60 * minute, 1, minute),
            (24 * 60 * minute, 9, 60 * minute),
        ] {
            for _ in 0..100 {
                let pause = pause(every, failures).as_secs_f64() / about.as_secs_f64();
                assert!((0.9..=1.1).contains(&pause), "{pause} of {about:?} after {failures} failures");
            }
        }
    }
}
