//! `tollgate serve`

use std::io::IsTerminal;
use std::net::SocketAddr;

use clap::Args;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::settings::{MODELS, Settings, variables};
use super::{Failure, print};
use crate::sidecar::config::{BaseUrl, Log, LogFormat};
use crate::sidecar::tls::Tls;
use crate::sidecar::{Sidecar, StartError, machine, service};

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
        let mut config = self.settings.load(&variables)?;
        config.listen = self.listen.unwrap_or(config.listen);
        config.admin = self.admin.unwrap_or(config.admin);
        config.upstream.base_url = self.upstream.or(config.upstream.base_url);
        if config.records.path.is_none() {
            config.records.path = Some(RECORDS.into());
            config.records.may_be_missing = true;
        }
        config.catalogue.path.get_or_insert_with(|| MODELS.into());
        start_log(&config.log)?;
        machine::raise_open_files();
        let mut signals = Signals::hear().map_err(|error| Failure::Failed(error.to_string()))?;
        let scheme = |tls: &Tls| if tls.cert.is_some() { "https" } else { "http" };
        let (clients, admins) = (scheme(&config.tls), scheme(&config.admin_tls));
        let sidecar = Sidecar::start(config, &variables, Vec::new()).map_err(failure)?;
        let (listen, admin) = (sidecar.listen(), sidecar.admin());
        tracing::info!(%listen, %admin, "serving");
        print(&format!("listening on {clients}://{listen}, admin on {admins}://{admin}\n"))?;
        service::ready();
        signals.wait_for_the_end();
        service::stopping();
        tracing::info!("stopping: no new calls, running ones may end");
        sidecar.join().map_err(|error| Failure::Failed(error.to_string()))
    }
}

pub(super) fn failure(error: StartError) -> Failure {
    match error {
        StartError::Config(error) => Failure::Usage(error.to_string()),
        other => Failure::Failed(other.to_string()),
    }
}

pub(super) fn start_log(log: &Log) -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::try_new(&log.level)
        .map_err(|error| Failure::Usage(format!("[log] level: {error}; write it like info or info,tollgate=debug")))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match log.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Failure::Failed(error.to_string()))
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

    /// Until SIGTERM or Ctrl-C. A terminal that closes, or a `kill -HUP` that is meant to reload, does not end the gate.
    fn wait_for_the_end(&mut self) {
        let Self { runtime, hangup, terminate, interrupt } = self;
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = terminate.recv() => return,
                    _ = interrupt.recv() => return,
                    _ = hangup.recv() => {
                        tracing::warn!("SIGHUP is ignored: the config is read at start alone; restart the gate to change it");
                    }
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
