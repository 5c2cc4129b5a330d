//! `tollgate serve`

use std::io::IsTerminal;
use std::net::SocketAddr;

use clap::Args;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::settings::{KEYS, MODELS, Settings, variables};
use super::watch::Watch;
use super::{Failure, print};
use crate::sidecar::config::{BaseUrl, Config, ConfigError, Log, LogFormat, Tls, Variables};
use crate::sidecar::handover::Handed;
use crate::sidecar::otel::LogLines;
use crate::sidecar::{Sidecar, StartError, check_with_files, machine, service};

#[derive(Args, Debug)]
pub(super) struct Serve {
    #[command(flatten)]
    settings: Settings,
    /// Where clients connect [default: 127.0.0.1:8787]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where metrics and health are [default: 127.0.0.1:9787]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// Where calls go [default: https://api.cloudflare.com]
    #[arg(long, value_name = "URL", value_parser = |url: &str| BaseUrl::try_from(url.to_owned()))]
    upstream: Option<BaseUrl>,
}

/// What is said to the gate by signals, heard from here on and not only once it serves: whoever is told that it listens may end
/// it at once, and it ends in order.
struct Signals {
    runtime: Runtime,
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

/// The records of a sidecar whose config names none.
pub(super) const RECORDS: &str = "tollgate.db";

impl Serve {
    pub(super) fn run(self) -> Result<(), Failure> {
        let variables = variables();
        let file = self.settings.file();
        let as_read = file.as_ref().and_then(|file| std::fs::read(file).ok());
        let config = self.read(&variables).map_err(|error| Failure::Usage(error.to_string()))?;
        let lines = config.otel.log_lines(&variables).map_err(|error| Failure::Usage(error.to_string()))?;
        let log = start_log(&config.log, lines.clone())?;
        machine::raise_open_files();
        let mut signals = Signals::hear().map_err(|error| Failure::Failed(error.to_string()))?;
        let watches = config.watch_config;
        let scheme = |tls: &Tls| if tls.cert.is_some() { "https" } else { "http" };
        let (clients, admins) = (scheme(&config.tls), scheme(&config.admin_tls));
        let mut handed = Handed::take(&variables).map_err(|error| Failure::Failed(format!("LISTEN_FDS: {error}")))?;
        if let Some(path) = config.handover_path().filter(|_| !handed.is_any()) {
            let failed = |error| Failure::Failed(format!("handover_path {}: {error}", path.display()));
            handed = Handed::ask(path, &config).map_err(failed)?;
            if handed.is_any() {
                // The gate before is told to end when all is well that can be known beforehand.
                check_with_files(&config, &variables).map_err(|error| Failure::Usage(error.to_string()))?;
                handed.take_over().map_err(failed)?;
            }
        }
        if handed.is_any() && !handed.wait_for_turn(&config, || signals.is_the_end()) {
            return Ok(());
        }
        let sidecar = Sidecar::start_on(handed, config, &variables, Vec::new()).map_err(failure)?;
        if let Some(lines) = lines {
            sidecar.send_log(lines);
        }
        sidecar.read_again_by(move || self.read(&variables), move |config| log.hold_to(&config.log.level));
        let _watch = if watches { file.and_then(|file| Watch::start(&file, as_read, &sidecar)) } else { None };
        let (listen, admin) = (sidecar.listen(), sidecar.admin());
        tracing::info!(%listen, %admin, "serving");
        print(&format!("listening on {clients}://{listen}, admin on {admins}://{admin}\n"))?;
        service::ready();
        // What came of it stands in the log.
        signals.wait_for_the_end(sidecar.stopped(), || drop(sidecar.reload()));
        service::stopping();
        tracing::info!("stopping: no new calls, running ones may end");
        sidecar.join().map_err(|error| Failure::Failed(error.to_string()))
    }

    /// The config with the flags over it.
    fn read(&self, variables: &Variables) -> Result<Config, ConfigError> {
        let mut config = self.settings.read(variables)?;
        config.listen = self.listen.unwrap_or(config.listen);
        config.admin = self.admin.unwrap_or(config.admin);
        config.upstream.base_url = self.upstream.clone().or(config.upstream.base_url);
        if config.records.path.is_none() {
            config.records.path = Some(RECORDS.into());
            config.records.may_be_missing = true;
        }
        config.catalogue.path.get_or_insert_with(|| MODELS.into());
        config.keys_path.get_or_insert_with(|| KEYS.into());
        Ok(config)
    }
}

pub(super) fn failure(error: StartError) -> Failure {
    match error {
        StartError::Config(error) => Failure::Usage(error.to_string()),
        other => Failure::Failed(other.to_string()),
    }
}

/// The log's level, which may change.
pub(super) struct LogLevel(reload::Handle<EnvFilter, Registry>);

/// `sent`: what has lines sent to a collector besides.
pub(super) fn start_log(log: &Log, sent: Option<LogLines>) -> Result<LogLevel, Failure> {
    let (filter, handle) = reload::Layer::new(filter(&log.level)?);
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter).with(sent);
    let started = match log.format {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    started.map(|()| LogLevel(handle)).map_err(|error| Failure::Failed(error.to_string()))
}

fn filter(level: &str) -> Result<EnvFilter, Failure> {
    EnvFilter::try_new(level)
        .map_err(|error| Failure::Usage(format!("[log] level: {error}; write it like info or info,tollgate=debug")))
}

impl LogLevel {
    /// A level that cannot be was found when the config was read.
    fn hold_to(&self, level: &str) {
        if let Ok(filter) = filter(level)
            && let Err(error) = self.0.reload(filter)
        {
            tracing::error!(%error, "the log's level stays as it was");
        }
    }
}

impl Signals {
    fn hear() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (hangup, terminate, interrupt) = {
            let _here = runtime.enter();
            (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        Ok(Self { runtime, hangup, terminate, interrupt })
    }

    /// Whether SIGTERM or Ctrl-C has come by now.
    fn is_the_end(&mut self) -> bool {
        let Self { runtime, terminate, interrupt, .. } = self;
        runtime.block_on(async {
            // Signals are heard by the runtime's driver, which has to run for a moment.
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            tokio::select! {
                biased;
                _ = terminate.recv() => true,
                _ = interrupt.recv() => true,
                () = std::future::ready(()) => false,
            }
        })
    }

    /// Until SIGTERM or Ctrl-C, or until the gate has stopped otherwise. SIGHUP has the config read again.
    fn wait_for_the_end(&mut self, stopped: impl Future<Output = ()>, reload: impl Fn()) {
        let Self { runtime, hangup, terminate, interrupt } = self;
        runtime.block_on(async {
            let mut stopped = std::pin::pin!(stopped);
            loop {
                tokio::select! {
                    () = &mut stopped => return,
                    _ = terminate.recv() => return,
                    _ = interrupt.recv() => return,
                    _ = hangup.recv() => reload(),
                }
            }
        });
    }
}

/// SIGTERM, or Ctrl-C.
pub(super) async fn signalled() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
}
