//! The body of a reply: known bytes, or a stream that passes through.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;

use crate::departure::Departure;

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a reply's body ended early: upstream took too long over it.
#[derive(Debug, thiserror::Error)]
#[error("upstream took too long over its reply: {what} within {limit:?} ({setting})")]
#[non_exhaustive]
pub struct TooLong {
    /// What was waited for.
    pub what: &'static str,
    /// How long it was waited for.
    pub limit: std::time::Duration,
    /// What sets that.
    pub setting: &'static str,
}

/// A request's or a reply's body. Bytes that are known cost no box and no task; anything else is carried as it comes.
#[derive(Default)]
pub struct Body(Kind);

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Full(Bytes),
    /// A request's, which notes that it goes out when it is read.
    Outgoing(Bytes, Departure),
    /// Whoever polls it has it alone; the lock is what lets threads share it, as some clients want.
    Stream(Mutex<Stream>),
}

type Stream = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError> + Send>>;

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// Carries a body as its frames come.
    pub fn stream<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Kind::Stream(Mutex::new(Box::pin(http_body_util::BodyExt::map_err(body, Into::into)))))
    }

    /// A request's body that notes on `departure` when it is read for the first time; until then the request is held.
    pub fn outgoing(bytes: Bytes, departure: Departure) -> Self {
        departure.hold();
        Self(Kind::Outgoing(bytes, departure))
    }

    /// What an [`outgoing`](Self::outgoing) body notes on.
    pub fn departure(&self) -> Option<&Departure> {
        match &self.0 {
            Kind::Outgoing(_, departure) => Some(departure),
            Kind::Empty | Kind::Full(_) | Kind::Stream(_) => None,
        }
    }

    /// The request is handed to a client or to a connection: an outgoing body without bytes, which nobody will read, notes it.
    pub(crate) fn note_handed_over(&self) {
        if let Kind::Outgoing(bytes, departure) = &self.0
            && bytes.is_empty()
        {
            departure.note();
        }
    }

    /// The bytes, where they are all here already. An [`outgoing`](Self::outgoing) body gives them only to those who read it.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match &self.0 {
            Kind::Full(bytes) => Some(bytes),
            Kind::Empty | Kind::Outgoing(..) | Kind::Stream(_) => None,
        }
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() { Self::empty() } else { Self(Kind::Full(bytes)) }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Empty => f.write_str("Body(empty)"),
            Kind::Full(bytes) | Kind::Outgoing(bytes, _) => write!(f, "Body({} bytes)", bytes.len()),
            Kind::Stream(_) => f.write_str("Body(stream)"),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Outgoing(bytes, departure) => {
                departure.note();
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Kind::Stream(stream) => stream.get_mut().as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Full(bytes) | Kind::Outgoing(bytes, _) => bytes.is_empty(),
            Kind::Stream(stream) => stream.lock().is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) | Kind::Outgoing(bytes, _) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(stream) => stream.lock().size_hint(),
        }
    }
}
