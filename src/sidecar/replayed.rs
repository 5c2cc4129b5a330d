//! The layers of a config on a clock of somebody else's: what `tollgate what-if` replays records through.

use std::sync::Arc;
use std::time::SystemTime;

use super::config::{Config, ConfigError};
use super::rate_limits::rate_limits;
use super::shared_cache::cache_settings;
use super::spending::{budget_settings, wrong_budgets};
use crate::catalogue::Catalogue;
use crate::layers::budget::{self, BudgetLayer, Budgets, Clock};
use crate::layers::cache::CacheLayer;
use crate::layers::rate_limit::RateLimitLayer;
use crate::layers::retry::RetryLayer;

/// The layers that decide of a call, with nothing spent, kept or taken yet.
pub(crate) struct Layers {
    pub(crate) cache: CacheLayer,
    pub(crate) budget: BudgetLayer,
    pub(crate) retry: RetryLayer,
    pub(crate) rate_limit: RateLimitLayer,
}

impl Layers {
    /// Those that a sidecar of this config has. No books are kept of them, and nobody is told anything.
    pub(crate) fn of(
        config: &Config,
        catalogue: &Arc<Catalogue>,
        clock: Arc<dyn Clock>,
        wall: fn() -> SystemTime,
    ) -> Result<Self, ConfigError> {
        let settings = budget::Settings { clock, ..budget_settings(config) };
        let budgets = Budgets::new(settings, catalogue.clone()).map_err(wrong_budgets)?;
        Ok(Self {
            cache: CacheLayer::with_clock(cache_settings(config), wall),
            budget: BudgetLayer::new(budgets),
            retry: RetryLayer::with_clock(config.retry.settings(), wall),
            rate_limit: RateLimitLayer::new(rate_limits(config, catalogue)),
        })
    }
}
