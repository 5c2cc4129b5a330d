//! The stack, composed.
//!
//! ```text
//!  http::Request
//!    │  Identify    the only door from HTTP; opens the receipt
//!    │  Compat      outside all that keeps or counts: what a client chokes on, mended last
//!    │  Cache       a hit ends here and costs nothing; twins in flight share one call
//!    │  Budget      reserves what the call may cost before it can; settles when the receipt is sealed
//!    │  Meter       every attempt's usage and cost, read off the reply as it passes
//!    ▼
//!  Upstream         the vendor's API, or an AI Gateway
//! ```

use tower::{Layer, ServiceBuilder};

use crate::layers::budget::{Budget, BudgetLayer};
use crate::layers::cache::{self, Cache, CacheLayer};
use crate::layers::compat::{Compat, CompatLayer};
use crate::layers::identify::{self, Identify, IdentifyLayer};
use crate::layers::meter::{Meter, MeterLayer};
use crate::upstream::{Target, Upstream};

/// The whole gate around an HTTP client. Cloning shares its state.
pub type Gateway<C> = Identify<Compat<Cache<Budget<Meter<Upstream<C>>>>>, Upstream<C>>;

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
}

impl Default for Settings {
    fn default() -> Self {
        let cache = CacheLayer::new(cache::Settings::default());
        Self {
            identify: identify::Settings::default(),
            compat: CompatLayer::default(),
            cache,
            budget: BudgetLayer::default(),
        }
    }
}

/// Stacks the layers upon a client.
pub fn stack<C: Clone>(client: C, target: Target, settings: Settings) -> Gateway<C> {
    let upstream = Upstream::new(client, target);
    ServiceBuilder::new()
        .layer(IdentifyLayer::new(settings.identify, upstream.clone()))
        .layer(settings.compat)
        .layer(settings.cache)
        .layer(settings.budget)
        .layer(MeterLayer::default())
        .into_inner()
        .layer(upstream)
}
