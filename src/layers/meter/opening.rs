//! A reply's beginning, which is held back for a while: until it is known how the reply begins, or what it cost.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use tokio::time::{Instant, timeout_at};

use crate::body::{Body, BoxError};
use crate::memory::{Memory, SMALL_BYTES, Share};
use crate::receipt::Ending;
use crate::reply::Reader;

/// The beginning of a body, and the rest of it.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) begun: VecDeque<Bytes>,
    pub(super) rest: Body,
    /// The beginning is all there is.
    pub(super) is_whole: bool,
    /// Of the memory for what is held back, where it is much.
    share: Option<Share>,
}

/// A JSON reply up to this size is taken in before it is handed on.
const WHOLE_BYTES: usize = 256 * 1024;
/// How far an opening stream is searched for its first word, and an error's body for its code.
const OPENING_BYTES: usize = 64 * 1024;
/// How long a stream's head, and what came without a word of an answer, may be held back.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

impl Opening {
    /// Takes in the body of an error, as far as its code may stand.
    pub(super) async fn of_error(mut body: Body) -> Result<Self, BoxError> {
        let (mut begun, mut length) = (VecDeque::new(), 0);
        while length <= OPENING_BYTES {
            let Some(bytes) = next(&mut body).await? else {
                return Ok(Self { begun, rest: Body::empty(), is_whole: true, share: None });
            };
            length += bytes.len();
            begun.push_back(bytes);
        }
        Ok(Self { begun, rest: body, is_whole: false, share: None })
    }

    /// Takes in a body and reads it, as long as the reply may still be another one and there is memory to hold it: a document to
    /// its end, a stream until it has said something or has failed, for `patience` at most.
    pub(super) async fn of_answer(
        mut body: Body,
        reader: &mut Reader,
        patience: Option<Duration>,
        memory: &Memory,
    ) -> Result<Self, BoxError> {
        let until = patience.map(|patience| Instant::now() + patience);
        let (mut begun, mut length, mut share) = (VecDeque::new(), 0, None);
        loop {
            let taken = match until {
                None => next(&mut body).await?,
                Some(until) => match timeout_at(until, next(&mut body)).await {
                    Ok(taken) => taken?,
                    Err(_) => return Ok(Self { begun, rest: body, is_whole: false, share }),
                },
            };
            let is_whole = taken.is_none() || body.is_end_stream();
            if let Some(bytes) = taken {
                reader.push(&bytes);
                length += bytes.len();
                begun.push_back(bytes);
            }
            if is_whole {
                reader.finish();
                return Ok(Self { begun, rest: Body::empty(), is_whole, share });
            }
            if length > SMALL_BYTES as usize && share.is_none() {
                share = memory.try_take(WHOLE_BYTES as u64);
            }
            let has_room = length <= SMALL_BYTES as usize || share.is_some();
            if !has_room || !wants_more(reader, length) {
                return Ok(Self { begun, rest: body, is_whole, share });
            }
        }
    }

    /// All of a body that is whole.
    pub(super) fn into_bytes(self) -> Bytes {
        let bytes = self.bytes();
        match self.share {
            Some(share) => share.hold(bytes),
            None => bytes,
        }
    }

    /// What is here, in one piece; most bodies are.
    pub(super) fn bytes(&self) -> Bytes {
        match self.begun.len() {
            0 => Bytes::new(),
            1 => self.begun[0].clone(),
            _ => {
                let mut whole = BytesMut::new();
                self.begun.iter().for_each(|bytes| whole.extend_from_slice(bytes));
                whole.freeze()
            }
        }
    }
}

fn wants_more(reader: &Reader, length: usize) -> bool {
    match reader.ending() {
        Ending::Open if reader.is_document() => length <= WHOLE_BYTES,
        Ending::Open => reader.is_readable() && !reader.has_told() && length <= OPENING_BYTES,
        _ => false,
    }
}

/// The next piece of a body that has data.
async fn next(body: &mut Body) -> Result<Option<Bytes>, BoxError> {
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
        if let Ok(bytes) = frame?.into_data() {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}
