//! How an exchange fails.

use std::io;

use crate::body::BoxError;

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::upstream) enum Broken {
    #[error("the connection was closed before the reply was complete")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the reply is no HTTP/1.1: {0}")]
    Malformed(&'static str),
    #[error("the request's body broke off: {0}")]
    Request(BoxError),
}
