//! The layers, in the order in which a call meets them.
//!
//! Each is a [`tower::Layer`] over any `Service<Call, Response = http::Response<Body>>` whose error becomes an [`Error`], and is
//! such a service itself; `Identify` alone is met by an HTTP request. A layer writes what it did on the call's receipt and knows
//! no other layer, so that each may stand alone, in another order, or with layers of tower's own between.
//!
//! # Layers of tower's between
//! `Timeout`, `LoadShed`, `ConcurrencyLimit`, `Buffer` and all else whose error is a [`BoxError`](crate::body::BoxError) may stand
//! anywhere below `Identify`. What a `Timeout` gives up is [`Error::Elapsed`]: it is charged all that was reserved if its
//! request had gone out, and nothing otherwise, wherever the `Timeout` stands above `Upstream`; above `Retry` it ends the call, below
//! it the attempt. What a `LoadShed` refuses is [`Error::Overloaded`].
//!
//! ```
//! use std::convert::Infallible;
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use http::Response;
//! use tollgate::body::Body;
//! use tollgate::call::{Call, Endpoint};
//! use tollgate::catalogue::{Catalogue, Task};
//! use tollgate::layers::{meter::MeterLayer, rate_limit::RateLimitLayer, retry::RetryLayer};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let catalogue = Arc::new(Catalogue::default());
//! let vendor = service_fn(|_: Call| async { Ok::<_, Infallible>(Response::new(Body::from("{}"))) });
//! let stack = ServiceBuilder::new()
//!     .timeout(Duration::from_secs(120)) // for the call, with all its attempts
//!     .layer(RetryLayer::default())
//!     .timeout(Duration::from_secs(30)) // for an attempt, with its wait for a permit
//!     .layer(RateLimitLayer::default())
//!     .load_shed()
//!     .concurrency_limit(64)
//!     .layer(MeterLayer::new(catalogue.clone()))
//!     .service(vendor);
//!
//! let model = catalogue.find("@cf/meta/llama-3.2-1b-instruct", Task::TextGeneration);
//! let call = Call::new("023e", model, Endpoint::Run, r#"{"prompt": "Hello"}"#).unwrap();
//! assert_eq!(stack.oneshot(call).await.unwrap().status(), 200);
//! # });
//! ```
//!
//! # What an order means
//! | | |
//! |---|---|
//! | `Meter` below all that decides | `Retry`, `Fallback` and `Cache` read what it made of the vendor's error, and see none without it |
//! | `Budget` above `Retry` | a lost attempt is paid before the next; below it, each attempt reserves by itself and nothing is paid twice |
//! | `Retry` above `RateLimit` | each attempt takes a permit; below it, retries go past the limit |
//! | `Cache` above `Budget` and `RateLimit` | a hit reserves nothing and takes no permit |
//! | `Meter` above `RateLimit` | the wait for a permit is told as waited, and not as upstream's time, in this order too |

pub mod budget;
pub mod cache;
pub mod compat;
pub mod fallback;
pub mod identify;
mod inner;
pub mod meter;
pub mod rate_limit;
pub mod retry;

use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use pin_project_lite::pin_project;

pub use self::inner::InnerFuture;
use crate::Error;
use crate::body::Body;

/// A reply, as it passes through the layers.
pub type Reply = Response<Body>;
/// What a layer's `call` returns.
pub type ReplyFuture = Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send>>;

pin_project! {
    /// What the `call` of a layer returns that has nothing to do with many calls: then it is the inner one's future, without
    /// a box around it.
    pub struct Relayed<F> {
        #[pin]
        future: Whose<F>,
    }
}

pin_project! {
    #[project = WhoseProjection]
    enum Whose<F> {
        Inner { #[pin] future: F },
        Own { future: ReplyFuture },
    }
}

#[cfg(test)]
pub(crate) mod testing;

// === impl Relayed ===

impl<F> Relayed<F> {
    fn inner(future: F) -> Self {
        Self { future: Whose::Inner { future } }
    }

    fn own(future: impl Future<Output = Result<Reply, Error>> + Send + 'static) -> Self {
        Self { future: Whose::Own { future: Box::pin(future) } }
    }
}

impl<F: Future<Output = Result<Reply, Error>>> Future for Relayed<F> {
    type Output = Result<Reply, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().future.project() {
            WhoseProjection::Inner { future } => future.poll(cx),
            WhoseProjection::Own { future } => future.as_mut().poll(cx),
        }
    }
}
