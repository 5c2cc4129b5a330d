//! One call upstream, read by everyone who asked for the same at the same time.
//!
//! Nobody owns it: whoever of its passengers is polled drives it on, and the rest are woken to read along. So it goes on when
//! the one who began it leaves, and ends when the last one does.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http::response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;

use super::record::{Piece, Record};
use crate::Error;
use crate::body::{Body, BoxError};
use crate::layers::{Reply, ReplyFuture};
use crate::neurons::Neurons;
use crate::receipt::{Ending, Receipt};

/// See the [module](self).
pub(super) struct Flight {
    state: Mutex<State>,
    waiting: Arc<Waiting>,
    /// What becomes of a reply that came in whole.
    keep: Box<dyn Fn(&Arrived) + Send + Sync>,
}

struct State {
    phase: Phase,
    /// What came so far.
    record: Record,
    /// The receipt that the call is paid on, until it is over.
    payer: Option<Receipt>,
    paid: Paid,
}

/// What came of a call, when it is over.
#[derive(Clone, Copy, Default)]
struct Paid {
    cost: Neurons,
    ending: Ending,
}

enum Phase {
    Calling(ReplyFuture),
    Open(Arc<response::Parts>, Body),
    Over(Arc<response::Parts>, Over),
    Failed(Error),
    /// What it stands on is being polled. Who finds it so comes after a poll that panicked.
    Polled,
}

#[derive(Clone)]
enum Over {
    /// Here in one piece.
    Whole(Bytes),
    /// All of it was seen, not all of it is here.
    Passed,
    Broken(Arc<str>),
}

/// A reply that came in whole.
pub(super) struct Arrived {
    pub(super) head: Arc<response::Parts>,
    pub(super) body: Bytes,
    pub(super) cost: Neurons,
    /// How the reply ended, where somebody has read it.
    pub(super) ending: Ending,
    /// The model that answered.
    pub(super) model: Arc<str>,
}

/// Who waits for the next piece.
#[derive(Default)]
struct Waiting(Mutex<Vec<Waker>>);

/// Wakes them where a poll panics: nobody else would tell them.
struct WakingInPanic<'a>(&'a Arc<Waiting>);

/// Someone's place on a flight, once its head is known.
pub(super) struct Seat {
    flight: Arc<Flight>,
    at: u64,
    over: bool,
    /// Told what it saved, where it is not the payer's.
    rider: Option<Receipt>,
}

#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("{0}")]
    Broken(Arc<str>),
    #[error("read too slowly: the others on this call are too far ahead")]
    Behind,
}

/// The most that is copied to a passenger in one piece.
const PANICKED: &str = "the call that this one shared was given up: the service that it was made to panicked";
const PIECE_BYTES: usize = 64 * 1024;

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let wakers = std::mem::take(&mut *self.0.lock());
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Drop for WakingInPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.wake_by_ref();
        }
    }
}

impl Waiting {
    fn register(&self, waker: &Waker) {
        let mut wakers = self.0.lock();
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }
}

// === impl Flight ===

impl Flight {
    pub(super) fn new(
        call: ReplyFuture,
        payer: Receipt,
        record: Record,
        keep: impl Fn(&Arrived) + Send + Sync + 'static,
    ) -> Self {
        let state = State { phase: Phase::Calling(call), record, payer: Some(payer), paid: Paid::default() };
        Self { state: Mutex::new(state), waiting: Arc::default(), keep: Box::new(keep) }
    }

    /// Whether there is still a beginning to read from, of what may be an answer.
    pub(super) fn can_be_joined(&self) -> bool {
        let state = self.state.lock();
        let may_be_answer = |ending| matches!(ending, Ending::Open | Ending::Answer);
        state.record.is_whole()
            && match &state.phase {
                Phase::Calling(_) => true,
                Phase::Open(..) => {
                    state.payer.as_ref().is_none_or(|payer| may_be_answer(payer.read(|facts| facts.ending)))
                }
                Phase::Over(head, Over::Whole(_)) => head.status.is_success() && may_be_answer(state.paid.ending),
                Phase::Over(..) | Phase::Failed(_) | Phase::Polled => false,
            }
    }

    /// The reply's head, when it is here.
    pub(super) fn poll_head(&self, cx: &mut Context<'_>) -> Poll<Result<Arc<response::Parts>, Error>> {
        let _waking = WakingInPanic(&self.waiting);
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Calling(_))
            && let Phase::Calling(mut call) = state.polled()
        {
            self.waiting.register(cx.waker());
            let waker = Waker::from(self.waiting.clone());
            state.phase = match call.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Pending => {
                    state.phase = Phase::Calling(call);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(reply)) => opened(reply),
                Poll::Ready(Err(error)) => Phase::Failed(error),
            };
            let paid = match &state.phase {
                Phase::Over(head, Over::Whole(body)) => {
                    let (head, body) = (head.clone(), body.clone());
                    state.paid(|paid, model| (self.keep)(&Arrived::new(head, body, paid, model)))
                }
                Phase::Failed(_) => state.payer.take(),
                _ => None,
            };
            drop(state);
            // The last handle of a receipt seals it, which is no work for within a lock.
            drop(paid);
            self.waiting.wake_by_ref();
            return self.poll_head(cx);
        }
        Poll::Ready(match &state.phase {
            Phase::Open(head, _) | Phase::Over(head, _) => Ok(head.clone()),
            Phase::Failed(error) => Err(error.clone()),
            Phase::Polled => Err(Error::Unavailable(PANICKED.to_owned())),
            // The branch above has left this phase.
            Phase::Calling(_) => return Poll::Pending,
        })
    }

    /// The reply with its body from the beginning. `rider` is the receipt of one who does not pay.
    pub(super) fn reply(self: Arc<Self>, head: &response::Parts, rider: Option<Receipt>) -> Reply {
        let whole = {
            let state = self.state.lock();
            match &state.phase {
                Phase::Over(_, Over::Whole(body)) => Some((body.clone(), state.paid)),
                _ => None,
            }
        };
        let body = match whole {
            Some((body, paid)) => {
                rider.inspect(|rider| paid.tell(rider));
                Body::from(body)
            }
            None => Body::stream(Seat { flight: self, at: 0, over: false, rider }),
        };
        let mut reply = Reply::new(body);
        *reply.status_mut() = head.status;
        *reply.version_mut() = head.version;
        *reply.headers_mut() = head.headers.clone();
        *reply.extensions_mut() = head.extensions.clone();
        reply
    }

    /// The piece that stands at `at`.
    fn poll_piece(&self, at: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Lost>>> {
        let _waking = WakingInPanic(&self.waiting);
        let mut state = self.state.lock();
        match state.record.piece(at, PIECE_BYTES) {
            Piece::Gone => return Poll::Ready(Some(Err(Lost::Behind))),
            Piece::Here(bytes) => return Poll::Ready(Some(Ok(Bytes::copy_from_slice(bytes)))),
            Piece::ToCome => {}
        }
        let (head, mut body) = match state.polled() {
            Phase::Open(head, body) => (head, body),
            Phase::Polled => return Poll::Ready(Some(Err(Lost::Broken(PANICKED.into())))),
            over => {
                let broken = match &over {
                    Phase::Over(_, Over::Broken(why)) => Some(Err(Lost::Broken(why.clone()))),
                    _ => None,
                };
                state.phase = over;
                return Poll::Ready(broken);
            }
        };
        self.waiting.register(cx.waker());
        let waker = Waker::from(self.waiting.clone());
        let Poll::Ready(polled) = Pin::new(&mut body).poll_frame(&mut Context::from_waker(&waker)) else {
            state.phase = Phase::Open(head, body);
            return Poll::Pending;
        };
        // A server that knows the length asks for no more after the last byte.
        let is_last = body.is_end_stream();
        state.phase = Phase::Open(head.clone(), body);
        let (piece, paid) = match polled {
            Some(Ok(frame)) => {
                let bytes = frame.into_data().unwrap_or_default();
                state.record.push(&bytes);
                let paid = if is_last { self.land(&mut state, head) } else { None };
                (Some(Ok(bytes)), paid)
            }
            Some(Err(error)) => {
                let why: Arc<str> = error.to_string().into();
                state.phase = Phase::Over(head, Over::Broken(why.clone()));
                (Some(Err(Lost::Broken(why))), state.paid(|_, _| {}))
            }
            None => (None, self.land(&mut state, head)),
        };
        drop(state);
        drop(paid);
        self.waiting.wake_by_ref();
        Poll::Ready(piece)
    }

    /// Where nothing comes after `at`, what came of the call.
    fn is_over(&self, at: u64) -> Option<Paid> {
        let state = self.state.lock();
        let is_read = at == state.record.end();
        (is_read && matches!(state.phase, Phase::Over(_, Over::Whole(_) | Over::Passed))).then_some(state.paid)
    }

    fn land(&self, state: &mut State, head: Arc<response::Parts>) -> Option<Receipt> {
        // The body's drop settles the call's cost, so it goes before the reply is kept with it.
        state.phase = Phase::Over(head.clone(), Over::Passed);
        let Some(whole) = state.record.whole() else { return state.paid(|_, _| {}) };
        let body = Bytes::copy_from_slice(whole);
        state.paid(|paid, model| (self.keep)(&Arrived::new(head, body, paid, model)))
    }
}

fn opened(reply: Reply) -> Phase {
    let (head, body) = reply.into_parts();
    let whole = body.as_bytes().cloned().or_else(|| body.is_end_stream().then(Bytes::new));
    match whole {
        Some(whole) => Phase::Over(Arc::new(head), Over::Whole(whole)),
        None => Phase::Open(Arc::new(head), body),
    }
}

impl State {
    /// What is to be polled. It is put back unless that panics: nothing may be polled again that did.
    fn polled(&mut self) -> Phase {
        std::mem::replace(&mut self.phase, Phase::Polled)
    }

    /// The call is over: its cost is known. The payer's receipt is handed out, to be closed.
    fn paid(&mut self, keep: impl FnOnce(Paid, Arc<str>)) -> Option<Receipt> {
        let payer = self.payer.take()?;
        let (paid, model) = payer.read(|facts| {
            let paid = Paid { cost: facts.cost.neurons, ending: facts.ending };
            (paid, facts.model.id.clone())
        });
        self.paid = paid;
        keep(paid, model);
        Some(payer)
    }
}

impl Paid {
    /// Tells one who did not pay.
    fn tell(self, rider: &Receipt) {
        rider.note(|facts| (facts.saved, facts.ending) = (self.cost, self.ending));
    }
}

impl Arrived {
    fn new(head: Arc<response::Parts>, body: Bytes, Paid { cost, ending }: Paid, model: Arc<str>) -> Self {
        Self { head, body, cost, ending, model }
    }
}

// === impl Seat ===

impl Seat {
    /// After the last byte.
    fn close(&mut self) {
        if let Some(paid) = self.flight.is_over(self.at) {
            self.over = true;
            self.rider.take().inspect(|rider| paid.tell(rider));
        }
    }
}

impl HttpBody for Seat {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        loop {
            let piece = std::task::ready!(self.flight.poll_piece(self.at, cx));
            match piece {
                // A frame of trailers, say.
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(Ok(bytes)) => {
                    self.at += bytes.len() as u64;
                    self.close();
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Err(lost)) => {
                    self.over = true;
                    return Poll::Ready(Some(Err(lost.into())));
                }
                None => {
                    self.over = true;
                    self.close();
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
