//! A sidecar, from its start to its end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio_util::sync::CancellationToken;

use super::admin_state::Admin;
use super::background::{Background, serve_admin};
use super::books::Reading;
use super::changes::Health;
use super::check::check;
use super::config::{Config, ConfigError, Variables};
use super::handover::{Handed, Offer};
use super::listen::{self, BoundSockets};
use super::notices::Subjects;
use super::otel::{LogLines, Telemetry};
use super::page::observer::Page;
use super::plan::{Plan, workers};
use super::reload::{ReloadError, Reloaded, Reloads, Source};
use super::replicas::StoreStatus;
use super::spending::Spending;
use super::threads::{spawn, wait};
use super::warm::Warm;
use super::webhooks::{Sending, Watcher};
use super::{advice, replicas, shared_cache, webhooks};
use crate::readers::log::CallLog;
use crate::readers::metrics::{Metrics, MetricsError};
use crate::readers::recent::Recent;
use crate::readers::records::Archive;
use crate::readers::running::Running;
use crate::receipt::Reader;

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
    sharing: Option<shared_cache::Sharing>,
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
    /// The next gate cannot be awaited where the config says.
    #[error("handover_path {path}: {why}; name a file in a folder of the gate's own, of at most 100 bytes", path = .path.display())]
    Handover {
        /// The config's.
        path: PathBuf,
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
        let bind = |setting, address, handed: Vec<TcpListener>, count| {
            let bound = match handed.is_empty() {
                false => BoundSockets::handed(handed, count),
                true => listen::bind(address, count),
            };
            bound.map_err(|why| StartError::Listen { setting, address, why })
        };
        let (handed, handed_admin) = handed.into_sockets();
        let listeners = bind("listen", config.listen, handed, workers)?;
        let admin_listeners = bind("admin", config.admin, handed_admin, 1)?;
        let offer = |path: &Path| {
            let offer = Offer::new(path, listeners.copies()?, admin_listeners.copies()?);
            offer.map_err(|why| StartError::Handover { path: path.to_owned(), why })
        };
        let offer = config.handover_path().map(offer).transpose()?;
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
            listen: listeners[0][0].local_addr()?,
            admin: admin_listeners[0][0].local_addr()?,
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
            sharing: None,
            reloads: reloads.clone(),
        };
        if let Some(telemetry) = &mut sidecar.telemetry {
            let lasting = plan.lasting.clone();
            telemetry.start(metrics.clone(), move || lasting.now.load().target.host().to_owned())?;
        }
        if let Some(shared) = &plan.shared {
            let lasting = plan.lasting.clone();
            let subjects = Subjects {
                spending: spending.clone(),
                cache: plan.cache.clone(),
                catalogue: catalogue.clone(),
                reloads: reloads.clone(),
                allocation: Box::new(move || lasting.now.load().stack.retry.allocation().clone()),
            };
            let speaking = shared.speak(plan.rate_limit.clone(), sidecar.listen, subjects, plan.runtimes.start()?)?;
            let StoreStatus { seen, sharing, board } = &speaking.standing;
            metrics.watch_store(seen.clone(), sharing.clone(), board.seen(), shared.clock.clone())?;
            sidecar.speaking = Some(speaking);
        }
        if let Some(tier) = &plan.tier {
            let sharing = tier.speak(plan.runtimes.start()?)?;
            metrics.watch_shared_cache(sharing.cache.clone())?;
            sidecar.sharing = Some(sharing);
        }
        let records_path = plan.config.records.path().cloned();
        // What is written from here on is this run's own, and its counters have it.
        let earlier = records_path.as_deref().and_then(|path| Archive::open(path).and_then(Archive::hold).ok());
        for (index, listeners) in listeners.into_iter().enumerate() {
            let (plan, stop) = (plan.clone(), stop.clone());
            let worker = spawn(format!("worker-{index}"), move || plan.work(listeners, stop))?;
            sidecar.workers.push(worker);
        }
        if let Some(listeners) = admin_listeners.pop() {
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
                shared_cache: sidecar.sharing.as_ref().map(|sharing| sharing.cache.clone()),
                stop,
            };
            let outlook = admin.page.outlook.clone();
            let ends = move || Some(outlook.load_full()?).map(|ends| (ends.low.as_f64(), ends.high.as_f64()));
            metrics.watch_outlook(ends)?;
            let guard = plan.lasting.guard.clone();
            let (stop, reading) = (sidecar.admin_stop.clone(), plan.reading.clone());
            let (events, known) = (plan.events.clone(), plan.reading.known.clone());
            let look = Watcher { events, metrics: metrics.clone(), catalogue, known };
            let (certificates, limits) = (plan.certificates(), plan.rate_limit.clone());
            let runtimes = plan.runtimes.clone();
            let priced = advice::priced(&plan.config.models);
            let background =
                Background { earlier, reading, metrics, look, priced, certificates, runtimes, health, limits, offer };
            let (serving, runtimes) = (plan.admin_serving(), plan.runtimes.clone());
            sidecar.admin_thread = Some(spawn("admin".into(), move || {
                runtimes.start()?.block_on(serve_admin(listeners, admin, guard, background, serving, stop))
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

    /// Until it is told to stop, by [`stop`](Self::stop) or by a gate that has taken its sockets (`handover_path`).
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Stops, and waits until all has ended.
    pub fn join(mut self) -> io::Result<()> {
        self.stop();
        // Each is waited for, also after one has failed.
        let ended = self.workers.drain(..).map(wait).fold(Ok(()), io::Result::and);
        drop(self.warm.take());
        // What nothing was spent of goes back to the others.
        self.spending.budgets.get().release();
        let ended = ended.and(self.sharing.take().map_or(Ok(()), shared_cache::Sharing::end));
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
        if let Some(sharing) = &self.sharing {
            sharing.stop();
        }
    }
}
