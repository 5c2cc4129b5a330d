//! One way through the gate: from one side's connection to the other's, frame by frame.
//!
//! A piece is read, looked at where it lies, and written as it is. Nothing more is read until it is written, so a side that takes
//! nothing holds up the other. What is not looked at yet, or may not pass yet, stays in the buffer; so [`run`](Lane::run) may be
//! dropped and begun again at any moment without losing a byte.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::ended::{Cut, Ended};
use super::frames::{Frames, Kind, Side, close_code};
use super::meter::{Load, Meter};

/// See the [module](self).
pub(super) struct Lane<R, W> {
    from: R,
    to: W,
    side: Side,
    buffer: BytesMut,
    /// Bytes at the buffer's front that may be written.
    ready: usize,
    /// Bytes at its front that were looked at.
    looked_at: usize,
    frames: Frames,
    /// The text of the message that is under way, as far as it is read.
    text: Vec<u8>,
    /// The message under way is held back until its end.
    is_held: bool,
    /// What has to be covered before it goes on.
    waits_for: Option<Load>,
    /// The side's close frame was seen.
    closed: Option<Option<u16>>,
    /// A close frame is not passed on: the gate says how it ends.
    pub(super) keeps_close: bool,
    /// Nothing is weighed any more.
    pub(super) is_free: bool,
    /// Nothing is written any more.
    pub(super) is_mute: bool,
}

/// When something passed last, for both ways together: milliseconds since the beginning.
#[derive(Debug)]
pub(super) struct Pulse {
    begun: Instant,
    last_ms: AtomicU64,
}

/// What is read at once.
const PIECE: usize = 4 * 1024;
/// A text is read whole up to here; the vendor's longer ones pass unread, the client's do not pass where they have to be weighed.
const MAX_TEXT: usize = 64 * 1024;

impl Pulse {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    fn beat(&self) {
        self.last_ms.store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// When something passed last.
    pub(super) fn last(&self) -> Instant {
        self.begun + std::time::Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Lane<R, W> {
    pub(super) fn new(side: Side, from: R, to: W, max_frame: u64) -> Self {
        Self {
            from,
            to,
            side,
            buffer: BytesMut::new(),
            ready: 0,
            looked_at: 0,
            frames: Frames::new(side, max_frame),
            text: Vec::new(),
            is_held: false,
            waits_for: None,
            closed: None,
            keeps_close: false,
            is_free: false,
            is_mute: false,
        }
    }

    /// Passes on what comes, until this side ends it or has to be ended.
    pub(super) async fn run(&mut self, meter: &Meter, pulse: &Pulse) -> Ended {
        loop {
            let looked = self.look(meter);
            if let Err(gone) = self.write().await {
                return gone;
            }
            if let Err(cut) = looked {
                return Ended::Cut(cut);
            }
            if let Some(load) = self.waits_for {
                if let Err(error) = meter.cover(load).await {
                    return Ended::Cut(Cut::Budget(error));
                }
                self.covered(load);
                continue;
            }
            if let Some(code) = self.closed {
                return Ended::Closed { by: self.side, code };
            }
            if self.buffer.capacity() - self.buffer.len() < PIECE / 4 {
                self.buffer.reserve(PIECE);
            }
            match self.from.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return Ended::Gone(self.side),
                Ok(_) => pulse.beat(),
            }
        }
    }

    /// Looks at what is in the buffer, as far as it may pass.
    fn look(&mut self, meter: &Meter) -> Result<(), Cut> {
        while self.waits_for.is_none() && self.closed.is_none() {
            let unseen = &self.buffer[self.looked_at..];
            let Some((frame, left)) = self.frames.current() else {
                let violation = |violation| Cut::Broken(self.side, violation);
                let Some(frame) = self.frames.look(unseen).map_err(violation)? else { break };
                if frame.kind == Kind::Binary && self.is_weighed() && frame.payload_bytes > 0 {
                    let load = Load::Audio(frame.payload_bytes);
                    if !meter.admit(load) {
                        self.waits_for = Some(load);
                        break;
                    }
                }
                self.begin(frame, meter);
                continue;
            };
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(unseen.len());
            let payload = &unseen[..length];
            let is_read = match frame.kind {
                Kind::Text => self.is_text_read(meter),
                Kind::Close => true,
                Kind::Binary | Kind::Ping | Kind::Pong => false,
            };
            if frame.kind == Kind::Binary && self.side == Side::Client {
                if meter.wants_bytes() {
                    let mut bytes = Vec::new();
                    self.frames.take(payload, Some(&mut bytes));
                    meter.passed(&bytes);
                } else {
                    self.frames.take(payload, None);
                    meter.passed(payload);
                }
            } else {
                self.frames.take(payload, is_read.then_some(&mut self.text));
            }
            self.looked_at += length;
            if self.text.len() > MAX_TEXT {
                if self.is_held {
                    return Err(Cut::TextTooLong);
                }
                // The rest of it is not read.
                self.text.truncate(MAX_TEXT + 1);
            }
            if length as u64 == left {
                self.end(frame, meter);
            }
            let is_kept = frame.kind == Kind::Close && self.keeps_close;
            if !self.is_held && self.waits_for.is_none() && !is_kept {
                self.ready = self.looked_at;
            }
            if (length as u64) < left {
                break;
            }
        }
        Ok(())
    }

    fn is_weighed(&self) -> bool {
        self.side == Side::Client && !self.is_free
    }

    /// Of the client only what may be spoken is read; of the vendor all, as long as it is of a usual length.
    fn is_text_read(&self, meter: &Meter) -> bool {
        match self.side {
            Side::Client => meter.weighs_texts() && !self.is_free,
            Side::Vendor => self.text.len() <= MAX_TEXT,
        }
    }

    fn begin(&mut self, frame: super::frames::Frame, meter: &Meter) {
        if frame.is_first && frame.kind == Kind::Text && self.is_weighed() && meter.weighs_texts() {
            self.is_held = true;
        }
        if frame.kind == Kind::Close {
            // Whatever stood there is of no more use, and the code is read from here.
            self.text.clear();
        }
        self.looked_at += frame.head_bytes;
        self.frames.begin(frame);
        let is_kept = frame.kind == Kind::Close && self.keeps_close;
        if !self.is_held && !is_kept {
            self.ready = self.looked_at;
        }
    }

    fn end(&mut self, frame: super::frames::Frame, meter: &Meter) {
        self.frames.end();
        match frame.kind {
            Kind::Close => self.closed = Some(close_code(&self.text)),
            Kind::Text if frame.is_last => {
                if self.is_held {
                    let load = meter.weigh(&self.text);
                    if meter.admit(load) { self.is_held = false } else { self.waits_for = Some(load) }
                } else if self.side == Side::Vendor && self.text.len() <= MAX_TEXT {
                    meter.hear(&self.text);
                }
                self.text.clear();
                self.text.shrink_to(PIECE);
            }
            _ => {}
        }
    }

    /// What was waited for may pass.
    fn covered(&mut self, load: Load) {
        self.waits_for = None;
        match load {
            // Its head was looked at only.
            Load::Audio(_) => {
                if let Ok(Some(frame)) = self.frames.look(&self.buffer[self.looked_at..]) {
                    self.looked_at += frame.head_bytes;
                    self.frames.begin(frame);
                    self.ready = self.looked_at;
                }
            }
            Load::Characters(_) => {
                self.is_held = false;
                self.ready = self.looked_at;
            }
        }
    }

    async fn write(&mut self) -> Result<(), Ended> {
        if self.ready == 0 {
            return Ok(());
        }
        while self.ready > 0 {
            let written = match self.is_mute {
                true => self.ready,
                false => match self.to.write(&self.buffer[..self.ready]).await {
                    Ok(0) | Err(_) => return Err(Ended::Gone(self.side.other())),
                    Ok(written) => written,
                },
            };
            self.buffer.advance(written);
            self.ready -= written;
            self.looked_at -= written;
        }
        if self.buffer.is_empty() && self.buffer.capacity() > 4 * PIECE {
            // A long frame is over, and so is the room that it took.
            self.buffer = BytesMut::new();
        }
        match self.is_mute {
            true => Ok(()),
            false => self.to.flush().await.map_err(|_| Ended::Gone(self.side.other())),
        }
    }

    /// Whether a message of the gate's own can stand here; with text only between two messages.
    pub(super) fn is_between(&self) -> bool {
        self.ready == 0 && (self.frames.is_between() || self.is_held || self.closed.is_some())
    }

    pub(super) fn is_between_messages(&self) -> bool {
        self.is_between() && (self.frames.is_between_messages() || self.is_held)
    }

    /// Sends bytes of the gate's own.
    pub(super) async fn say(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.to.write_all(bytes).await?;
        self.to.flush().await
    }

    /// Nothing more comes this way.
    pub(super) async fn shut(&mut self) {
        // Who is gone needs no farewell.
        let _ = self.to.shutdown().await;
    }

    /// Reads to the end and throws away: a connection that is closed with unread bytes in it takes back what it has sent.
    pub(super) async fn drain(&mut self) {
        self.buffer.clear();
        loop {
            self.buffer.reserve(PIECE);
            match self.from.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => self.buffer.clear(),
            }
        }
    }
}
