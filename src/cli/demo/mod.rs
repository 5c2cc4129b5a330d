//! `tollgate demo`: the simulator, the sidecar before it, and traffic, on this machine alone. No account is needed.

mod replicas;
mod totals;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio_util::sync::CancellationToken;

use self::totals::Totals;
use super::serve::{failure, start_log};
use super::{Failure, print};
use crate::layers::budget::{Period, Rule, Split};
use crate::neurons::Neurons;
use crate::receipt::Reader;
use crate::sidecar::Sidecar;
use crate::sidecar::config::{BaseUrl, Config, Log, Variables};
use crate::simulator::{self, traffic, voice};

#[derive(Args, Debug)]
pub(super) struct Demo {
    /// End by itself after this long, such as 20s; without it, Ctrl-C ends it
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    lasts: Option<Duration>,
    /// Where the sidecar listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8787")]
    listen: SocketAddr,
    /// Where its metrics are
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9787")]
    admin: SocketAddr,
    /// So many gates that share one limit and one budget through a Valkey or a Redis of this machine; one of them is killed
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["listen", "admin"])]
    replicas: Option<usize>,
}

/// The account of the demo; the simulator knows every account.
const ACCOUNT: &str = "023e105f4ecef8ad9ca31a8372d0c353";
/// Quicker than life, so that a short demo shows something.
const LATENCY: f64 = 0.3;
/// What of the account's spending goes around the gate, as Workers' calls do.
const ELSEWHERE: f64 = 0.15;
/// Much quicker than life, too.
const LAG: Duration = Duration::from_secs(5);

impl Demo {
    pub(super) fn run(self) -> Result<(), Failure> {
        start_log(&Log { level: "warn".into(), ..Log::default() }, None)?;
        if let Some(replicas) = self.replicas {
            return replicas::run(replicas, self.lasts);
        }
        let failed = |error: std::io::Error| Failure::Failed(error.to_string());
        let settings = simulator::Settings {
            latency: LATENCY,
            elsewhere: ELSEWHERE,
            analytics_lag: LAG,
            ..simulator::Settings::default()
        };
        let vendor = simulator::start(settings).map_err(failed)?;
        let totals = Arc::new(Totals::default());
        let place = ScratchDir::new().map_err(failed)?;
        let sidecar = self.sidecar(&vendor.base_url(), &place, totals.clone())?;
        let (listen, admin) = (sidecar.listen(), sidecar.admin());
        print(&format!(
            "A stand-in for Workers AI, the sidecar before it, and traffic: nothing leaves this machine.\n\
             calls    http://{listen}/v1/chat/completions and the other routes\n\
             watch    http://{admin}/ in a browser\n\
             metrics  http://{admin}/metrics\n\n"
        ))?;
        self.drive(&format!("http://{listen}"), &totals).map_err(failed)?;
        sidecar.join().map_err(failed)?;
        print(&totals.table())
    }

    fn sidecar(&self, upstream: &str, place: &ScratchDir, totals: Arc<Totals>) -> Result<Sidecar, Failure> {
        let mut config = Config::default();
        (config.listen, config.admin) = (self.listen, self.admin);
        // Nothing is spent that is anybody's.
        config.open = true;
        config.shutdown_timeout = Duration::from_secs(5);
        config.upstream.base_url =
            Some(BaseUrl::try_from(upstream.to_owned()).map_err(|error| Failure::Failed(error.to_string()))?);
        config.upstream.account_id = Some(ACCOUNT.into());
        config.catalogue.refresh = Duration::from_secs(3600);
        config.account.analytics = true;
        (config.account.analytics_every, config.account.analytics_lag) = (LAG, LAG);
        config.budgets = budgets();
        config.records.path = Some(place.0.join("demo.db"));
        // The simulator takes any.
        let variables: Variables = vec![(config.upstream.api_token_env.clone(), "demo".into())];
        Sidecar::start(config, &variables, vec![totals as Arc<dyn Reader>]).map_err(failure)
    }

    fn drive(&self, base_url: &str, totals: &Totals) -> std::io::Result<()> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let stop = CancellationToken::new();
            let client = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(crate::upstream::tls());
            let client = client.build().map_err(std::io::Error::other)?;
            let clients = (0..traffic::CLIENTS)
                .map(|number| tokio::spawn(traffic::run(client.clone(), base_url.to_owned(), number, stop.clone())));
            let voice = tokio::spawn(voice::run(base_url.to_owned(), stop.clone()));
            let clients: Vec<_> = clients.chain([voice]).collect();
            let ended = self.watch(totals).await;
            stop.cancel();
            for client in clients {
                client.await.map_err(std::io::Error::other)?;
            }
            ended
        })
    }

    /// Tells how it goes until it is over.
    async fn watch(&self, totals: &Totals) -> std::io::Result<()> {
        let begun = Instant::now();
        let on_screen = std::io::stderr().is_terminal();
        let mut tick = tokio::time::interval(Duration::from_secs(if on_screen { 1 } else { 5 }));
        let over = async {
            match self.lasts {
                Some(lasts) => tokio::time::sleep(lasts).await,
                None => std::future::pending().await,
            }
        };
        let mut signals = std::pin::pin!(super::serve::signalled());
        let mut over = std::pin::pin!(over);
        tick.tick().await;
        loop {
            tokio::select! {
                () = &mut over => break,
                stopped = &mut signals => { stopped?; break }
                _ = tick.tick() => show(on_screen, begun, &totals.progress()),
            }
        }
        if on_screen {
            eprintln!();
        }
        Ok(())
    }
}

/// A directory for the records, so that each call has its receipt; gone when the demo ends.
struct ScratchDir(PathBuf);

impl ScratchDir {
    fn new() -> std::io::Result<Self> {
        let place = std::env::temp_dir().join(format!("tollgate-demo-{:016x}", fastrand::u64(..)));
        std::fs::create_dir(&place)?;
        Ok(Self(place))
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        // What is left behind is in the directory for what is temporary.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Ample for the traffic, so that they show without being in its way.
fn budgets() -> Vec<Rule> {
    let everyone = Rule::new("everyone", Neurons::from_usd(20.0), Period::Hour);
    let mut teams = Rule::new("each team", Neurons::from_usd(0.25), Period::Minute);
    teams.split_by = vec![Split::Metadata("team".into())];
    vec![everyone, teams]
}

fn show(on_screen: bool, begun: Instant, progress: &str) {
    let (start, end) = if on_screen { ("\r\x1b[K", "") } else { ("", "\n") };
    let mut stderr = std::io::stderr().lock();
    // A progress line that nobody can read is no failure.
    let _ = write!(stderr, "{start}{:>4} s  {progress}{end}", begun.elapsed().as_secs());
    let _ = stderr.flush();
}
