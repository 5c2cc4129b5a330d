//! In the place of a client, where the crate is built without one.

use std::future::ready;
use std::task::{Context, Poll};

use http::Request;
use tower::Service;

use crate::Error;
use crate::body::Body;
use crate::layers::{Reply, ReplyFuture};

/// The client of a gate that is given none. Without the feature `reqwest` nobody can make one, and
/// [`build_around`](crate::gateway::Builder::build_around) takes yours.
#[derive(Clone, Debug)]
pub struct Client(());

impl Service<Request<Body>> for Client {
    type Response = Reply;
    type Error = Error;
    type Future = ReplyFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ReplyFuture {
        let Self(()) = self;
        let host = request.uri().authority().map_or_else(String::new, ToString::to_string);
        let why = "tollgate is built without the feature `reqwest`".into();
        Box::pin(ready(Err(Error::Unreachable { host, why, was_sent: false })))
    }
}
