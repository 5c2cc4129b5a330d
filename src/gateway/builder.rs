//! A gateway from plain settings.

use std::sync::Arc;

use http::Request;
use tower::Service;

use super::{Gateway, Settings, stack};
use crate::Error;
use crate::body::Body;
use crate::catalogue::Catalogue;
use crate::layers::budget::{self, BudgetLayer, Budgets, RuleError};
use crate::layers::cache::{self, CacheLayer};
use crate::layers::rate_limit::{self, RateLimitLayer};
use crate::layers::retry::{self, RetryLayer};
use crate::layers::{Reply, identify};
use crate::receipt::Reader;
use crate::upstream::client::ClientError;
use crate::upstream::{API, Client, GATEWAY, Target, TargetError};

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
    budgets: budget::Settings,
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
    /// The system refuses what TLS needs.
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

    /// What may be spent.
    pub fn budgets(mut self, budgets: budget::Settings) -> Self {
        self.budgets = budgets;
        self
    }

    /// One more reader of receipts, such as [`Metrics`](crate::readers::metrics::Metrics).
    pub fn reader(mut self, reader: Arc<dyn Reader>) -> Self {
        self.readers.push(reader);
        self
    }

    /// All else of the door: the largest body, clients' keys. Its account, catalogue and readers are set by this builder.
    pub fn door(mut self, door: identify::Settings) -> Self {
        self.door = door;
        self
    }

    /// Around a reqwest client of its own.
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
        let catalogue = self.catalogue.unwrap_or_default();
        let budgets = Budgets::new(self.budgets, catalogue.clone())?;
        let readers = self.door.readers.iter().cloned().chain(self.readers).collect();
        let account = self.account.or(self.door.account.clone());
        let door = identify::Settings { catalogue, account, readers, has_token: target.has_token(), ..self.door };
        let settings = Settings {
            identify: door,
            cache: CacheLayer::new(self.cache),
            budget: BudgetLayer::new(budgets),
            retry: RetryLayer::new(self.retry),
            rate_limit: RateLimitLayer::new(self.limits),
        };
        Ok(Gateway(stack(client, target, settings)))
    }

    fn target(&self) -> Result<Target, TargetError> {
        let usual = if self.gateway.is_some() { GATEWAY } else { API };
        let mut target = Target::new(self.base_url.as_deref().unwrap_or(usual))?;
        if let Some(token) = &self.token {
            target = target.with_token(token)?;
        }
        target.gateway.clone_from(&self.gateway);
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
