//! The gate as a program of its own, beside services in any language.
//!
//! Each worker is a thread with a runtime, a listener and upstream connections of its own; workers share only the layers'
//! state. The admin port has a thread to itself, so that a scrape holds no call up.

mod admin;
mod admin_state;
pub(crate) mod advice;
pub mod aliases;
pub mod books;
pub mod browsers;
mod budget_changes;
mod changes;
pub mod compat;
mod compress;
pub mod config;
mod door;
mod duration;
mod entrance;
pub mod exposure;
mod generation;
pub mod guard;
mod guesses;
pub mod handover;
mod key_api;
pub mod key_store;
pub mod limits;
mod listen;
mod logs;
pub mod machine;
pub mod otel;
pub(crate) mod outlook;
pub(crate) mod page;
mod reload;
pub(crate) mod replayed;
pub mod replicas;
pub mod service;
pub mod sockets;
pub mod spending;
pub mod timeouts;
pub mod tls;
mod warm;
pub mod webhooks;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use http::{Request, Response};
use parking_lot::Mutex;
use tokio::runtime::{Handle, Runtime};
use tokio_util::sync::CancellationToken;
use tower::{Layer, ServiceExt};
use tower_http::compression::CompressionBody;

use self::admin_state::Admin;
use self::books::Reading;
use self::changes::{Changes, Health, Seen};
use self::config::{Config, ConfigError, Variables};
use self::generation::{Generation, Lasting, Parts};
use self::guard::Guard;
use self::handover::Handed;
use self::listen::{Addresses, Bound, Limits, Serving, Upload};
use self::machine::Descriptors;
use self::otel::{LogLines, Telemetry};
use self::page::observer::Page;
pub use self::reload::{ReloadError, Reloaded};
use self::reload::{Reloads, Source};
use self::spending::Spending;
use self::warm::Warm;
use self::webhooks::{Events, Look, Sending};
use crate::affinity::{Affinity, SessionBy};
use crate::batches::Batches;
use crate::catalogue::Catalogue;
use crate::layers::budget::Registers;
use crate::layers::cache::CacheLayer;
use crate::layers::identify::ReplyBody;
use crate::layers::rate_limit::{self, RateLimitLayer};
use crate::memory::Memory;
use crate::pace::Pace;
use crate::readers::log::CallLog;
use crate::readers::metrics::{Metrics, MetricsError};
use crate::readers::recent::Recent;
use crate::readers::records::Archive;
use crate::readers::running::Running;
use crate::receipt::Reader;
use crate::upstream::Road;
use crate::upstream::pool::Pool;

/// A sidecar that serves. Dropping it stops it.
#[derive(Debug)]
pub struct Sidecar {
    listen: SocketAddr,
    admin: SocketAddr,
    stop: CancellationToken,
    workers: Vec<JoinHandle<io::Result<()>>>,
    /// The admin port outlives the workers: it tells that they are stopping.
    admin_stop: CancellationToken,
    admin_thread: Option<JoinHandle<io::Result<()>>>,
    warm: Option<Warm>,
    spending: Arc<Spending>,
    reading: Arc<Reading>,
    webhooks: Arc<Sending>,
    telemetry: Option<Telemetry>,
    speaking: Option<replicas::Speaking>,
    reloads: Arc<Reloads>,
}

/// Why a sidecar did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The config cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A port cannot be had.
    #[error("cannot listen on {address} ({setting}): {why}; is another program there? Choose another address")]
    Listen {
        /// The config's key.
        setting: &'static str,
        /// Its value.
        address: SocketAddr,
        /// What the system says.
        why: io::Error,
    },
    /// The system refuses a thread or a runtime.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// Two metrics have one name.
    #[error("cannot start the metrics: {0}")]
    Metrics(#[from] MetricsError),
}

/// What every worker is made from.
struct Plan {
    config: Config,
    road: Road,
    lasting: Arc<Lasting>,
    cache: CacheLayer,
    rate_limit: RateLimitLayer,
    reading: Arc<Reading>,
    events: Arc<Events>,
    shared: Option<replicas::Shared>,
    admin_tls: Option<tls::Acceptor>,
    serving: Serving,
    /// Upstream connections at once, on one worker.
    max_upstream: usize,
    runtimes: Runtimes,
}

/// The runtimes of all threads, for their own counts.
#[derive(Clone, Default)]
struct Runtimes(Arc<Mutex<Vec<Handle>>>);

/// What goes on beside the admin port, on its thread.
struct Background {
    /// What earlier runs wrote, for the page.
    earlier: Option<Archive>,
    /// The vendor's books.
    reading: Arc<Reading>,
    metrics: Arc<Metrics>,
    look: Look,
    /// The models that the config has prices for.
    priced: Vec<String>,
    certificates: Vec<tls::Acceptor>,
    runtimes: Runtimes,
    health: Arc<Health>,
    limits: RateLimitLayer,
}

impl Sidecar {
    /// Starts it, and returns when both ports are open. `readers` see each receipt besides its own metrics and log.
    pub fn start(config: Config, variables: &Variables, readers: Vec<Arc<dyn Reader>>) -> Result<Self, StartError> {
        Self::start_on(Handed::default(), config, variables, readers)
    }

    /// The same on sockets that this process was started with: they take the place of the config's addresses.
    pub fn start_on(
        handed: Handed,
        config: Config,
        variables: &Variables,
        readers: Vec<Arc<dyn Reader>>,
    ) -> Result<Self, StartError> {
        let workers = workers(&config);
        check(&config, variables)?;
        // Before anything is written: who finds the address taken leaves no file behind.
        let bind = |setting, address, handed: Option<std::net::TcpListener>, count| {
            let bound = match handed {
                Some(socket) => Bound::handed(socket, count),
                None => listen::bind(address, count),
            };
            bound.map_err(|why| StartError::Listen { setting, address, why })
        };
        let listeners = bind("listen", config.listen, handed.listen, workers)?;
        let admin_listeners = bind("admin", config.admin, handed.admin, 1)?;
        let metrics = Arc::new(Metrics::new()?);
        let recent = Arc::new(Recent::default());
        let (running, health) = (Arc::new(Running::default()), Arc::new(Health::default()));
        let own: [Arc<dyn Reader>; 5] =
            [metrics.clone(), Arc::new(CallLog), recent.clone(), running.clone(), health.clone()];
        let mut readers: Vec<_> = own.into_iter().chain(readers).collect();
        let collector = config.otel.collector(variables)?;
        let traces = collector.as_ref().filter(|collector| collector.traces.is_some()).map(|it| it.sample);
        let telemetry = collector.map(|collector| Telemetry::new(collector, &config.road(variables)?)).transpose()?;
        readers.extend(telemetry.as_ref().map(Telemetry::reader));
        let plan = Arc::new(Plan::new(config, variables, readers, workers, traces)?);
        let spending = plan.lasting.parts.spending.clone();
        metrics.watch_budgets(spending.budgets.clone())?;
        if let Some(records) = &spending.records {
            metrics.watch_records(records.clone())?;
        }
        let catalogue = plan.lasting.parts.catalogue.clone();
        metrics.begin_at_zero(&catalogue);
        metrics.watch_limits(plan.rate_limit.clone(), catalogue.clone())?;
        metrics.watch_books(plan.reading.known.clone(), catalogue.clone())?;
        plan.watch(&metrics)?;
        telemetry.as_ref().map_or(Ok(()), |telemetry| telemetry.watch(&metrics))?;
        let endpoints = webhooks::endpoints(&plan.config.webhooks, variables, &plan.road)?;
        let sending = Arc::new(Sending::start(&plan.events, endpoints)?);
        let (lasting, config) = (plan.lasting.clone(), plan.config.clone());
        let reloads = Arc::new(Reloads::new(lasting, config, variables.clone(), sending.clone()));
        let looked_at = reloads.clone();
        metrics.watch_reloads(move || looked_at.counts())?;
        let (listeners, mut admin_listeners) = (listeners.listen()?, admin_listeners.listen()?);
        let stop = CancellationToken::new();
        let mut sidecar = Self {
            listen: listeners[0].local_addr()?,
            admin: admin_listeners[0].local_addr()?,
            stop: stop.clone(),
            workers: Vec::with_capacity(workers),
            admin_stop: CancellationToken::new(),
            admin_thread: None,
            warm: plan.config.cache.path.clone().map(|path| Warm::start(plan.cache.clone(), path)).transpose()?,
            spending: spending.clone(),
            reading: plan.reading.clone(),
            webhooks: sending,
            telemetry,
            speaking: None,
            reloads: reloads.clone(),
        };
        if let Some(telemetry) = &mut sidecar.telemetry {
            let lasting = plan.lasting.clone();
            telemetry.start(metrics.clone(), move || lasting.now.load().target.host().to_owned())?;
        }
        if let Some(shared) = &plan.shared {
            let speaking = shared.speak(plan.rate_limit.clone(), sidecar.listen, plan.runtimes.start()?)?;
            metrics.watch_store(speaking.standing.seen.clone(), speaking.standing.sharing.clone())?;
            sidecar.speaking = Some(speaking);
        }
        let records_path = plan.config.records.path().cloned();
        // What is written from here on is this run's own, and its counters have it.
        let earlier = records_path.as_deref().and_then(|path| Archive::open(path).and_then(Archive::hold).ok());
        for (index, listener) in listeners.into_iter().enumerate() {
            let (plan, stop) = (plan.clone(), stop.clone());
            let worker = spawn(format!("worker-{index}"), move || plan.work(listener, stop))?;
            sidecar.workers.push(worker);
        }
        if let Some(listener) = admin_listeners.pop() {
            let admin = Admin {
                page: Page::new(metrics.clone(), recent, running),
                metrics: metrics.clone(),
                records_path,
                spending,
                known: plan.reading.known.clone(),
                catalogue: catalogue.clone(),
                cache: plan.cache.clone(),
                reloads,
                store: sidecar.speaking.as_ref().map(|speaking| speaking.standing.clone()),
                stop,
            };
            let outlook = admin.page.outlook.clone();
            let ends = move || Some(outlook.load_full()?).map(|ends| (ends.low.as_f64(), ends.high.as_f64()));
            metrics.watch_outlook(ends)?;
            let guard = plan.lasting.guard.clone();
            let (stop, reading) = (sidecar.admin_stop.clone(), plan.reading.clone());
            let (events, known) = (plan.events.clone(), plan.reading.known.clone());
            let look = Look { events, metrics: metrics.clone(), catalogue, known };
            let (certificates, limits) = (plan.certificates(), plan.rate_limit.clone());
            let runtimes = plan.runtimes.clone();
            let priced = advice::priced(&plan.config.models);
            let background =
                Background { earlier, reading, metrics, look, priced, certificates, runtimes, health, limits };
            let (serving, runtimes) = (plan.admin_serving(), plan.runtimes.clone());
            sidecar.admin_thread = Some(spawn("admin".into(), move || {
                runtimes.start()?.block_on(serve_admin(listener, admin, guard, background, serving, stop))
            })?);
        }
        Ok(sidecar)
    }

    /// Where clients connect.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where the admin port is.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Puts a config in force while calls go on: see [`Reloaded`] for what cannot be changed so. Where it is wrong, the one before
    /// stays in force. Blocks.
    pub fn put(&self, config: Config) -> Result<Reloaded, ConfigError> {
        self.reloads.put(config)
    }

    /// Says how the config is read again, by [`reload`](Self::reload) and by `POST /reload`; `applied` is told of each that has
    /// come into force. Only the first one counts.
    pub fn read_again_by(
        &self,
        read: impl Fn() -> Result<Config, ConfigError> + Send + Sync + 'static,
        applied: impl Fn(&Config) + Send + Sync + 'static,
    ) {
        self.reloads.read_by(Source { read: Box::new(read), applied: Box::new(applied) });
    }

    /// Reads the config again and puts it in force. Blocks.
    pub fn reload(&self) -> Result<Reloaded, ReloadError> {
        self.reloads.reload()
    }

    /// Reads the config again each time it is called, as long as the sidecar is there.
    pub fn reloading(&self) -> impl Fn() + Send + 'static {
        let reloads = Arc::downgrade(&self.reloads);
        move || {
            if let Some(reloads) = reloads.upgrade() {
                // What came of it stands in the log.
                let _ = reloads.reload();
            }
        }
    }

    /// Has these lines of the log sent to the collector, where `[otel]` has one.
    pub fn send_log(&self, lines: LogLines) {
        if let Some(telemetry) = &self.telemetry {
            telemetry.send_log(lines);
        }
    }

    /// The config in force.
    pub fn config(&self) -> Config {
        self.reloads.config()
    }

    /// Accepts nothing new from here on; what runs goes on, for at most `shutdown_timeout`.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Stops, and waits until all has ended.
    pub fn join(mut self) -> io::Result<()> {
        self.stop();
        // Each is waited for, also after one has failed.
        let ended = self.workers.drain(..).map(wait).fold(Ok(()), io::Result::and);
        drop(self.warm.take());
        // What nothing was spent of goes back to the others.
        self.spending.budgets.get().release();
        let ended = ended.and(self.speaking.take().map_or(Ok(()), replicas::Speaking::end));
        self.spending.close();
        self.reading.close();
        self.webhooks.close();
        self.telemetry.as_mut().map(Telemetry::close);
        self.admin_stop.cancel();
        ended.and(self.admin_thread.take().map_or(Ok(()), wait))
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.stop();
        self.admin_stop.cancel();
        if let Some(speaking) = &self.speaking {
            speaking.stop();
        }
    }
}

/// Whether a sidecar can be of this config, as far as can be told without opening anything: what is wrong with it, or what of
/// it lets in anybody who comes by and says that it is meant to.
pub fn check(config: &Config, variables: &Variables) -> Result<Vec<String>, ConfigError> {
    let target = config.target(variables)?;
    let open = exposure::check(config, &target)?;
    let catalogue = Arc::new(Catalogue::with(&config.models));
    let keys = spending::check(config, &catalogue)?;
    spending::check_token(&keys, target.has_token())?;
    books::check(config, variables)?;
    config.otel.collector(variables)?;
    Ok(open)
}

fn spawn(
    name: String,
    work: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<JoinHandle<io::Result<()>>> {
    std::thread::Builder::new().name(name).spawn(work)
}

fn wait(thread: JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked; its words are in the log")))
}

impl Plan {
    fn new(
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
        let registers = shared.as_ref().map(|shared| shared.registers.clone() as Arc<dyn Registers>);
        let spending = Spending::open(&config, &catalogue, target.has_token(), events.clone(), registers)?;
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
        let generation = Generation::first(&config, variables, &parts, budgets, rate_limit)?;
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
            admin_tls,
            serving,
            max_upstream,
            runtimes,
        })
    }

    /// Adds what grows where something is not given back.
    fn watch(&self, metrics: &Metrics) -> Result<(), MetricsError> {
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

    fn certificates(&self) -> Vec<tls::Acceptor> {
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
    fn admin_serving(&self) -> Serving {
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

    fn work(&self, listener: std::net::TcpListener, stop: CancellationToken) -> io::Result<()> {
        self.runtimes.start()?.block_on(async {
            let pool = Pool::new(self.config.upstream.connect_timeout)
                .with_road(self.road.clone())
                .with_max_connections(self.max_upstream);
            let door = self.lasting.door(pool);
            if !self.config.compat.compress {
                return listen::serve(listener, door, self.serving.clone(), stop).await;
            }
            let boxed = |reply: Response<CompressionBody<ReplyBody>>| reply.map(Box::pin);
            let encoded = ServiceExt::<Request<Upload>>::map_response(compress::layer().layer(door), boxed);
            listen::serve(listener, encoded, self.serving.clone(), stop).await
        })
    }
}

/// The config's, and what the account's way of paying makes of the table's.
fn rate_limits(config: &Config, catalogue: &Catalogue) -> rate_limit::Settings {
    let mut limits = config.limits.settings();
    let Some(paid) = config.account.billing.paid_limit() else { return limits };
    let is_set = |id: &str| config.models.get(id).is_some_and(|entry| entry.requests_per_minute.is_some());
    for model in catalogue.models().iter().filter(|model| model.paid_plan_only && !is_set(&model.id)) {
        limits.models.entry(model.id.to_string()).or_default().requests.get_or_insert(paid);
    }
    limits
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

fn workers(config: &Config) -> usize {
    match config.workers {
        0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        workers => workers,
    }
}

impl Runtimes {
    fn start(&self) -> io::Result<Runtime> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        self.0.lock().push(runtime.handle().clone());
        Ok(runtime)
    }

    /// Until each of them has run a task, or is no more.
    async fn answer(&self) {
        let all: Vec<_> = self.0.lock().iter().map(|runtime| runtime.spawn(async {})).collect();
        for answer in all {
            // One that has ended drops its tasks.
            let _ = answer.await;
        }
    }

    fn tasks(&self) -> u64 {
        self.0.lock().iter().map(|runtime| runtime.metrics().num_alive_tasks() as u64).sum()
    }
}

/// Looks now and then which batches have waited too long.
async fn release_batches(batches: Batches) {
    loop {
        tokio::time::sleep(RELEASE_EVERY).await;
        batches.release(SystemTime::now());
    }
}

const RELEASE_EVERY: Duration = Duration::from_secs(1);

async fn serve_admin(
    listener: std::net::TcpListener,
    admin: Admin,
    guard: Guard,
    background: Background,
    serving: Serving,
    stop: CancellationToken,
) -> io::Result<()> {
    tokio::spawn(admin.page.clone().watch(background.earlier));
    tokio::spawn(release_batches(admin.spending.batches.clone()));
    if let Some(records) = admin.records_path.clone() {
        tokio::spawn(admin.page.clone().advise(records.clone(), admin.catalogue.clone(), background.priced));
        let (outlook, reloads) = (admin.page.outlook.clone(), admin.reloads.clone());
        tokio::spawn(outlook::watch(records, outlook, background.look.events.clone(), move || reloads.labels()));
    }
    background.reading.start(&background.metrics);
    tokio::spawn(background.look.watch());
    tokio::spawn(service::watchdog(background.runtimes));
    for certificates in background.certificates {
        tokio::spawn(certificates.watch());
    }
    tokio::spawn(follow_keys(admin.clone()));
    tokio::spawn(tell_changes(admin.clone(), background.health, background.limits));
    listen::serve(listener, admin::router(admin, guard), serving, stop).await
}

/// Looks at how all stands, again and again, and tells the log what has changed.
async fn tell_changes(admin: Admin, health: Arc<Health>, limits: RateLimitLayer) {
    let mut changes = Changes::default();
    let mut ticks = tokio::time::interval(changes::LOOK_EVERY);
    loop {
        ticks.tick().await;
        let (budgets, models) = (admin.spending.budgets.get().status(), limits.snapshot());
        let records = admin.spending.records.as_ref().map(|records| records.stats());
        let seen = Seen { budgets: &budgets, models: &models, failures: health.failures(), records };
        let name = |slot| {
            let models = admin.catalogue.models();
            let found = models.iter().find(|model| model.is_listed() && model.slot == slot);
            found.map_or_else(|| "other".into(), |model| model.id.clone())
        };
        changes.look(&seen).iter().for_each(|change| change.log(name));
    }
}

/// How often it is looked whether another process has written the keys: what it has made or revoked is in force within a second.
const LOOK_AT_KEYS: Duration = Duration::from_millis(300);

/// Puts in force what `tollgate keys` has written.
async fn follow_keys(admin: Admin) {
    let Some(store) = admin.spending.keys.clone() else { return };
    let mut last = store.version().ok();
    let mut ticks = tokio::time::interval(LOOK_AT_KEYS);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let version = match store.version() {
            Ok(version) => Some(version),
            Err(error) => {
                tracing::warn!(%error, "the keys' file cannot be read: the keys stay as they were");
                continue;
            }
        };
        if version == last {
            continue;
        }
        let reloads = admin.reloads.clone();
        match tokio::task::spawn_blocking(move || reloads.renew()).await {
            Ok(Ok(())) => {
                last = version;
                tracing::info!("the keys were changed, and are in force");
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the keys were changed, and cannot be read: they stay as they were")
            }
            Err(_) => {}
        }
    }
}
