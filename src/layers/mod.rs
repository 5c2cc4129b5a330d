//! The layers, in the order in which a call meets them.
//!
//! Each is a [`tower::Layer`] over any `Service<Call, Response = http::Response<Body>, Error = Error>`, and is one itself;
//! `Identify` alone is met by an HTTP request. A layer writes what it did on the call's receipt and knows no other layer, so
//! that each may stand alone, in another order, or with layers of tower's own between.

pub mod budget;
pub mod cache;
pub mod compat;
pub mod fallback;
pub mod identify;
pub mod meter;
pub mod rate_limit;
pub mod retry;

use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use pin_project_lite::pin_project;

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
