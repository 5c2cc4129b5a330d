//! What a connection's bytes come on: TCP as it is, or TLS over it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

pin_project! {
    /// A client's connection. TLS has a box of its own, for its state is larger than all else of a silent connection.
    #[project = Projected]
    pub(super) enum Transport {
        Plain { #[pin] stream: TcpStream },
        Tls { #[pin] stream: Box<TlsStream<TcpStream>> },
    }
}

impl Transport {
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain { stream } => stream,
            Self::Tls { stream } => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.project() {
            Projected::Plain { stream } => stream.poll_read(cx, buf),
            Projected::Tls { stream } => stream.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.project() {
            Projected::Plain { stream } => stream.poll_write(cx, bytes),
            Projected::Tls { stream } => stream.poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.project() {
            Projected::Plain { stream } => stream.poll_write_vectored(cx, pieces),
            Projected::Tls { stream } => stream.poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain { stream } => stream.is_write_vectored(),
            Self::Tls { stream } => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.project() {
            Projected::Plain { stream } => stream.poll_flush(cx),
            Projected::Tls { stream } => stream.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.project() {
            Projected::Plain { stream } => stream.poll_shutdown(cx),
            Projected::Tls { stream } => stream.poll_shutdown(cx),
        }
    }
}
