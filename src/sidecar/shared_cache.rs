//! `[cache] shared`: answers that the gates of `[replicas]` keep for each other.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::config::{BaseUrl, Config, ConfigError, LEAST_SECRET_BYTES};
use super::threads::{spawn, wait};
use crate::layers::cache::{self, CacheLayer};
use crate::replicas::{CacheLink, SharedCache, SharedSettings};

/// The cache's further tier, before anything runs.
#[derive(Debug)]
pub struct SharedTier {
    /// Where it is.
    pub link: CacheLink,
    /// Limits and budgets are somewhere else.
    pub has_own_store: bool,
    cache: SharedCache,
}

/// A thread that speaks with the store of the answers.
#[derive(Debug)]
pub(super) struct Sharing {
    thread: JoinHandle<io::Result<()>>,
    stop: CancellationToken,
    pub(super) cache: SharedCache,
}

const LONGEST_WAIT: Duration = Duration::from_secs(1);
const LARGEST_ENTRY: u64 = 8 << 20;

impl Config {
    /// Checks the settings of the shared cache, and opens no connection; `None` where answers are this gate's alone.
    pub fn shared_tier(&self) -> Result<Option<SharedTier>, ConfigError> {
        let wrong = |place: &str, what: &str| Err(ConfigError { place: place.into(), what: what.into() });
        let cache = &self.cache;
        if !cache.shared {
            return Ok(None);
        }
        let own = cache.store.as_ref().filter(|store| !store.reveal().is_empty());
        let Some(store) = own.or(self.replicas.store.as_ref().filter(|store| !store.reveal().is_empty())) else {
            return wrong("[cache] shared", "needs a store: set [replicas] store, or [cache] store");
        };
        let secret = self.replicas.secret.as_ref().map_or("", |secret| secret.reveal());
        if secret.len() < LEAST_SECRET_BYTES {
            let what = "needs [replicas] secret (TOLLGATE_REPLICAS_SECRET), the same at all gates and at least 16 bytes: \
                        `openssl rand -hex 32` makes one";
            return wrong("[cache] shared", what);
        }
        if cache.shared_wait < Duration::from_millis(1) || cache.shared_wait > LONGEST_WAIT {
            return wrong("[cache] shared_wait", "is to be from 1ms to 1s; write it like 5ms");
        }
        let (largest, rate) = (cache.shared_max_entry.as_u64(), cache.shared_write_rate.as_u64());
        if !(1024..=LARGEST_ENTRY).contains(&largest) {
            return wrong("[cache] shared_max_entry", "is to be from 1KiB to 8MiB; write it like 256KiB");
        }
        if rate < largest {
            return wrong("[cache] shared_write_rate", "is to be at least shared_max_entry; write it like 16MiB");
        }
        self.replicas.check()?;
        let fleet = &self.replicas.fleet;
        let link = CacheLink::new(store.reveal(), fleet, self.replicas.timeout).map_err(|error| ConfigError {
            place: if own.is_some() { "[cache] store" } else { "[replicas] store" }.into(),
            what: format!("{error}; write it like redis://host:6379, or rediss://user:password@host:6379 with TLS"),
        })?;
        let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        let settings =
            SharedSettings { wait: cache.shared_wait, max_entry_bytes: bytes(largest), max_write_bytes: bytes(rate) };
        let Some(cache) = SharedCache::new(Arc::new(link.clone()), secret.as_bytes(), fleet, settings) else {
            return wrong("[cache] shared", "cannot be: the system refuses random numbers");
        };
        Ok(Some(SharedTier { link, has_own_store: own.is_some(), cache }))
    }
}

/// `[cache]`, for calls to this upstream.
pub(super) fn cache_settings(config: &Config) -> cache::Settings {
    let base_url = config.upstream.base_url.as_ref().map_or("", BaseUrl::as_str);
    let upstream = format!("{base_url} {}", config.upstream.gateway);
    cache::Settings { upstream: upstream.into(), ..config.cache.settings() }
}

// === impl SharedTier ===

impl SharedTier {
    /// The cache over it.
    pub(super) fn under(&self, cache: &CacheLayer) -> CacheLayer {
        cache.with_tier(Arc::new(self.cache.clone()))
    }

    /// Speaks with the store, on a thread and a runtime of its own.
    pub(super) fn speak(&self, runtime: Runtime) -> io::Result<Sharing> {
        let (stop, cache) = (CancellationToken::new(), self.cache.clone());
        let (stopped, running) = (stop.clone(), cache.clone());
        let thread = spawn("shared-cache".into(), move || {
            runtime.block_on(running.run_until(stopped.cancelled()));
            Ok(())
        })?;
        Ok(Sharing { thread, stop, cache })
    }
}

// === impl Sharing ===

impl Sharing {
    /// Puts what waits, and ends.
    pub(super) fn end(self) -> io::Result<()> {
        self.stop.cancel();
        wait(self.thread)
    }

    pub(super) fn stop(&self) {
        self.stop.cancel();
    }
}

/// What `/readyz` says of it.
pub(super) fn describe(cache: &SharedCache) -> String {
    match cache.counts().why() {
        Some(why) => format!("the store of the shared cache is away ({why}): this gate has its own answers alone\n"),
        None if cache.is_open() => "cached answers are shared\n".into(),
        None => "the store of the shared cache was not reached yet\n".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "secret = \"0123456789abcdef\"";

    #[test]
    fn what_cannot_be_is_told_with_the_mend() {
        for (cache, replicas, place, what) in [
            ("", SECRET, "[cache] shared", "set [replicas] store, or [cache] store"),
            ("store = \"redis://h\"", "", "[cache] shared", "TOLLGATE_REPLICAS_SECRET"),
            ("store = \"redis://h\"", "secret = \"short\"", "[cache] shared", "at least 16 bytes"),
            ("store = \"http://h\"", SECRET, "[cache] store", "write it like redis://"),
            ("store = \"redis://h\"\nshared_wait = \"1m\"", SECRET, "[cache] shared_wait", "from 1ms to 1s"),
            ("store = \"redis://h\"\nshared_max_entry = \"1GB\"", SECRET, "[cache] shared_max_entry", "from 1KiB"),
            ("store = \"redis://h\"\nshared_write_rate = \"1B\"", SECRET, "[cache] shared_write_rate", "at least"),
        ] {
            let text = format!("[cache]\nshared = true\n{cache}\n[replicas]\n{replicas}\n");
            let error = Config::parse(&text, "t").unwrap().shared_tier().unwrap_err();
            assert!(error.place == place && error.what.contains(what), "{text}: {error}");
            assert!(!error.to_string().contains("0123456789abcdef"));
        }
        let text = format!("[cache]\nshared = true\n[replicas]\nstore = \"redis://:pa55@h\"\n{SECRET}\n");
        let config = Config::parse(&text, "t").unwrap();
        assert!(!config.shared_tier().unwrap().unwrap().has_own_store);
        let shown = format!("{}{config:?}", config.show().unwrap());
        assert!(!shown.contains("0123456789abcdef") && !shown.contains("pa55"), "{shown}");
        assert!(Config::default().shared_tier().unwrap().is_none());
    }
}
