//! What is read of the vendor's books, as a config asks for it.

use std::sync::Arc;

use super::account::{AccountWatch, Own};
use super::kept::Kept;
use super::list::ListWatch;
use crate::books::{Books, Known};
use crate::catalogue::Catalogue;
use crate::layers::budget::CurrentBudgets;
use crate::readers::metrics::Metrics;
use crate::readers::ran::Ran;
use crate::receipt::Reader;
use crate::sidecar::config::{Config, ConfigError, Variables};
use crate::upstream::Client;

/// What is read, for whom.
pub(in crate::sidecar) struct Reading {
    pub(in crate::sidecar) known: Arc<Known>,
    kept: Kept,
    list: Option<ListWatch>,
    account: Option<AccountWatch>,
}

// === impl Reading ===

impl Reading {
    /// Puts in force what an earlier run has learned, and gets ready to read what the config asks for.
    pub(in crate::sidecar) fn new(
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
        let own = Own { catalogue: catalogue.clone(), budgets: budgets.clone(), known: known.clone() };
        let records = config.records.path().cloned();
        let account = account.map(|books| AccountWatch::new(books, own, &config.account, records));
        Ok(Self { known, kept, list, account })
    }

    /// What counts the gate's own side, where it is needed.
    pub(in crate::sidecar) fn reader(&self) -> Option<Arc<dyn Reader>> {
        self.account.as_ref().map(|account| account.ran() as Arc<Ran> as Arc<dyn Reader>)
    }

    /// What is to be read for the admin port's runtime to go on with.
    pub(in crate::sidecar) fn start(&self, metrics: &Arc<Metrics>) {
        tokio::spawn(self.kept.clone().watch());
        if let Some(list) = self.list.clone() {
            tokio::spawn(list.watch(metrics.clone()));
        }
        if let Some(account) = self.account.clone() {
            tokio::spawn(account.watch());
        }
    }

    /// Keeps what was learned, once no call runs any more.
    pub(in crate::sidecar) fn close(&self) {
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
