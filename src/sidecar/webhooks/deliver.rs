//! One webhook: events go to it one after the other, and each is tried again where it does not arrive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use http::{StatusCode, Uri, header};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::event::Event;
use super::sign::Key;
use crate::sidecar::config::{ConfigError, Kind, Webhook};
use crate::upstream::{Road, causes};

/// A server that is told. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) name: String,
    inner: Arc<Inner>,
}

struct Inner {
    settings: Webhook,
    url: Uri,
    events: Vec<Kind>,
    key: Option<Key>,
    client: reqwest::Client,
    delivered: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    /// It has said that it is gone.
    is_gone: AtomicBool,
}

/// For a whole request, from the connection to the reply's head: a server that takes a byte a second is given up.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The pauses between attempts, in seconds.
const PAUSES: [u64; 5] = [1, 5, 30, 120, 600];

impl Endpoint {
    pub(super) fn new(
        name: &str,
        settings: Webhook,
        url: Uri,
        key: Option<Key>,
        road: &Road,
    ) -> Result<Self, ConfigError> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(road.tls())
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(1)
            .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ConfigError { place: "[[webhooks]]".into(), what: causes(&error) })?;
        let inner = Inner {
            url,
            events: settings.events.clone(),
            settings,
            key,
            client,
            delivered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            is_gone: AtomicBool::new(false),
        };
        Ok(Self { name: name.into(), inner: Arc::new(inner) })
    }

    /// The one of those before where nothing of it has changed, or else with the counts of the one that had its name.
    pub(super) fn following(self, before: &[Self]) -> Self {
        let Some(old) = before.iter().find(|old| old.name == self.name) else { return self };
        if old.inner.settings == self.inner.settings {
            return old.clone();
        }
        let all = [(&old.inner.delivered, &self.inner.delivered), (&old.inner.failed, &self.inner.failed)];
        for (old, new) in all.into_iter().chain([(&old.inner.dropped, &self.inner.dropped)]) {
            new.store(old.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    pub(super) fn wants(&self, kind: Kind) -> bool {
        !self.inner.is_gone.load(Ordering::Relaxed)
            && (self.inner.events.is_empty() || self.inner.events.contains(&kind))
    }

    /// Its queue is full. The first of a row is told.
    pub(super) fn note_dropped(&self) {
        if self.inner.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                webhook = self.name,
                "events are lost: the webhook's server does not take them as fast as they come"
            );
        }
    }

    /// By what became of them; `dropped_before` were lost before it was known who wanted them.
    pub(super) fn results(&self, dropped_before: u64) -> [(String, &'static str, u64); 3] {
        let Inner { delivered, failed, dropped, .. } = &*self.inner;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let of = |result, count| (self.name.clone(), result, count);
        [of("delivered", count(delivered)), of("failed", count(failed)), of("dropped", count(dropped) + dropped_before)]
    }

    /// Until the queue ends. When it is told to stop, each event is tried once more and no pause is made.
    pub(super) async fn deliver_all(self, mut queue: mpsc::Receiver<Event>, stop: CancellationToken) {
        while let Some(event) = queue.recv().await {
            if let Err(why) = self.deliver(&event, &stop).await {
                self.inner.failed.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    webhook = self.name,
                    event = event.kind.label(),
                    why,
                    "an event is lost: its webhook does not take it"
                );
            }
        }
    }

    async fn deliver(&self, event: &Event, stop: &CancellationToken) -> Result<(), String> {
        let body = event.body();
        let id = format!("evt_{:032x}", fastrand::u128(..));
        let mut pauses = PAUSES.iter();
        loop {
            let why = match self.attempt(&id, &body).await {
                Ok(()) => return Ok(()),
                Err(why) => why,
            };
            let Some(pause) = pauses.next().filter(|_| self.wants(event.kind)) else { return Err(why) };
            tracing::debug!(
                webhook = self.name,
                event = event.kind.label(),
                why,
                "an event did not arrive; it is tried again"
            );
            // Each waits a little longer or shorter, so that a server that comes back is not met by all at once.
            let pause = Duration::from_secs(*pause).mul_f64(0.8 + 0.4 * fastrand::f64());
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Err(why);
            }
        }
    }

    /// Sends one event, and says why it did not arrive.
    pub(crate) async fn send(&self, event: &Event) -> Result<(), String> {
        self.attempt(&format!("evt_{:032x}", fastrand::u128(..)), &event.body()).await
    }

    async fn attempt(&self, id: &str, body: &[u8]) -> Result<(), String> {
        let inner = &*self.inner;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut request = inner
            .client
            .post(inner.url.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now);
        if let Some(key) = &inner.key {
            request = request.header("webhook-signature", key.signature(id, now, body));
        }
        // The URL may be a secret, and what reqwest says has it.
        let reply = request.body(body.to_vec()).send().await.map_err(|error| causes(&error.without_url()))?;
        match reply.status() {
            status if status.is_success() => {
                inner.delivered.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            StatusCode::GONE => {
                inner.is_gone.store(true, Ordering::Relaxed);
                Err("it says 410, so it is told nothing more until the gate starts again".into())
            }
            status => Err(format!("it says {status}")),
        }
    }
}
