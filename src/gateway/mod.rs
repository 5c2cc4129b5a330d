//! The stack, composed.
//!
//! [`Gateway::builder`] makes it of plain settings, around reqwest or any HTTP service of yours; [`stack`] is what it is made
//! of, for those who share a layer's state between stacks.
//!
//! ```text
//!  http::Request
//!    │  Identify    the only door from HTTP; opens the receipt
//!    │  Compat      outside all that keeps or counts: what a client chokes on, mended last
//!    │  Cache       a hit ends here and costs nothing; twins in flight share one call
//!    │  Fallback    the next model of a chain, where one is gone, full or late after its retries
//!    │  Budget      reserves what the call may cost before it can; settles when the receipt is sealed
//!    │  Retry       what a retry can mend, within a budget; a client's deadline
//!    │  RateLimit   below the retries: every attempt takes a permit
//!    │  Meter       every attempt's usage and cost, read off the reply as it passes
//!    ▼
//!  Upstream         the vendor's API, or an AI Gateway
//! ```
//!
//! # Example
//! ```no_run
//! use tollgate::body::Body;
//! use tollgate::gateway::Gateway;
//! use tower::ServiceExt;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let gate = Gateway::builder().account("023e105f4ecef8ad9ca31a8372d0c353").token("<Workers AI API token>").build()?;
//! let request = http::Request::post("/v1/chat/completions");
//! let request = request.body(Body::from(r#"{"model": "@cf/meta/llama-3.2-1b-instruct", "messages": []}"#))?;
//! let reply = gate.oneshot(request).await?;
//! # Ok(()) }
//! ```
//!
//! # What it does not do
//! It spawns no task, opens no port and keeps no global state: two gateways in one process know nothing of each other.

mod builder;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower::{Layer, Service, ServiceBuilder};

pub use self::builder::{BuildError, Builder};
use crate::body::{Body, BoxError};
use crate::call::Call;

use crate::layers::Reply;
use crate::layers::budget::{Budget, BudgetLayer, Budgets};
use crate::layers::cache::{self, Cache, CacheLayer};
use crate::layers::compat::{Compat, CompatLayer};
use crate::layers::fallback::{Fallback, FallbackLayer};
use crate::layers::identify::{self, Identify, IdentifyLayer, ReplyBody};
use crate::layers::meter::{Meter, MeterLayer};
use crate::layers::rate_limit::{RateLimit, RateLimitLayer};
use crate::layers::retry::{Retry, RetryLayer};
use crate::preview::{Ahead, Foresee};
use crate::upstream::{Client, Target, Upstream};

/// The whole gate around an HTTP client: a service of HTTP requests, for axum, for hyper, or to be called by hand. Cloning
/// shares its state.
#[derive(Clone)]
pub struct Gateway<C = Client> {
    stack: Stack<C>,
    budgets: Arc<Budgets>,
}

/// All layers around an HTTP client.
pub type Stack<C> = Identify<Compat<Cache<Fallback<Held<C>>>>, Upstream<C>>;

/// One model's part of the stack: what a fallback goes through again.
pub type Held<C> = Budget<Retry<RateLimit<Meter<Upstream<C>>>>>;

/// How the layers of a stack are set.
#[derive(Clone)]
pub struct Settings {
    /// The door.
    pub identify: identify::Settings,
    /// What repeats are answered from. Its state is shared by every stack that is made with it.
    pub cache: CacheLayer,
    /// What may be spent. Its state is shared in the same way.
    pub budget: BudgetLayer,
    /// Retries, with the budgets that every stack made from these settings shares.
    pub retry: RetryLayer,
    /// Limits, with the permits that every stack made from these settings shares.
    pub rate_limit: RateLimitLayer,
}

impl Default for Settings {
    fn default() -> Self {
        let cache = CacheLayer::new(cache::Settings::default());
        Self {
            identify: identify::Settings::default(),
            cache,
            budget: BudgetLayer::default(),
            retry: RetryLayer::default(),
            rate_limit: RateLimitLayer::default(),
        }
    }
}

// === impl Gateway ===

impl Gateway {
    /// With good defaults, to be changed one by one.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl<C> Gateway<C> {
    /// What each budget has spent and reserved: [`Budgets::status`].
    pub fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// The gate itself, which is always ready: what waits, waits with the call. `tower::ServiceExt::ready` would have to be
    /// told what a request's body is.
    pub async fn ready(&mut self) -> Result<&mut Self, Infallible> {
        Ok(self)
    }
}

impl<C, B> Service<Request<B>> for Gateway<C>
where
    C: Service<Request<Body>, Response = Reply, Error = crate::Error> + Clone + Send + 'static,
    C::Future: Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        <Stack<C> as Service<Request<B>>>::poll_ready(&mut self.stack, cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.stack.call(request)
    }
}

impl<C> std::fmt::Debug for Gateway<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gateway")
    }
}

/// Stacks the layers upon a client.
pub fn stack<C: Clone>(client: C, target: Target, mut settings: Settings) -> Stack<C> {
    settings.identify.has_budgets |= settings.budget.can_refuse();
    settings.identify.has_gateway = target.gateway.is_some();
    settings.identify.ahead = Some(Arc::new(LooksAhead {
        cache: settings.cache.clone(),
        budget: settings.budget.clone(),
        rate_limit: settings.rate_limit.clone(),
    }));
    let upstream = Upstream::new(client, target);
    let catalogue = settings.identify.catalogue.clone();
    let mut compat = CompatLayer::new(settings.identify.openai);
    compat.memory = settings.identify.memory.clone();
    let batches = settings.identify.batches.clone();
    let meter = MeterLayer { memory: settings.identify.memory.clone(), catalogue: catalogue.clone(), batches };
    ServiceBuilder::new()
        .layer(IdentifyLayer::new(settings.identify, upstream.clone()))
        .layer(compat)
        .layer(settings.cache)
        .layer(FallbackLayer::new(catalogue))
        .layer(settings.budget)
        .layer(settings.retry)
        .layer(settings.rate_limit)
        .layer(meter)
        .into_inner()
        .layer(upstream)
}

/// What a call would meet in the layers of a stack.
struct LooksAhead {
    cache: CacheLayer,
    budget: BudgetLayer,
    rate_limit: RateLimitLayer,
}

impl Foresee for LooksAhead {
    fn foresee(&self, call: &Call) -> Ahead {
        let mut ahead = Ahead { cache: self.cache.foresee(call), ..Ahead::default() };
        self.budget.foresee(call, &mut ahead);
        ahead.limit = Some(self.rate_limit.foresee(call));
        ahead
    }
}
