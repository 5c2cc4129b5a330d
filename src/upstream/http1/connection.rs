//! A connection, and the exchange that is on it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;

use super::broken::Broken;
use super::framing::Framing;
use super::head::Head;
use super::outgoing::Outgoing;
use super::part::Part;
use super::transport::Transport;
use crate::body::Body;

/// A connection that stands.
pub(in crate::upstream) struct Connection {
    transport: Box<dyn Transport>,
    /// What has come and nobody has taken yet; without a buffer where that is nothing.
    unread: BytesMut,
    /// Its place among all connections to upstream.
    place: OwnedSemaphorePermit,
}

/// The rest of an exchange, once the reply's head is here.
pub(in crate::upstream) struct Incoming {
    connection: Connection,
    framing: Framing,
    /// The connection may carry another request afterwards.
    keeps_open: bool,
    /// What of the request is still to be written, where upstream answered before all of it was.
    outgoing: Option<Outgoing>,
}

/// A head that is longer than this is no head. The vendor's are some 1 KiB.
pub(super) const MAX_HEAD_BYTES: usize = 64 * 1024;
/// What is read at once.
const READ_BYTES: usize = 32 * 1024;

thread_local! {
    /// What every connection of this thread reads into.
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

// === impl Connection ===

impl Connection {
    pub(in crate::upstream) fn new(transport: Box<dyn Transport>, place: OwnedSemaphorePermit) -> Self {
        Self { transport, unread: BytesMut::new(), place }
    }

    /// Whether upstream has kept it open, and has said nothing that nobody asked for.
    pub(in crate::upstream) fn is_open(&mut self) -> bool {
        let (mut cx, mut byte) = (Context::from_waker(Waker::noop()), [0]);
        let read = Pin::new(&mut self.transport).poll_read(&mut cx, &mut ReadBuf::new(&mut byte));
        self.unread.is_empty() && read.is_pending()
    }

    /// Closes it for another that takes its place.
    pub(in crate::upstream) fn into_place(self) -> OwnedSemaphorePermit {
        self.place
    }

    /// Sends a request, and waits for its reply's head.
    pub(in crate::upstream) async fn send(mut self, request: Request<Body>) -> Result<Response<Incoming>, Broken> {
        let method = request.method().clone();
        let mut outgoing = Some(Outgoing::new(request));
        let head = poll_fn(|cx| self.poll_head(&mut outgoing, &method, cx)).await?;
        let Head { reply, framing, keeps_open } = head;
        Ok(reply.map(|()| Incoming { connection: self, framing, keeps_open, outgoing }))
    }

    fn poll_head(
        &mut self,
        outgoing: &mut Option<Outgoing>,
        method: &Method,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Head, Broken>> {
        self.write_on(outgoing, cx)?;
        loop {
            while let Some(head) = Head::parse(&mut self.unread, method)? {
                if !head.reply.status().is_informational() {
                    return Poll::Ready(Ok(head));
                }
            }
            if self.unread.len() > MAX_HEAD_BYTES {
                return Poll::Ready(Err(Broken::Malformed("its head does not end")));
            }
            let read = ready!(self.poll_fill(cx));
            // Where it could not be written, that is why there is no reply.
            if let (Ok(0) | Err(_), Some(error)) = (&read, outgoing.as_mut().and_then(Outgoing::take_error)) {
                return Poll::Ready(Err(error.into()));
            }
            if read? == 0 {
                return Poll::Ready(Err(Broken::Closed));
            }
        }
    }

    /// Writes what can be written of a request, which is `None` once all of it is. Upstream may say why it takes no more, so that
    /// an error of the connection is told where no reply comes.
    fn write_on(&mut self, outgoing: &mut Option<Outgoing>, cx: &mut Context<'_>) -> Result<(), Broken> {
        if let Some(unwritten) = outgoing
            && let Poll::Ready(()) = unwritten.poll_write(&mut self.transport, cx)?
        {
            *outgoing = None;
        }
        Ok(())
    }

    /// Reads more into `unread`: how much came, 0 at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        READ.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.transport).poll_read(cx, &mut read))?;
            self.unread.extend_from_slice(read.filled());
            Poll::Ready(Ok(read.filled().len()))
        })
    }
}

// === impl Incoming ===

impl Incoming {
    /// The connection, where all is read and written and it can carry another request.
    pub(in crate::upstream) fn into_reusable(self) -> Option<Connection> {
        let is_clean = self.keeps_open && self.outgoing.is_none() && self.framing.is_over();
        (is_clean && self.connection.unread.is_empty()).then_some(self.connection)
    }

    pub(in crate::upstream) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.connection.write_on(&mut self.outgoing, cx)?;
        loop {
            match self.framing.take(&mut self.connection.unread)? {
                Part::Data(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Part::Trailers(trailers) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Part::End => return Poll::Ready(None),
                Part::Incomplete => {}
            }
            if ready!(self.connection.poll_fill(cx))? == 0 {
                return Poll::Ready(self.framing.close().err().map(Err));
            }
        }
    }

    /// What it keeps of memory beyond itself.
    #[cfg(test)]
    pub(super) fn buffer_bytes(&self) -> usize {
        self.connection.unread.capacity()
    }

    pub(in crate::upstream) fn is_over(&self) -> bool {
        self.framing.is_over()
    }

    pub(in crate::upstream) fn size_hint(&self) -> SizeHint {
        self.framing.size_hint()
    }
}
