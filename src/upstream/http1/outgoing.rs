//! A request on its way out.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::Request;
use http_body::Body as _;
use tokio::io::AsyncWrite;

use super::broken::Broken;
use super::head::{self, Sent};
use super::transport::Transport;
use crate::body::Body;

/// What of a request is not written yet. Its body is read when it is written, and not before.
pub(super) struct Outgoing {
    /// Written first.
    head: BytesMut,
    /// Written after that.
    data: Bytes,
    body: Body,
    sent: Sent,
    /// A chunk's line is still to be ended.
    is_in_chunk: bool,
    is_read: bool,
    /// The connection takes no more.
    failed: Option<io::Error>,
}

impl Outgoing {
    pub(super) fn new(request: Request<Body>) -> Self {
        let (head, sent) = head::write(&request, request.body().size_hint().exact());
        Self {
            head,
            data: Bytes::new(),
            body: request.into_body(),
            sent,
            is_in_chunk: false,
            is_read: false,
            failed: None,
        }
    }

    /// Why the connection took no more, told once.
    pub(super) fn take_error(&mut self) -> Option<io::Error> {
        self.failed.take()
    }

    /// Writes as much as can be written; ready once that is all. Where the connection takes no more, it stays pending.
    pub(super) fn poll_write(
        &mut self,
        transport: &mut Box<dyn Transport>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        if self.failed.is_some() {
            return Poll::Pending;
        }
        let mut transport = Pin::new(transport);
        loop {
            let waits = self.read_body(cx)?;
            let is_written = self.head.is_empty() && self.data.is_empty();
            let polled = match is_written {
                true => transport.as_mut().poll_flush(cx).map_ok(|()| 0),
                false => {
                    let parts = [IoSlice::new(&self.head), IoSlice::new(&self.data)];
                    transport.as_mut().poll_write_vectored(cx, &parts)
                }
            };
            match ready!(polled) {
                Ok(_) if is_written && self.is_read => return Poll::Ready(Ok(())),
                Ok(_) if is_written && waits => return Poll::Pending,
                Ok(0) if !is_written => return self.fail(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.advance(written),
                Err(error) => return self.fail(error),
            }
        }
    }

    fn fail(&mut self, error: io::Error) -> Poll<Result<(), Broken>> {
        self.failed = Some(error);
        Poll::Pending
    }

    fn advance(&mut self, written: usize) {
        let of_head = written.min(self.head.len());
        self.head.advance(of_head);
        self.data.advance(written - of_head);
    }

    /// Reads the body's next piece where the one before is written. True where it has to be waited for.
    fn read_body(&mut self, cx: &mut Context<'_>) -> Result<bool, Broken> {
        while self.data.is_empty() && !self.is_read {
            let Poll::Ready(piece) = Pin::new(&mut self.body).poll_frame(cx) else { return Ok(true) };
            match piece {
                Some(piece) => {
                    if let Ok(data) = piece.map_err(Broken::Request)?.into_data() {
                        self.put(data)?;
                    }
                }
                None => self.end()?,
            }
        }
        Ok(false)
    }

    fn put(&mut self, data: Bytes) -> Result<(), Broken> {
        match &mut self.sent {
            Sent::Length(left) => {
                let longer = || Broken::Request("it is longer than its content-length".into());
                *left = left.checked_sub(data.len() as u64).ok_or_else(longer)?;
                self.data = data;
                // Nothing is left to be read, whose end may be long in coming.
                self.is_read = *left == 0 && self.body.is_end_stream();
            }
            // An empty chunk would be the last.
            Sent::Chunked if data.is_empty() => {}
            Sent::Chunked => {
                self.end_chunk();
                let _ = write!((&mut self.head).writer(), "{:x}\r\n", data.len());
                (self.data, self.is_in_chunk) = (data, true);
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Broken> {
        self.is_read = true;
        match self.sent {
            Sent::Length(0) => Ok(()),
            Sent::Length(_) => Err(Broken::Request("it is shorter than its content-length".into())),
            Sent::Chunked => {
                self.end_chunk();
                self.head.put_slice(b"0\r\n\r\n");
                Ok(())
            }
        }
    }

    fn end_chunk(&mut self) {
        if std::mem::take(&mut self.is_in_chunk) {
            self.head.put_slice(b"\r\n");
        }
    }
}
