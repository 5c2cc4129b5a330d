//! What a connection does now, and until when it may.
//!
//! A connection is in one [phase](Phase) at a time, and each phase has its limit in [`Limits`]. The state is written where
//! things happen (a read, a request, the end of a reply) and looked at by the task that drives the connection, so that one
//! timer a connection serves all limits, and most calls never touch it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::pace::{LONGEST, Pace};

/// How long each thing may take that a connection does.
#[derive(Clone, Copy, Debug)]
pub(in crate::sidecar) struct Limits {
    /// Until the first byte of a request; in HTTP/2, until the end of the preface.
    pub(in crate::sidecar) handshake: Duration,
    /// From the first byte of a request's head to its last.
    pub(in crate::sidecar) header: Duration,
    /// Without a call.
    pub(in crate::sidecar) idle: Duration,
    /// From a request's head to the last byte of its reply.
    pub(in crate::sidecar) call: Duration,
    /// How slowly a client may take its reply.
    pub(in crate::sidecar) send: Pace,
    /// How long the rest of a body is read that nobody wants.
    pub(in crate::sidecar) linger: Duration,
}

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Nothing that makes a request has come yet.
    Opening,
    /// A request's head is coming in.
    Header,
    /// All requests are answered.
    Idle,
    /// At least one request is not answered yet.
    Calls,
}

/// How a connection's bytes are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

/// Whether a socket is to be looked at, and what was found.
const USUAL: u8 = 0;
const LOOK: u8 = 1;
const MORE: u8 = 2;

/// A connection's state, shared by all that know of it.
#[derive(Debug)]
pub(super) struct Activity(Mutex<PhaseState>, AtomicU8);

#[derive(Debug)]
struct PhaseState {
    phase: Phase,
    since: Instant,
    calls: u32,
    version: Version,
    is_evicted: bool,
    /// Wakes the task that drives the connection.
    driver: Option<Waker>,
}

/// A request that is being answered. Dropped with the reply's body.
#[derive(Debug)]
pub(super) struct InCall(Arc<Activity>);

// === impl Limits ===

impl Limits {
    fn of(&self, phase: Phase, version: Version) -> Duration {
        let limit = match phase {
            Phase::Opening => self.handshake,
            Phase::Header => self.header,
            Phase::Idle => self.idle,
            // In HTTP/2 each stream has a limit of its own.
            Phase::Calls if version == Version::Http2 => LONGEST,
            Phase::Calls => self.call_limit(),
        };
        limit.min(LONGEST)
    }

    /// The limit of a call; zero is none.
    pub(super) fn call_limit(&self) -> Duration {
        if self.call.is_zero() { LONGEST } else { self.call.min(LONGEST) }
    }
}

// === impl Activity ===

impl Activity {
    /// A connection that was accepted just now.
    pub(super) fn new() -> Arc<Self> {
        let state = Mutex::new(PhaseState {
            phase: Phase::Opening,
            since: Instant::now(),
            calls: 0,
            version: Version::Http1,
            is_evicted: false,
            driver: None,
        });
        Arc::new(Self(state, AtomicU8::new(USUAL)))
    }

    /// The first bytes told the version: the beginning of a head, or HTTP/2's whole handshake.
    pub(super) fn speaks(&self, version: Version) {
        let mut state = self.0.lock();
        state.version = version;
        state.enter(match version {
            Version::Http1 => Phase::Header,
            Version::Http2 => Phase::Idle,
        });
    }

    /// Bytes came in.
    pub(super) fn read(&self) {
        let mut state = self.0.lock();
        if (state.phase, state.version) == (Phase::Idle, Version::Http1) {
            state.enter(Phase::Header);
        }
    }

    /// A request's head is here.
    pub(super) fn begin_call(self: &Arc<Self>) -> InCall {
        let mut state = self.0.lock();
        state.calls += 1;
        if state.calls == 1 {
            state.enter(Phase::Calls);
        }
        InCall(self.clone())
    }

    /// Has the next read that finds nothing look at the socket itself: what the runtime knows of it may be some time old.
    pub(super) fn look(&self) {
        self.1.store(LOOK, Ordering::Relaxed);
    }

    pub(super) fn is_to_look(&self) -> bool {
        self.1.load(Ordering::Relaxed) == LOOK
    }

    /// There are bytes that the runtime has not told of yet, or none.
    pub(super) fn looked(&self, has_more: bool) {
        self.1.store(if has_more { MORE } else { USUAL }, Ordering::Relaxed);
    }

    /// Whether the last look found something. It counts once.
    pub(super) fn found_more(&self) -> bool {
        self.1.swap(USUAL, Ordering::Relaxed) == MORE
    }

    pub(super) fn phase(&self) -> (Phase, Instant) {
        let state = self.0.lock();
        (state.phase, state.since)
    }

    /// The phase, and when it has to be over.
    pub(super) fn deadline(&self, limits: &Limits) -> (Phase, Instant) {
        let state = self.0.lock();
        (state.phase, state.since + limits.of(state.phase, state.version))
    }

    /// Makes room for others, unless a call has begun meanwhile.
    pub(super) fn evict(&self) -> bool {
        let mut state = self.0.lock();
        if state.phase == Phase::Calls || state.is_evicted {
            return false;
        }
        state.is_evicted = true;
        let driver = state.driver.take();
        drop(state);
        driver.into_iter().for_each(Waker::wake);
        true
    }

    /// Ready once the connection has to make room for others.
    pub(super) fn poll_evicted(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.is_evicted {
            return Poll::Ready(());
        }
        if state.driver.as_ref().is_none_or(|driver| !driver.will_wake(cx.waker())) {
            state.driver = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl PhaseState {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }
}

impl Drop for InCall {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.calls -= 1;
        if state.calls > 0 {
            return;
        }
        state.enter(Phase::Idle);
        // In HTTP/2 the last call may end in a task of its own, and the driver's timer knows only of later limits.
        let driver = if state.version == Version::Http2 { state.driver.take() } else { None };
        drop(state);
        driver.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Limits that are told apart by their lengths, in seconds.
    pub(in crate::sidecar::listen) fn limits() -> Limits {
        let seconds = Duration::from_secs;
        Limits {
            handshake: seconds(10),
            header: seconds(30),
            idle: seconds(75),
            call: seconds(3600),
            send: Pace::new(seconds(60), 1000),
            linger: seconds(30),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_own_limit() {
        let (activity, limits, begun) = (Activity::new(), limits(), Instant::now());
        let left = |activity: &Activity| activity.deadline(&limits).1.duration_since(begun).as_secs();
        assert_eq!(left(&activity), 10);
        activity.speaks(Version::Http1);
        activity.read();
        assert_eq!(left(&activity), 30);
        let call = activity.begin_call();
        assert_eq!(left(&activity), 3600);
        drop(call);
        assert_eq!(left(&activity), 75);
        activity.read();
        assert_eq!(left(&activity), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn in_http2_pings_do_not_keep_a_connection() {
        let (activity, limits, begun) = (Activity::new(), limits(), Instant::now());
        let left = |activity: &Activity| activity.deadline(&limits).1.duration_since(begun).as_secs();
        activity.speaks(Version::Http2);
        assert_eq!(left(&activity), 75);
        tokio::time::advance(Duration::from_secs(5)).await;
        activity.read();
        assert_eq!(left(&activity), 75);
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_connection_without_a_call_makes_room() {
        let activity = Activity::new();
        let call = activity.begin_call();
        assert!(!activity.evict());
        drop(call);
        assert!(activity.evict() && !activity.evict());
    }
}
