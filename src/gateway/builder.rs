//! A gateway from plain settings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use tower::Service;

use super::{Gateway, Settings, stack};
use crate::Error;
use crate::body::Body;
use crate::catalogue::{Catalogue, Entry};
use crate::layers::budget::{self, BudgetLayer, Budgets, Rule, RuleError};
use crate::layers::cache::{self, CacheLayer};
use crate::layers::rate_limit::{self, RateLimitLayer};
use crate::layers::retry::{self, RetryLayer};
use crate::layers::{Reply, identify};
use crate::receipt::Reader;
#[cfg(feature = "reqwest")]
use crate::upstream::Client;
#[cfg(feature = "reqwest")]
use crate::upstream::client::ClientError;
use crate::upstream::{API, GATEWAY, Target, TargetError};

/// Makes a [`Gateway`]. What is not set is as each layer's `Settings::default()` has it: the vendor's limits, four attempts, a
/// cache of 256 MiB and five minutes, no budget.
#[derive(Clone, Default)]
pub struct Builder {
    account: Option<Arc<str>>,
    token: Option<String>,
    base_url: Option<String>,
    gateway: Option<String>,
    catalogue: Option<Arc<Catalogue>>,
    limits: rate_limit::Settings,
    retry: retry::Settings,
    cache: cache::Settings,
    semantic: Option<cache::semantic::Settings>,
    models: BTreeMap<String, Entry>,
    budgets: budget::Settings,
    shared_budgets: Option<Arc<Budgets>>,
    first_byte_timeout: Option<Duration>,
    idle_timeout: Option<Duration>,
    readers: Vec<Arc<dyn Reader>>,
    door: identify::Settings,
}

/// Why a gateway cannot be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The base URL or the token.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A budget.
    #[error(transparent)]
    Budget(#[from] RuleError),
    /// [`Builder::model`] changes the built-in table, and [`Builder::catalogue`] is another.
    #[error("models were set by both `catalogue` and `model`: give the catalogue all of them")]
    Models,
    /// [`Builder::shared_budgets`] are made already.
    #[error("budgets were set by both `shared_budgets` and `budget` or `budgets`: give the shared ones all rules")]
    SharedBudgets,
    /// The system refuses what TLS needs.
    #[cfg(feature = "reqwest")]
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl Builder {
    /// The account of the short routes (`/run/…`, `/v1/…`) and of the typed client.
    pub fn account(mut self, id: &str) -> Self {
        self.account = Some(id.into());
        self
    }

    /// The gate's own token for the vendor. Without it a request's own `Authorization` goes through.
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Where calls go; by default Cloudflare's API, or the AI Gateway's host where [`gateway`](Self::gateway) is set.
    pub fn base_url(mut self, url: &str) -> Self {
        self.base_url = Some(url.into());
        self
    }

    /// The name of a Cloudflare AI Gateway that every call leaves through.
    pub fn gateway(mut self, name: &str) -> Self {
        self.gateway = Some(name.into());
        self
    }

    /// The models and their prices; by default the built-in table.
    pub fn catalogue(mut self, catalogue: Arc<Catalogue>) -> Self {
        self.catalogue = Some(catalogue);
        self
    }

    /// One more model, or other prices, limits or fallbacks of one in the built-in table.
    ///
    /// ```
    /// use tollgate::catalogue::Entry;
    /// use tollgate::gateway::Gateway;
    ///
    /// let fallback = Some(vec!["@cf/meta/llama-3.2-1b-instruct".to_owned()]);
    /// let entry = Entry { fallback, ..Entry::default() };
    /// let builder = Gateway::builder().model("@cf/meta/llama-3.3-70b-instruct-fp8-fast", entry);
    /// ```
    pub fn model(mut self, name: &str, entry: Entry) -> Self {
        self.models.insert(name.to_owned(), entry);
        self
    }

    /// How often a model may be called: a [`Limit`](crate::catalogue::Limit) of requests, or a
    /// [`Quota`](rate_limit::Quota) of tokens as well.
    pub fn limit(mut self, model: &str, quota: impl Into<rate_limit::Quota>) -> Self {
        self.limits.models.insert(model.to_owned(), quota.into());
        self
    }

    /// How often models may be called, and how long a call may wait for its turn.
    pub fn limits(mut self, limits: rate_limit::Settings) -> Self {
        self.limits = limits;
        self
    }

    /// What is tried again, and how.
    pub fn retry(mut self, retry: retry::Settings) -> Self {
        self.retry = retry;
        self
    }

    /// What repeats are answered from. A `ttl` of zero keeps only what a request asks to keep.
    pub fn cache(mut self, cache: cache::Settings) -> Self {
        self.cache = cache;
        self
    }

    /// Which questions are answered as one before that means the same; none where this is not set.
    pub fn semantic_cache(mut self, semantic: cache::semantic::Settings) -> Self {
        self.semantic = Some(semantic);
        self
    }

    /// One more budget.
    ///
    /// ```
    /// use tollgate::gateway::Gateway;
    /// use tollgate::layers::budget::{Period, Rule};
    /// use tollgate::neurons::Neurons;
    ///
    /// let builder = Gateway::builder().budget(Rule::new("everyone", Neurons::from_usd(5.0), Period::Day));
    /// ```
    pub fn budget(mut self, rule: Rule) -> Self {
        self.budgets.rules.push(rule);
        self
    }

    /// Budgets that other gates of this program count in as well.
    pub fn shared_budgets(mut self, budgets: Arc<Budgets>) -> Self {
        self.shared_budgets = Some(budgets);
        self
    }

    /// All that may be spent.
    pub fn budgets(mut self, budgets: budget::Settings) -> Self {
        self.budgets = budgets;
        self
    }

    /// One more reader of receipts, such as `readers::metrics::Metrics`.
    /// An `Arc` of one is a reader, too.
    pub fn reader(mut self, reader: impl Reader) -> Self {
        self.readers.push(Arc::new(reader));
        self
    }

    /// How long until a reply's head is here, and then until a stream's first event; by default
    /// [`FIRST_BYTE_TIMEOUT`](crate::upstream::FIRST_BYTE_TIMEOUT).
    pub fn first_byte_timeout(mut self, timeout: Duration) -> Self {
        self.first_byte_timeout = Some(timeout);
        self
    }

    /// How long between two pieces of a reply's body; by default [`IDLE_TIMEOUT`](crate::upstream::IDLE_TIMEOUT).
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// All else of the door: the largest body, clients' keys. Its account, catalogue and readers are set by this builder.
    pub fn door(mut self, door: identify::Settings) -> Self {
        self.door = door;
        self
    }

    /// Around a reqwest client of its own.
    #[cfg(feature = "reqwest")]
    pub fn build(self) -> Result<Gateway, BuildError> {
        self.build_around(Client::new()?)
    }

    /// Around your own HTTP service, or [`Around`](crate::upstream::Around) any tower service of HTTP requests: your own
    /// reqwest or hyper client, a stand-in in a test.
    pub fn build_around<C>(self, client: C) -> Result<Gateway<C>, BuildError>
    where
        C: Service<Request<Body>, Response = Reply, Error = Error> + Clone,
    {
        let target = self.target()?;
        let catalogue = match self.catalogue {
            Some(_) if !self.models.is_empty() => return Err(BuildError::Models),
            Some(catalogue) => catalogue,
            None if self.models.is_empty() => Arc::default(),
            None => Arc::new(Catalogue::with(&self.models)),
        };
        let budgets = match self.shared_budgets {
            Some(_) if !self.budgets.rules.is_empty() => return Err(BuildError::SharedBudgets),
            Some(shared) => shared,
            None => Arc::new(Budgets::new(self.budgets, catalogue.clone())?),
        };
        let readers = self.door.readers.iter().cloned().chain(self.readers).collect();
        let account = self.account.or(self.door.account.clone());
        let cache = CacheLayer::new(self.cache).with_semantic(self.semantic, catalogue.clone());
        let door = identify::Settings { catalogue, account, readers, has_token: target.has_token(), ..self.door };
        let settings = Settings {
            identify: door,
            cache,
            budget: BudgetLayer::new(budgets.clone()),
            retry: RetryLayer::new(self.retry),
            rate_limit: RateLimitLayer::new(self.limits),
        };
        Ok(Gateway { stack: stack(client, target, settings), budgets })
    }

    fn target(&self) -> Result<Target, TargetError> {
        let usual = if self.gateway.is_some() { GATEWAY } else { API };
        let mut target = Target::new(self.base_url.as_deref().unwrap_or(usual))?;
        if let Some(token) = &self.token {
            target = target.with_token(token)?;
        }
        target.gateway.clone_from(&self.gateway);
        target.first_byte_timeout = self.first_byte_timeout.unwrap_or(target.first_byte_timeout);
        target.idle_timeout = self.idle_timeout.unwrap_or(target.idle_timeout);
        Ok(target)
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("account", &self.account)
            .field("base_url", &self.base_url)
            .finish_non_exhaustive()
    }
}
