//! Other gates before the same account, and the store that they share limits through.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::config::{ConfigError, LEAST_SECRET_BYTES, Replicas};
use super::notices::{Board, Subjects};
use super::threads;
use crate::layers::identify::keys::Turns;
use crate::layers::rate_limit::{self, OnStoreLoss, RateLimitLayer, Sharing};
use crate::replicas::{FleetClock, Link, Seen, Session, Wanted};

/// The limits' part of a store, before anything runs.
pub(super) struct Shared {
    link: Link,
    pub(super) sharing: Arc<Sharing>,
    name: String,
    fleet: String,
    secret: Option<String>,
    pub(super) registers: Arc<Wanted>,
    pub(super) clock: Arc<FleetClock>,
}

/// What goes on with the store, for metrics and `/readyz`.
#[derive(Clone, Debug)]
pub(super) struct StoreStatus {
    pub(super) seen: Arc<Seen>,
    pub(super) sharing: Arc<Sharing>,
    pub(super) board: Arc<Board>,
}

/// A thread that speaks with the store.
#[derive(Debug)]
pub(super) struct Speaking {
    thread: JoinHandle<io::Result<()>>,
    stop: CancellationToken,
    pub(super) standing: StoreStatus,
}

const LONGEST_TIMEOUT: Duration = Duration::from_secs(5);
const LONGEST_KEEP: Duration = Duration::from_secs(3600);

// === impl Replicas ===

impl Replicas {
    /// Checks the settings; opens no connection.
    pub fn link(&self) -> Result<Option<Link>, ConfigError> {
        let Some(store) = self.store.as_ref().filter(|store| !store.reveal().is_empty()) else { return Ok(None) };
        self.check()?;
        let link = Link::new(store.reveal(), &self.fleet, self.timeout).map_err(|error| ConfigError {
            place: "[replicas] store".into(),
            what: format!("{error}; write it like redis://host:6379, or rediss://user:password@host:6379 with TLS"),
        })?;
        Ok(Some(link))
    }

    /// What holds for any store.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key: &str, what: String| ConfigError { place: format!("[replicas] {key}"), what };
        if self.timeout < Duration::from_millis(1) || self.timeout > LONGEST_TIMEOUT {
            return Err(wrong("timeout", "is to be from 1ms to 5s; write it like 250ms".into()));
        }
        if self.keep_for > LONGEST_KEEP {
            return Err(wrong("keep_for", "is to be at most 1h; write it like 30s".into()));
        }
        for (key, name) in [("fleet", &self.fleet), ("name", &self.name)] {
            let is_wrong = |c: char| c.is_control() || c == '{' || c == '}' || c == '#';
            if name.len() > 128 || name.chars().any(is_wrong) || key == "fleet" && name.is_empty() {
                return Err(wrong(key, "is to be a name of at most 128 bytes, without braces and #".into()));
            }
        }
        Ok(())
    }

    /// The fleet's secret.
    fn secret(&self) -> Result<Option<String>, ConfigError> {
        let secret = self.secret.as_ref().map_or("", |secret| secret.reveal());
        if (1..LEAST_SECRET_BYTES).contains(&secret.len()) {
            let what = "has fewer than 16 bytes and can be guessed: `openssl rand -base64 24` makes a good one";
            return Err(ConfigError { place: "[replicas] secret".into(), what: what.into() });
        }
        Ok(Some(secret.to_owned()).filter(|secret| !secret.is_empty()))
    }

    pub(super) fn shared(&self) -> Result<Option<Shared>, ConfigError> {
        let secret = if self.link()?.is_some() { self.secret()? } else { None };
        let sharing = || Sharing::new(self.on_store_loss, self.keep_for);
        Ok(self.link()?.map(|link| Shared {
            link,
            sharing: sharing(),
            name: self.name.clone(),
            fleet: self.fleet.clone(),
            secret,
            registers: Arc::default(),
            clock: Arc::default(),
        }))
    }
}

/// The limits, shared where the config says so.
pub(super) fn limits(settings: rate_limit::Settings, shared: Option<&Shared>) -> RateLimitLayer {
    match shared {
        Some(shared) => RateLimitLayer::shared(settings, shared.sharing.clone()),
        None => RateLimitLayer::new(settings),
    }
}

/// Keys' turns, on the lanes of the shared limits.
#[derive(Debug)]
struct KeyTurns(RateLimitLayer);

impl Turns for KeyTurns {
    fn turn(&self, key: &str, requests_per_minute: NonZeroU32) -> BoxFuture<'static, Result<(), Duration>> {
        Box::pin(self.0.turn_of_key(key, requests_per_minute))
    }
}

pub(super) fn turns(limits: &RateLimitLayer) -> Arc<dyn Turns> {
    Arc::new(KeyTurns(limits.clone()))
}

// === impl Shared ===

impl Shared {
    /// Speaks with the store for these limits, on a thread and a runtime of its own, so that no call's work holds up an answer.
    pub(super) fn speak(
        &self,
        limits: RateLimitLayer,
        listen: SocketAddr,
        subjects: Subjects,
        runtime: Runtime,
    ) -> io::Result<Speaking> {
        let own = || format!("{}:{}", rustix::system::uname().nodename().to_string_lossy(), listen.port());
        let name = if self.name.is_empty() { own() } else { self.name.clone() };
        let session = Session::new(&name, Arc::new(self.link.clone()), self.sharing.clone(), limits);
        let session = session.with_budgets(self.registers.clone()).with_clock(self.clock.clone());
        let board = Arc::new(Board::new(&self.fleet, &name, self.secret.as_deref()));
        let standing = StoreStatus { seen: session.seen(), sharing: self.sharing.clone(), board: board.clone() };
        let stop = CancellationToken::new();
        let (stopped, link) = (stop.clone(), self.link.clone());
        let thread = threads::spawn("replicas".into(), move || {
            runtime.block_on(async {
                let noticing = board.run(link, Arc::new(subjects), stopped.clone());
                tokio::join!(session.run_until(stopped.cancelled()), noticing);
            });
            Ok(())
        })?;
        Ok(Speaking { thread, stop, standing })
    }
}

// === impl Speaking ===

impl Speaking {
    /// Says goodbye to the store.
    pub(super) fn end(self) -> io::Result<()> {
        self.stop.cancel();
        threads::wait(self.thread)
    }

    pub(super) fn stop(&self) {
        self.stop.cancel();
    }
}

// === impl StoreStatus ===

impl StoreStatus {
    /// What `/readyz` says of it.
    pub(super) fn describe(&self) -> String {
        let rule = match self.sharing.on_store_loss() {
            OnStoreLoss::Keep => "the limits go on with what this gate held",
            OnStoreLoss::Closed => "calls that have a limit are held up",
            OnStoreLoss::Open => "this gate counts alone",
        };
        match self.seen.why() {
            Some(why) => format!("the store of [replicas] is away ({why}): {rule}\n"),
            None if self.sharing.is_away() => format!("the store of [replicas] was not reached yet: {rule}\n"),
            None => "the limits are shared through the store of [replicas]\n".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::sidecar::config::Config;

    #[test]
    fn what_cannot_be_is_told_with_the_mend() {
        for (text, what) in [
            ("store = \"http://host\"", "write it like redis://"),
            ("store = \"redis://host\"\ntimeout = \"1h\"", "from 1ms to 5s"),
            ("store = \"redis://host\"\nkeep_for = \"2h\"", "at most 1h"),
            ("store = \"redis://host\"\nfleet = \"a{b\"", "without braces"),
        ] {
            let config = Config::parse(&format!("[replicas]\n{text}\n"), "").unwrap();
            let error = config.replicas.link().unwrap_err().to_string();
            assert!(error.starts_with("[replicas] ") && error.contains(what), "{text}: {error}");
        }
        assert!(Config::default().replicas.link().unwrap().is_none());
        let short = Config::parse("[replicas]\nstore = \"redis://host\"\nsecret = \"fifteen bytes !\"\n", "").unwrap();
        let error = short.replicas.shared().err().unwrap().to_string();
        assert!(error.starts_with("[replicas] secret") && !error.contains("fifteen"), "{error}");
    }
}
