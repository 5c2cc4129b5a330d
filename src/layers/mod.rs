//! The layers, in the order in which a call meets them.
//!
//! Each is a [`tower::Layer`] over any `Service<Call, Response = http::Response<Body>, Error = Error>`, and is one itself;
//! `Identify` alone is met by an HTTP request. A layer writes what it did on the call's receipt and knows no other layer.

pub mod budget;
pub mod cache;
pub mod compat;
pub mod fallback;
pub mod identify;
pub mod meter;
pub mod rate_limit;
pub mod retry;

use std::pin::Pin;

use http::Response;

use crate::Error;
use crate::body::Body;

/// A reply, as it passes through the layers.
pub type Reply = Response<Body>;
/// What a layer's `call` returns.
pub type ReplyFuture = Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send>>;

#[cfg(test)]
pub(crate) mod testing;
