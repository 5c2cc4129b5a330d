//! The thread that sends, and the queue of each webhook.

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch as latest};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::deliver::Endpoint;
use super::event::Event;
use super::events::Events;
use super::sign::Key;
use crate::sidecar::config::{ConfigError, Variables, Webhook, variable};
use crate::upstream::Road;

/// The thread that sends, where there is anybody to tell.
pub(in crate::sidecar) struct Sending {
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
        let from_variable = |name: &String| {
            let missing = || wrong(&format!("needs the variable {name}, which is not set"));
            variable(variables, name).map(str::to_owned).ok_or_else(missing)
        };
        let secret = match (&webhook.secret, &webhook.secret_env) {
            (Some(_), Some(_)) => return Err(wrong("has both `secret` and `secret_env`: leave one of them out")),
            (Some(secret), None) => Some(secret.reveal().to_owned()),
            (None, Some(name)) => Some(from_variable(name)?),
            (None, None) => None,
        };
        let key = secret.map(|secret| Key::read(&secret)).transpose().map_err(wrong)?;
        endpoints.push(Endpoint::new(name, webhook.clone(), webhook.url.uri().clone(), key, road)?);
    }
    Ok(endpoints)
}

// === impl Sending ===

impl Sending {
    /// Starts the thread, where there is anybody to tell.
    pub(in crate::sidecar) fn start(events: &Arc<Events>, endpoints: Vec<Endpoint>) -> std::io::Result<Self> {
        let this = Self { events: events.clone(), stop: CancellationToken::new(), thread: Mutex::default() };
        this.tell(endpoints)?;
        Ok(this)
    }

    /// Who is told from here on. One in which nothing has changed keeps what waits for it; what waits for one that goes is tried
    /// once more.
    pub(in crate::sidecar) fn tell(&self, endpoints: Vec<Endpoint>) -> std::io::Result<()> {
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
    pub(in crate::sidecar) fn close(&self) {
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
