//! Where a worker's calls come in: each takes the stack that is in force, and keeps it to its end.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use http::{Request, Response};
use tower::Service;

use super::entrance::{Answer, Entrance};
use crate::gateway::Stack;
use crate::layers::identify::ReplyBody;
use crate::upstream::pool::Pool;

/// All that a request goes through on a worker.
pub(super) type Way = Entrance<Stack<Pool>>;

/// One worker's door. Cloning shares it.
#[derive(Clone)]
pub(super) struct Door {
    way: Arc<ArcSwap<Way>>,
    pool: Pool,
}

// === impl Door ===

impl Door {
    /// `make` makes the way of a generation upon the worker's own connections.
    pub(super) fn new(pool: Pool, make: impl FnOnce(Pool) -> Way) -> Self {
        Self { way: Arc::new(ArcSwap::from_pointee(make(pool.clone()))), pool }
    }

    /// Who comes in from here on goes this way.
    pub(super) fn lead(&self, make: impl FnOnce(Pool) -> Way) {
        self.way.store(Arc::new(make(self.pool.clone())));
    }
}

impl<B> Service<Request<B>> for Door
where
    Way: Service<Request<B>, Response = Response<ReplyBody>, Error = Infallible, Future = Answer<AskedFuture>>,
{
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = Answer<AskedFuture>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The way is ready at any time, and which it is, is known with the request.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let way = self.way.load();
        Way::clone(&way).call(request)
    }
}

/// What [`Identify`](crate::layers::identify::Identify) answers with.
type AskedFuture = std::pin::Pin<Box<dyn Future<Output = Result<Response<ReplyBody>, Infallible>> + Send>>;
