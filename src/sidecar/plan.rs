//! What every worker is made from.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Request, Response};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tower::{Layer, ServiceExt};
use tower_http::compression::CompressionBody;

use super::books::Reading;
use super::config::{Config, ConfigError, Variables};
use super::generation::{self, Generation, Lasting, Parts};
use super::guard::Guard;
use super::listen::{self, Addresses, Limits, Serving, Upload};
use super::machine::{self, Descriptors};
use super::rate_limits::rate_limits;
use super::runtimes::Runtimes;
use super::shared_cache::SharedTier;
use super::spending::Spending;
use super::webhooks::Events;
use super::{compress, exposure, replicas, tls};
use crate::affinity::{Affinity, SessionBy};
use crate::catalogue::Catalogue;
use crate::layers::budget::{Clock, Registers, SystemClock};
use crate::layers::cache::CacheLayer;
use crate::layers::identify::ReplyBody;
use crate::layers::rate_limit::RateLimitLayer;
use crate::memory::Memory;
use crate::pace::Pace;
use crate::readers::metrics::{Metrics, MetricsError};
use crate::receipt::Reader;
use crate::upstream::Road;
use crate::upstream::pool::Pool;

/// Of a config, once.
pub(super) struct Plan {
    pub(super) config: Config,
    pub(super) road: Road,
    pub(super) lasting: Arc<Lasting>,
    pub(super) cache: CacheLayer,
    pub(super) rate_limit: RateLimitLayer,
    pub(super) reading: Arc<Reading>,
    pub(super) events: Arc<Events>,
    pub(super) shared: Option<replicas::Shared>,
    pub(super) tier: Option<SharedTier>,
    admin_tls: Option<tls::Acceptor>,
    serving: Serving,
    /// Upstream connections at once, on one worker.
    max_upstream: usize,
    pub(super) runtimes: Runtimes,
}

impl Plan {
    pub(super) fn new(
        config: Config,
        variables: &Variables,
        mut readers: Vec<Arc<dyn Reader>>,
        workers: usize,
        traces: Option<f64>,
    ) -> Result<Self, ConfigError> {
        let target = config.target(variables)?;
        let road = config.road(variables)?;
        for open in exposure::check(&config, &target)? {
            tracing::warn!("{open}");
        }
        let memory = body_memory(&config);
        let catalogue = Arc::new(Catalogue::with(&config.models));
        let events = Arc::new(Events::default());
        let shared = config.replicas.shared()?;
        let tier = config.shared_tier()?;
        let registers = shared.as_ref().map(|shared| shared.registers.clone() as Arc<dyn Registers>);
        let clock: Arc<dyn Clock> = match &shared {
            Some(shared) => shared.clock.clone(),
            None => Arc::new(SystemClock),
        };
        let spending = Spending::open(&config, &catalogue, events.clone(), registers, clock)?;
        let spending = Arc::new(spending);
        let reading = Arc::new(Reading::new(&config, variables, &catalogue, &spending.budgets)?);
        readers.extend(reading.reader());
        readers.extend(spending.records.clone().map(|records| records as Arc<dyn Reader>));
        let budgets = spending.budgets.get();
        let digests = Affinity::new(SessionBy::Auto);
        let (readers, complaints) = (readers.into(), Arc::default());
        let rate_limit = replicas::limits(rate_limits(&config, &catalogue), shared.as_ref());
        let turns = shared.as_ref().map(|_| replicas::turns(&rate_limit));
        let parts = Parts { catalogue, memory, spending, readers, complaints, digests, turns, traces };
        let generation = Generation::first(&config, variables, &parts, budgets, rate_limit, tier.as_ref())?;
        let descriptors = Descriptors::of(machine::open_files());
        let tells_peer = Arc::new(AtomicBool::new(generation::tells_peer(&config, &generation.keys, &target)));
        let serving = Serving {
            max_connections: max_connections(&config, descriptors).div_ceil(workers).max(1),
            addresses: Addresses::new(config.max_connections_per_address),
            limits: limits(&config),
            tells_peer: tells_peer.clone(),
            shutdown_timeout: config.shutdown_timeout,
            tls: config.tls.acceptor("[tls]")?,
        };
        let (cache, rate_limit) = (generation.stack.cache.clone(), generation.stack.rate_limit.clone());
        let lasting = Arc::new(Lasting {
            parts,
            guard: Guard::new(&config),
            tells_peer,
            now: ArcSwap::from_pointee(generation),
            doors: Mutex::default(),
        });
        let admin_tls = config.admin_tls.acceptor("[admin_tls]")?;
        let max_upstream = (descriptors.upstream / workers).max(1);
        let runtimes = Runtimes::default();
        Ok(Self {
            config,
            road,
            lasting,
            cache,
            rate_limit,
            reading,
            events,
            shared,
            tier,
            admin_tls,
            serving,
            max_upstream,
            runtimes,
        })
    }

    /// Adds what grows where something is not given back.
    pub(super) fn watch(&self, metrics: &Metrics) -> Result<(), MetricsError> {
        metrics.watch_semantic_cache(self.cache.clone())?;
        let (runtimes, cache, memory) = (self.runtimes.clone(), self.cache.clone(), self.lasting.parts.memory.clone());
        self.watch_certificates(metrics)?;
        let events = self.events.clone();
        metrics.watch_events(move || events.told())?;
        metrics.watch("tollgate_tasks", "Tasks on the threads that serve.", move || runtimes.tasks())?;
        let batches = self.lasting.parts.spending.batches.clone();
        let help = "Batches that were queued and whose answers have not been fetched.";
        metrics.watch("tollgate_batches_waiting", help, move || batches.counts().waiting)?;
        let batches = self.lasting.parts.spending.batches.clone();
        let help =
            "Batches since the start whose answers did not come in time, so that what was held for them is free again.";
        metrics.watch("tollgate_batches_released", help, move || batches.counts().released)?;
        metrics
            .watch("tollgate_cache_flights", "Calls under way that others may join.", move || cache.flights() as u64)?;
        let help = "What large bodies take of max_body_memory.";
        metrics.watch("tollgate_body_memory_bytes", help, move || memory.taken_bytes())
    }

    pub(super) fn certificates(&self) -> Vec<tls::Acceptor> {
        self.serving.tls.iter().chain(&self.admin_tls).cloned().collect()
    }

    /// Adds how the gate's own certificates stand.
    fn watch_certificates(&self, metrics: &Metrics) -> Result<(), MetricsError> {
        let (all, failing) = (self.certificates(), self.certificates());
        let help = "Certificates whose files cannot be used: those before stay in force.";
        let failed = move || failing.iter().filter(|one| one.has_failed()).count() as u64;
        metrics.watch("tollgate_tls_reload_failed", help, failed)?;
        if all.is_empty() {
            return Ok(());
        }
        let help = "When the first of the gate's own certificates ends.";
        let ends = move || all.iter().map(tls::Acceptor::not_after).min().unwrap_or(0);
        metrics.watch("tollgate_tls_not_after_timestamp_seconds", help, ends)
    }

    /// The admin port has places of its own, which no client can take.
    pub(super) fn admin_serving(&self) -> Serving {
        let descriptors = Descriptors::of(machine::open_files());
        Serving {
            max_connections: descriptors.admin,
            addresses: Addresses::new(0),
            tells_peer: Arc::new(AtomicBool::new(true)),
            shutdown_timeout: Duration::ZERO,
            tls: self.admin_tls.clone(),
            ..self.serving.clone()
        }
    }

    pub(super) fn work(&self, listeners: Vec<std::net::TcpListener>, stop: CancellationToken) -> io::Result<()> {
        self.runtimes.start_for_calls()?.block_on(async {
            let pool = Pool::new(self.config.upstream.connect_timeout)
                .with_road(self.road.clone())
                .with_max_connections(self.max_upstream);
            let door = self.lasting.door(pool);
            if !self.config.compat.compress {
                return listen::serve(listeners, door, self.serving.clone(), stop).await;
            }
            let boxed = |reply: Response<CompressionBody<ReplyBody>>| reply.map(Box::pin);
            let encoded = ServiceExt::<Request<Upload>>::map_response(compress::layer().layer(door), boxed);
            listen::serve(listeners, encoded, self.serving.clone(), stop).await
        })
    }
}

/// What was asked for, as far as descriptors go round: a client's connection needs one, and its call another.
fn max_connections(config: &Config, descriptors: Descriptors) -> usize {
    if config.max_connections > descriptors.clients {
        tracing::warn!(
            asked = config.max_connections,
            held_to = descriptors.clients,
            open_files = machine::open_files(),
            "max_connections is held to what the limit of open files allows (ulimit -n, LimitNOFILE)"
        );
    }
    config.max_connections.min(descriptors.clients)
}

fn limits(config: &Config) -> Limits {
    let timeouts = &config.timeouts;
    Limits {
        handshake: timeouts.handshake,
        header: timeouts.header,
        idle: timeouts.idle,
        call: timeouts.call,
        send: Pace::new(timeouts.send, timeouts.send_min_rate.as_u64()),
        linger: timeouts.linger,
    }
}

/// The bound of all large bodies together.
fn body_memory(config: &Config) -> Memory {
    let own = config.max_body_memory.map(|bytes| bytes.as_u64());
    let share = || machine::memory_bytes().map(|bytes| bytes / 8).unwrap_or(DEFAULT_BODY_MEMORY);
    // A single body of the largest size has to fit, whatever the machine has.
    Memory::new(own.unwrap_or_else(share).max(config.max_body.as_u64()))
}

/// Where the machine does not tell how much memory it has, in bytes.
const DEFAULT_BODY_MEMORY: u64 = 512 << 20;

/// Threads that serve.
pub(super) fn workers(config: &Config) -> usize {
    match config.workers {
        0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        workers => workers,
    }
}
