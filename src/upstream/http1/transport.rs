//! TCP, TLS, or a way through a proxy.

use tokio::io::{AsyncRead, AsyncWrite};

/// What a connection runs over.
pub(in crate::upstream) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}
