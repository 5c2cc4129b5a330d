//! `[[webhooks]]`: tells somebody's server what a person may want to know, when it happens.
//!
//! What has happened is an `Event`; `Events` counts it and puts it into a queue. A thread of its own takes it from there,
//! signs it and sends it to every webhook that wants it, and tries again where that fails. All queues are bounded: a server
//! that hangs loses events, which are counted, and costs calls nothing.
//!
//! # What it does not do
//! It does not outlive the process: what was not delivered when it ends is lost, and counted in the log.

mod deliver;
mod event;
mod sign;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::sync::watch as latest;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use self::deliver::Endpoint;
pub use self::event::Kind;
pub(crate) use self::event::{Event, Events};
use self::sign::Key;
pub(super) use self::watch::Look;
use super::config::{ConfigError, Variables};
use super::guard::Secret;
use crate::upstream::Road;

/// A server that is told. `[[webhooks]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Webhook {
    /// Where events go, by POST.
    pub url: WebhookUrl,
    /// Names it in the log and the metrics; the URL's host where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which events; empty is all.
    #[serde(default)]
    pub events: Vec<Kind>,
    /// What signs them: `whsec_` and base64, or any text. Nothing is signed where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// The variable that holds it instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_env: Option<String>,
}

/// A URL that events can go to. Its path and query are never shown, for they often are a secret.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct WebhookUrl(http::Uri);

/// The thread that sends, where there is anybody to tell.
pub(super) struct Sending {
    events: Arc<Events>,
    stop: CancellationToken,
    thread: Mutex<Option<Sender>>,
}

/// The thread, and who is told.
struct Sender {
    endpoints: latest::Sender<Vec<Endpoint>>,
    thread: JoinHandle<()>,
}

/// One webhook's queue.
struct Queue {
    endpoint: Endpoint,
    sender: mpsc::Sender<Event>,
    /// Makes no more pauses.
    stop: CancellationToken,
}

/// Events that wait for the thread, and for each webhook.
const QUEUE: usize = 256;
/// What is there when the gate ends has so long to be delivered.
const LAST_WORDS: Duration = Duration::from_secs(1);

// === impl WebhookUrl ===

impl WebhookUrl {
    fn host(&self) -> &str {
        self.0.host().unwrap_or_default()
    }
}

impl TryFrom<String> for WebhookUrl {
    type Error = String;

    fn try_from(url: String) -> Result<Self, String> {
        let wrong = "this is no URL that events can go to: write it like https://hooks.example.com/tollgate";
        let parsed: http::Uri = url.parse().map_err(|_| wrong.to_owned())?;
        let is_web = matches!(parsed.scheme_str(), Some("http" | "https"));
        if is_web && parsed.host().is_some_and(|host| !host.is_empty()) { Ok(Self(parsed)) } else { Err(wrong.into()) }
    }
}

impl Serialize for WebhookUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.scheme_str().unwrap_or_default();
        let port = self.0.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        write!(f, "{scheme}://{}{port}/(hidden)", self.host())
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The webhooks that the config has, ready to send. Opens nothing.
pub(crate) fn endpoints(
    webhooks: &[Webhook],
    variables: &Variables,
    road: &Road,
) -> Result<Vec<Endpoint>, ConfigError> {
    let mut endpoints: Vec<Endpoint> = Vec::with_capacity(webhooks.len());
    for webhook in webhooks {
        let name = webhook.name.as_deref().unwrap_or_else(|| webhook.url.host());
        let wrong =
            |what: &str| ConfigError { place: "[[webhooks]]".into(), what: format!("the webhook {name:?} {what}") };
        if endpoints.iter().any(|other| other.name == name) {
            return Err(wrong("is there twice: give each a `name` of its own"));
        }
        let from_variable = |variable: &String| {
            let found = variables.iter().find(|(name, value)| name == variable && !value.is_empty());
            found
                .map(|(_, value)| value.clone())
                .ok_or_else(|| wrong(&format!("needs the variable {variable}, which is not set")))
        };
        let secret = match (&webhook.secret, &webhook.secret_env) {
            (Some(_), Some(_)) => return Err(wrong("has both `secret` and `secret_env`: leave one of them out")),
            (Some(secret), None) => Some(secret.reveal().to_owned()),
            (None, Some(variable)) => Some(from_variable(variable)?),
            (None, None) => None,
        };
        let key = secret.map(|secret| Key::read(&secret)).transpose().map_err(wrong)?;
        endpoints.push(Endpoint::new(name, webhook.clone(), webhook.url.0.clone(), key, road)?);
    }
    Ok(endpoints)
}

// === impl Sending ===

impl Sending {
    /// Starts the thread, where there is anybody to tell.
    pub(super) fn start(events: &Arc<Events>, endpoints: Vec<Endpoint>) -> std::io::Result<Self> {
        let this = Self { events: events.clone(), stop: CancellationToken::new(), thread: Mutex::default() };
        this.tell(endpoints)?;
        Ok(this)
    }

    /// Who is told from here on. One in which nothing has changed keeps what waits for it; what waits for one that goes is tried
    /// once more.
    pub(super) fn tell(&self, endpoints: Vec<Endpoint>) -> std::io::Result<()> {
        let mut thread = self.thread.lock();
        let before = self.events.endpoints();
        let endpoints: Vec<_> = endpoints.into_iter().map(|endpoint| endpoint.following(&before)).collect();
        self.events.show(&endpoints);
        match &*thread {
            Some(sender) => drop(sender.endpoints.send_replace(endpoints)),
            None if endpoints.is_empty() || self.stop.is_cancelled() => {}
            None => *thread = Some(self.spawn(endpoints)?),
        }
        Ok(())
    }

    fn spawn(&self, endpoints: Vec<Endpoint>) -> std::io::Result<Sender> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (sender, queue) = mpsc::channel(QUEUE);
        let (endpoints, now) = latest::channel(endpoints);
        let stop = self.stop.clone();
        let run = move || runtime.block_on(send(queue, now, stop));
        let thread = std::thread::Builder::new().name("webhooks".into()).spawn(run)?;
        self.events.connect(sender);
        Ok(Sender { endpoints, thread })
    }

    /// Ends it; what is there has a second to be delivered.
    pub(super) fn close(&self) {
        self.stop.cancel();
        if let Some(Sender { thread, .. }) = self.thread.lock().take() {
            // A panic of the thread's has been logged where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sending({})", self.thread.lock().is_some())
    }
}

/// Hands each event to the webhooks that want it, until it is told to stop.
async fn send(mut events: mpsc::Receiver<Event>, mut now: latest::Receiver<Vec<Endpoint>>, stop: CancellationToken) {
    let mut tasks = JoinSet::new();
    let mut queues = follow(Vec::new(), &now.borrow_and_update().clone(), &mut tasks, &stop);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Ok(()) = now.changed() => queues = follow(queues, &now.borrow_and_update().clone(), &mut tasks, &stop),
            Some(event) = events.recv() => hand_over(&queues, &event),
            else => break,
        }
        while tasks.try_join_next().is_some() {}
    }
    events.close();
    while let Ok(event) = events.try_recv() {
        hand_over(&queues, &event);
    }
    drop(queues);
    let delivered = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_WORDS, delivered).await.is_err() {
        tracing::warn!("webhooks were not told all: the gate ends");
    }
}

/// A queue for each webhook that has none, and none for those that are gone.
fn follow(
    mut before: Vec<Queue>,
    endpoints: &[Endpoint],
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Vec<Queue> {
    let mut queues = Vec::with_capacity(endpoints.len());
    for endpoint in endpoints {
        if let Some(place) = before.iter().position(|queue| queue.endpoint.is(endpoint)) {
            queues.push(before.swap_remove(place));
            continue;
        }
        let (sender, own) = mpsc::channel(QUEUE);
        let stop = stop.child_token();
        tasks.spawn(endpoint.clone().deliver_all(own, stop.clone()));
        queues.push(Queue { endpoint: endpoint.clone(), sender, stop });
    }
    before.iter().for_each(|gone| gone.stop.cancel());
    queues
}

fn hand_over(queues: &[Queue], event: &Event) {
    for Queue { endpoint, sender, .. } in queues.iter().filter(|queue| queue.endpoint.wants(event.kind)) {
        if sender.try_send(event.clone()).is_err() {
            endpoint.note_dropped();
        }
    }
}
