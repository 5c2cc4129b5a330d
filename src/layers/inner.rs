//! The service below a layer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::Reply;
use crate::Error;
use crate::call::Call;

/// A service of calls whose error becomes the gate's own, so that layers of tower's may stand between the gate's. Where it is
/// the gate's own already, nothing is done.
#[derive(Clone, Debug)]
pub(crate) struct Inner<S>(pub(crate) S);

pin_project! {
    /// The reply of an [`Inner`].
    #[derive(Debug)]
    pub struct InnerFuture<F> {
        #[pin]
        future: F,
    }
}

impl<S> Service<Call> for Inner<S>
where
    S: Service<Call, Response = Reply>,
    S::Error: Into<Error>,
{
    type Response = Reply;
    type Error = Error;
    type Future = InnerFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        InnerFuture { future: self.0.call(call) }
    }
}

impl<F, E> Future for InnerFuture<F>
where
    F: Future<Output = Result<Reply, E>>,
    E: Into<Error>,
{
    type Output = Result<Reply, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(ready!(self.project().future.poll(cx)).map_err(Into::into))
    }
}

/// How a layer's service gives what it stands upon.
macro_rules! access {
    ($($service:ident),+) => {$(
        impl<S> $service<S> {
            /// The service below.
            pub fn get_ref(&self) -> &S {
                &self.inner.0
            }

            /// The service below.
            pub fn get_mut(&mut self) -> &mut S {
                &mut self.inner.0
            }

            /// The service below, without this layer.
            pub fn into_inner(self) -> S {
                self.inner.0
            }
        }
    )+};
}
pub(crate) use access;
