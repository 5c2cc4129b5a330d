//! The gate before the simulator, in one process, a call at a time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use tollgate::body::Body;
use tollgate::catalogue::{Catalogue, Limit};
use tollgate::gateway::{Builder, Gateway};
use tollgate::layers::{cache, rate_limit, retry};
use tollgate::neurons::Neurons;
use tollgate::receipt::{Facts, Outcome, Reader};
use tollgate::simulator::{self, Coercion, Running, Seen, Settings, Writes};
use tollgate::upstream::Client;
use tower::ServiceExt;

use crate::requests::Asked;

/// What came of one call through the gate.
pub struct Came {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The reply's body; `None` where it broke off.
    pub body: Option<Bytes>,
    pub facts: Facts,
    /// The request as it arrived at the vendor, if it did.
    pub arrived: Option<Seen>,
    /// What the vendor charged for it.
    pub charged: Neurons,
}

impl Came {
    /// The most that the gate thought the call may cost; `None` where it said that nothing bounds it, or measured nothing.
    pub fn upper(&self) -> Option<Neurons> {
        self.facts.estimate.and_then(|estimate| estimate.upper)
    }
}

/// What came of a list of steps.
pub struct ToldList {
    pub status: StatusCode,
    pub step: Option<usize>,
    pub body: Option<Bytes>,
    pub charged: Neurons,
    /// The outcomes of the steps that were calls, and what they cost together.
    pub outcomes: Vec<Outcome>,
    pub cost: Neurons,
}

pub struct World {
    vendor: Running,
    /// Cloned, with a catalogue of its own, for each call: what the gate learns of one call is not to help or harm the next.
    gate: Builder,
    arrived: Arc<Mutex<Option<Seen>>>,
    sealed: Arc<Sealed>,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

#[derive(Default)]
struct Sealed(Mutex<Vec<Facts>>);

impl Reader for Sealed {
    fn sealed(&self, facts: &Facts) {
        self.0.lock().unwrap().push(facts.clone());
    }
}

impl World {
    /// With a vendor that writes and reads figures in these ways, and a gate that keeps nothing and tries once.
    pub fn new(writes: Writes, coercion: Coercion) -> Self {
        Self::with_cache(writes, coercion, Duration::ZERO)
    }

    pub fn with_cache(writes: Writes, coercion: Coercion, ttl: Duration) -> Self {
        let mut settings = Settings::default();
        (settings.latency, settings.rate_limits) = (0.0, false);
        (settings.writes, settings.coercion) = (writes, coercion);
        let vendor = simulator::start(settings).unwrap();
        let arrived = Arc::new(Mutex::new(None));
        let latest = arrived.clone();
        vendor.tap(move |seen| *latest.lock().unwrap() = Some(seen.clone()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sealed = Arc::new(Sealed::default());
        let gate = gate(&vendor.base_url(), sealed.clone(), ttl);
        Self { vendor, gate, arrived, sealed, client: Client::new().unwrap(), runtime }
    }

    /// Asks through the gate, and reads the reply to its end.
    pub fn ask(&self, asked: &Asked, headers: &[(&str, &str)]) -> Came {
        self.ask_by(&self.gate(), asked, headers)
    }

    /// A gate that knows nothing yet.
    pub fn gate(&self) -> Gateway<Client> {
        self.gate.clone().build_around(self.client.clone()).unwrap()
    }

    /// A list of steps, which are as many calls as were asked.
    pub fn ask_list(&self, asked: &Asked) -> ToldList {
        let before = self.vendor.counts().neurons();
        self.runtime.block_on(async {
            let reply = self.gate().oneshot(request(asked, &[])).await.unwrap();
            let (head, body) = reply.into_parts();
            let body = body.collect().await.ok().map(|body| body.to_bytes());
            let calls = std::mem::take(&mut *self.sealed.0.lock().unwrap());
            ToldList {
                status: head.status,
                step: head.headers.get("cf-aig-step").and_then(|step| step.to_str().ok()?.parse().ok()),
                body,
                charged: self.vendor.counts().neurons().saturating_sub(before),
                outcomes: calls.iter().map(|facts| facts.outcome).collect(),
                cost: calls.iter().map(|facts| facts.cost.neurons).sum(),
            }
        })
    }

    /// The requests that arrived at the vendor so far.
    pub fn seen(&self) -> usize {
        self.vendor.seen().len()
    }

    pub fn ask_by(&self, gate: &Gateway<Client>, asked: &Asked, headers: &[(&str, &str)]) -> Came {
        let before = self.vendor.counts().neurons();
        self.arrived.lock().unwrap().take();
        self.runtime.block_on(async {
            let reply = gate.clone().oneshot(request(asked, headers)).await.unwrap();
            let (head, body) = reply.into_parts();
            let body = body.collect().await.ok().map(|body| body.to_bytes());
            let facts = std::mem::take(&mut *self.sealed.0.lock().unwrap()).pop();
            let facts = facts.expect("the receipt is sealed with the reply's end");
            let charged = self.vendor.counts().neurons().saturating_sub(before);
            let arrived = self.arrived.lock().unwrap().take();
            Came { status: head.status, headers: head.headers, body, facts, arrived, charged }
        })
    }

    /// The same, straight to the vendor: the reply's status and body.
    pub fn ask_vendor(&self, asked: &Asked, headers: &[(&str, &str)]) -> (StatusCode, Option<Bytes>) {
        let path = match asked.path.strip_prefix("/run/") {
            Some(model) => format!("/client/v4/accounts/acc/ai/run/{model}"),
            None => asked.path.clone(),
        };
        let asked = Asked { path: format!("{}{path}", self.vendor.base_url()), ..asked.clone() };
        self.runtime.block_on(async {
            let reply = self.client.clone().oneshot(request(&asked, headers)).await.unwrap();
            let status = reply.status();
            (status, reply.into_body().collect().await.ok().map(|body| body.to_bytes()))
        })
    }
}

fn gate(upstream: &str, sealed: Arc<Sealed>, ttl: Duration) -> Builder {
    let mut limits = rate_limit::Settings::default();
    for model in Catalogue::default().models() {
        let mut quota = rate_limit::Quota::default();
        quota.requests = Some(Limit::a_minute(u32::MAX));
        limits.models.insert(model.id.to_string(), quota);
    }
    let mut retry = retry::Settings::default();
    retry.max_attempts = 1;
    let mut cache = cache::Settings::default();
    cache.ttl = ttl;
    let builder =
        Gateway::builder().account("acc").token("t").base_url(upstream).limits(limits).retry(retry).cache(cache);
    builder.reader(sealed)
}

fn request(asked: &Asked, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::post(&asked.path).header("authorization", "Bearer t");
    if let Some(kind) = &asked.content_type {
        request = request.header("content-type", kind);
    }
    if let Some(coding) = asked.content_encoding {
        request = request.header("content-encoding", coding);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(Bytes::from(asked.body.clone()))).unwrap()
}
