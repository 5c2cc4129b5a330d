//! The stack, composed.
//!
//! ```text
//!  http::Request
//!    │  Identify    the only door from HTTP; opens the receipt
//!    │  Compat      outside all that keeps or counts: what a client chokes on, mended last
//!    │  Cache       a hit ends here and costs nothing; twins in flight share one call
//!    │  Fallback    the next model of a chain, where one is gone, full or late after its retries
//!    │  Budget      reserves what the call may cost before it can; settles when the receipt is sealed
//!    │  Retry       what a retry can mend, within a budget; a client's deadline
//!    │  RateLimit   below the retries: every attempt takes a permit
//!    │  Meter       every attempt's usage and cost, read off the reply as it passes
//!    ▼
//!  Upstream         the vendor's API, or an AI Gateway
//! ```

use tower::{Layer, ServiceBuilder};

use crate::layers::budget::{Budget, BudgetLayer};
use crate::layers::cache::{self, Cache, CacheLayer};
use crate::layers::compat::{Compat, CompatLayer};
use crate::layers::fallback::{Fallback, FallbackLayer};
use crate::layers::identify::{self, Identify, IdentifyLayer};
use crate::layers::meter::{Meter, MeterLayer};
use crate::layers::rate_limit::{RateLimit, RateLimitLayer};
use crate::layers::retry::{Retry, RetryLayer};
use crate::upstream::{Target, Upstream};

/// The whole gate around an HTTP client. Cloning shares its state.
pub type Gateway<C> = Identify<Compat<Cache<Fallback<Held<C>>>>, Upstream<C>>;

/// One model's part of the stack: what a fallback goes through again.
pub type Held<C> = Budget<Retry<RateLimit<Meter<Upstream<C>>>>>;

/// How the layers of a stack are set.
#[derive(Clone)]
#[non_exhaustive]
pub struct Settings {
    /// The door.
    pub identify: identify::Settings,
    /// Mends for clients.
    pub compat: CompatLayer,
    /// What repeats are answered from. Its state is shared by every stack that is made with it.
    pub cache: CacheLayer,
    /// What may be spent. Its state is shared in the same way.
    pub budget: BudgetLayer,
    /// Retries, with the budgets that every stack made from these settings shares.
    pub retry: RetryLayer,
    /// Limits, with the permits that every stack made from these settings shares.
    pub rate_limit: RateLimitLayer,
}

impl Default for Settings {
    fn default() -> Self {
        let cache = CacheLayer::new(cache::Settings::default());
        Self {
            identify: identify::Settings::default(),
            compat: CompatLayer::default(),
            cache,
            budget: BudgetLayer::default(),
            retry: RetryLayer::default(),
            rate_limit: RateLimitLayer::default(),
        }
    }
}

/// Stacks the layers upon a client.
pub fn stack<C: Clone>(client: C, target: Target, settings: Settings) -> Gateway<C> {
    let upstream = Upstream::new(client, target);
    let catalogue = settings.identify.catalogue.clone();
    ServiceBuilder::new()
        .layer(IdentifyLayer::new(settings.identify, upstream.clone()))
        .layer(settings.compat)
        .layer(settings.cache)
        .layer(FallbackLayer::new(catalogue))
        .layer(settings.budget)
        .layer(settings.retry)
        .layer(settings.rate_limit)
        .layer(MeterLayer::default())
        .into_inner()
        .layer(upstream)
}
