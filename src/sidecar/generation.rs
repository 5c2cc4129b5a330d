//! What the config decides, made into layers: all of it plain data beside the state that lives on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::config::{Config, ConfigError, Variables};
use super::door::{Door, Way};
use super::entrance::{Entrance, Terms};
use super::guard::Guard;
use super::rate_limits::rate_limits;
use super::shared_cache::{SharedTier, cache_settings};
use super::spending::Spending;
use crate::affinity::Affinity;
use crate::catalogue::Catalogue;
use crate::gateway;
use crate::layers::budget::{BudgetLayer, Budgets};
use crate::layers::cache::CacheLayer;
use crate::layers::identify::keys::{Keys, Turns};
use crate::layers::identify::{self, Complaints};
use crate::layers::rate_limit::{FairBy, RateLimitLayer};
use crate::layers::retry::RetryLayer;
use crate::memory::Memory;
use crate::pace::Pace;
use crate::receipt::Reader;
use crate::upstream::Target;
use crate::upstream::pool::Pool;

/// What every config's layers are made upon.
pub(super) struct Parts {
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) memory: Memory,
    pub(super) spending: Arc<Spending>,
    pub(super) readers: Arc<[Arc<dyn Reader>]>,
    pub(super) complaints: Arc<Complaints>,
    /// What digests for the records are keyed with, as long as the gate runs.
    pub(super) digests: Option<Affinity>,
    /// Turns of keys are shared with other gates.
    pub(super) turns: Option<Arc<dyn Turns>>,
    /// Traces are followed, and which part is kept of those that begin here.
    pub(super) traces: Option<f64>,
}

/// What outlives a config, and the generation in force.
pub(super) struct Lasting {
    pub(super) parts: Parts,
    pub(super) guard: Guard,
    /// Whether somebody asks where a request came from.
    pub(super) tells_peer: Arc<AtomicBool>,
    pub(super) now: ArcSwap<Generation>,
    pub(super) doors: Mutex<Vec<Door>>,
}

/// The layers of one config, which share their state with those of the configs before it.
pub(super) struct Generation {
    pub(super) target: Target,
    pub(super) stack: gateway::Settings,
    pub(super) budgets: Arc<Budgets>,
    pub(super) keys: Keys,
    terms: Arc<Terms>,
}

// === impl Lasting ===

impl Lasting {
    /// A worker's way in, which follows the config from here on.
    pub(super) fn door(&self, pool: Pool) -> Door {
        // A generation that comes between the two would be missed.
        let mut doors = self.doors.lock();
        let door = Door::new(pool, |pool| self.now.load().way(pool));
        doors.push(door.clone());
        door
    }
}

// === impl Generation ===

impl Generation {
    /// The first one.
    pub(super) fn first(
        config: &Config,
        variables: &Variables,
        parts: &Parts,
        budgets: Arc<Budgets>,
        rate_limit: RateLimitLayer,
        tier: Option<&SharedTier>,
    ) -> Result<Self, ConfigError> {
        let keys = parts.keys(config, &Keys::default())?;
        let target = config.target(variables)?;
        let identify = parts.door(config, variables, &target, &keys);
        let cache = CacheLayer::with_memory(cache_settings(config), parts.memory.clone());
        let cache = tier.map_or_else(|| cache.clone(), |tier| tier.under(&cache));
        let cache = cache.with_semantic(config.semantic_cache(&parts.catalogue)?, parts.catalogue.clone());
        let stack = gateway::Settings {
            identify,
            cache,
            budget: BudgetLayer::new(budgets.clone()),
            retry: RetryLayer::new(config.retry.settings()),
            rate_limit,
        };
        let terms = Arc::new(Terms::new(config, !keys.is_empty(), None));
        Ok(Self { target, stack, budgets, keys, terms })
    }

    /// Puts a config in force. All that can be wrong with it is found before anything is changed.
    pub(super) fn follow(lasting: &Lasting, config: Config, variables: &Variables) -> Result<(), ConfigError> {
        let (before, parts) = (lasting.now.load_full(), &lasting.parts);
        let keys = parts.keys(&config, &before.keys)?;
        let mut target = config.target(variables)?;
        target.affinity = target.affinity.map(|affinity| affinity.following(before.target.affinity.as_ref()));
        let budgets = before.budgets.followed_by(super::spending::budget_settings(&config));
        let budgets = Arc::new(budgets.map_err(super::spending::wrong_budgets)?);
        let identify = parts.door(&config, variables, &target, &keys);
        let semantic = config.semantic_cache(&Catalogue::with(&config.models))?;
        parts.catalogue.override_with(&config.models);
        let Generation { stack, terms, .. } = &*before;
        let stack = gateway::Settings {
            identify,
            cache: stack.cache.followed_by(cache_settings(&config)).with_semantic(semantic, parts.catalogue.clone()),
            budget: BudgetLayer::new(budgets.clone()),
            retry: stack.retry.followed_by(config.retry.settings()),
            rate_limit: stack.rate_limit.followed_by(rate_limits(&config, &parts.catalogue), &parts.catalogue),
        };
        let terms = Arc::new(Terms::new(&config, !keys.is_empty(), Some(terms)));
        lasting.tells_peer.store(tells_peer(&config, &keys, &target), Ordering::Relaxed);
        lasting.guard.hold_to(&config);
        parts.spending.budgets.set(budgets.clone());
        let next = Arc::new(Self { target, stack, budgets, keys, terms });
        let doors = lasting.doors.lock();
        lasting.now.store(next.clone());
        doors.iter().for_each(|door| door.lead(|pool| next.way(pool)));
        Ok(())
    }

    fn way(&self, pool: Pool) -> Way {
        Entrance::new(gateway::stack(pool, self.target.clone(), self.stack.clone()), self.terms.clone())
    }
}

/// Guesses of keys are told apart by their addresses, and so are callers who need no token.
pub(super) fn tells_peer(config: &Config, keys: &Keys, target: &Target) -> bool {
    !keys.is_empty() || target.has_token() || config.limits.fair_by != FairBy::default()
}

// === impl Parts ===

impl Parts {
    /// The keys that are asked for now.
    fn keys(&self, config: &Config, before: &Keys) -> Result<Keys, ConfigError> {
        let keys = Keys::new(&config.keys).map_err(super::spending::wrong_keys)?;
        let stored = self.spending.keys.as_ref().map(|store| store.all()).transpose();
        let stored = stored.map_err(super::spending::wrong_store)?.unwrap_or_default();
        let keys = if stored.is_empty() { keys } else { super::spending::with_stored(keys, &stored)? };
        Ok(keys.following(before))
    }

    fn door(&self, config: &Config, variables: &Variables, target: &Target, keys: &Keys) -> identify::Settings {
        identify::Settings {
            catalogue: self.catalogue.clone(),
            account: config.account(variables).map(Into::into),
            accounts: config.upstream.accounts.iter().map(|account| account.as_str().into()).collect(),
            pass_through: config.upstream.pass_through.clone(),
            max_body: config.max_body.as_u64(),
            body_pace: Pace::new(config.timeouts.body, config.timeouts.body_min_rate.as_u64()),
            memory: self.memory.clone(),
            body_queue: config.timeouts.body_queue,
            keepalive: Some(config.compat.keepalive).filter(|every| !every.is_zero()),
            has_token: target.has_token(),
            keys: keys.clone(),
            turns: self.turns.clone(),
            payloads: config.records.payloads(),
            digests: self.digests.clone().filter(|_| config.records.digests),
            readers: self.readers.clone(),
            aliases: Arc::new(config.aliases.aliases()),
            openai: config.compat.settings(),
            complaints: self.complaints.clone(),
            traces: self.traces,
            batches: self.spending.batches.clone(),
            sockets: config.sockets.settings(),
            ..identify::Settings::default()
        }
    }
}
