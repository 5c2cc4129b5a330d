//! A client's socket: it notes what is read, and fails where the client takes nothing of what is written.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::activity::{Activity, Version};
use super::transport::Transport;
use crate::pace::{Pace, Progress};

/// A connection to a client.
pub(super) struct Socket {
    stream: Transport,
    /// What was read to tell the version, until it has been read again.
    begun: [u8; HTTP2_HANDSHAKE],
    unread: std::ops::Range<usize>,
    activity: Arc<Activity>,
    pace: Pace,
    /// What is written lies here because the client does not take it.
    backlog: Option<Progress>,
    /// Made when a client is first waited for; most never are.
    timer: Option<Pin<Box<Sleep>>>,
}

/// HTTP/2's preface, and the head of the SETTINGS frame that always follows.
const HTTP2_HANDSHAKE: usize = 24 + 9;
/// HTTP/2 begins with this, and no method of HTTP/1.
const PREFACE: &[u8; 4] = b"PRI ";

impl Socket {
    /// Reads as much of a connection as tells its version. `None` where it ends before that.
    pub(super) async fn open(
        mut stream: Transport,
        activity: Arc<Activity>,
        pace: Pace,
    ) -> io::Result<Option<(Self, Version)>> {
        let mut begun = [0; HTTP2_HANDSHAKE];
        let mut length = 0;
        // What has begun as HTTP/2 is read to the end of its handshake, before the buffers of a connection are made for it.
        let version = loop {
            let seen = &begun[..length.min(PREFACE.len())];
            match (PREFACE.starts_with(seen), length) {
                (false, _) => break Version::Http1,
                (true, HTTP2_HANDSHAKE) => break Version::Http2,
                (true, _) => match stream.read(&mut begun[length..]).await? {
                    0 => return Ok(None),
                    read => length += read,
                },
            }
        };
        activity.speaks(version);
        let socket = Self { stream, begun, unread: 0..length, activity, pace, backlog: None, timer: None };
        Ok(Some((socket, version)))
    }

    /// The kernel has bytes of the client's.
    fn has_unread(&self) -> bool {
        let mut first = [std::mem::MaybeUninit::uninit()];
        socket2::SockRef::from(self.stream.tcp()).peek(&mut first).is_ok_and(|read| read > 0)
    }

    fn wrote(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                if let Some(backlog) = &mut self.backlog {
                    backlog.moved(bytes as u64);
                }
                Poll::Ready(Ok(bytes))
            }
            Poll::Pending => self.wait_for_reader(cx),
            failed => failed,
        }
    }

    fn wait_for_reader(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let backlog = self.backlog.get_or_insert_with(Progress::begin);
        let deadline = self.pace.deadline(backlog);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        std::task::ready!(timer.as_mut().poll(cx));
        // What the kernel still holds for it is let go of too.
        let _ = socket2::SockRef::from(self.stream.tcp()).set_linger(Some(std::time::Duration::ZERO));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client takes nothing of its reply ([timeouts] send)",
        )))
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // With what follows in the same piece: hyper makes room for a whole buffer after each read.
        let begun = self.unread.len().min(buf.remaining());
        let start = self.unread.start;
        buf.put_slice(&self.begun[start..start + begun]);
        self.unread.start += begun;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.read();
        } else if read.is_pending() && self.activity.is_to_look() {
            self.activity.looked(self.has_unread());
        }
        if begun > 0 { Poll::Ready(Ok(())) } else { read }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.wrote(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when it has written all that it had: when that has left, the client has caught up. TLS may still hold some.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Pending => self.wait_for_reader(cx).map_ok(|_| ()),
            flushed => {
                self.backlog = None;
                flushed
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
