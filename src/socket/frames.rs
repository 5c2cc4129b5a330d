//! Frames, read where they stand: their heads, and what is in them, without a copy and without changing a byte.
//!
//! Heads are tungstenite's to read and to write. It is the library that most of the ecosystem stands on; of its `WebSocket` only
//! this part is used, for that one hands on whole messages: it would join fragments, answer pings itself, and hold each
//! frame in memory until its end.

use std::io::Cursor;

use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame as OwnFrame, FrameHeader};

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Vendor,
}

/// What a frame is, or the message that it goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    /// It begins its message.
    pub(super) is_first: bool,
    /// It ends its message.
    pub(super) is_last: bool,
    pub(super) payload_bytes: u64,
    mask: Option<[u8; 4]>,
    /// Bytes of the head itself.
    pub(super) head_bytes: usize,
}

/// What cannot be a frame, or is none that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) code: u16,
    pub(super) why: &'static str,
}

/// Where one side's stream of frames stands.
#[derive(Debug)]
pub(super) struct Frames {
    from: Side,
    max_frame: u64,
    /// The message that is under way, between its first frame and its last.
    message: Option<Kind>,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    frame: Frame,
    left: u64,
}

/// Control frames are short (RFC 6455, 5.5).
const MAX_CONTROL: u64 = 125;
/// A close frame's reason shares its room with the code.
const MAX_REASON: usize = MAX_CONTROL as usize - 2;

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Client => Self::Vendor,
            Self::Vendor => Self::Client,
        }
    }
}

impl Frames {
    pub(super) fn new(from: Side, max_frame: u64) -> Self {
        Self { from, max_frame, message: None, current: None }
    }

    /// The next frame's head, which is not taken yet; `None` where there is not all of it.
    pub(super) fn look(&self, bytes: &[u8]) -> Result<Option<Frame>, Violation> {
        let wrong = |why| Violation { code: 1002, why };
        let mut cursor = Cursor::new(bytes);
        let head = FrameHeader::parse(&mut cursor).map_err(|_| wrong("a frame of a kind that does not exist"))?;
        let Some((head, payload_bytes)) = head else { return Ok(None) };
        if head.rsv1 || head.rsv2 || head.rsv3 {
            return Err(wrong("a frame with bits of an extension, and none was agreed on"));
        }
        if head.mask.is_some() != (self.from == Side::Client) {
            return Err(wrong("clients mask their frames, and servers do not"));
        }
        let (kind, is_first) = match (head.opcode, self.message) {
            (OpCode::Control(control), _) => (control_kind(control).ok_or(wrong("a frame of a reserved kind"))?, true),
            (OpCode::Data(Data::Continue), Some(kind)) => (kind, false),
            (OpCode::Data(Data::Continue), None) => return Err(wrong("a fragment of no message")),
            (OpCode::Data(_), Some(_)) => return Err(wrong("a message within another one's fragments")),
            (OpCode::Data(Data::Text), None) => (Kind::Text, true),
            (OpCode::Data(Data::Binary), None) => (Kind::Binary, true),
            (OpCode::Data(Data::Reserved(_)), None) => return Err(wrong("a frame of a reserved kind")),
        };
        let is_control = matches!(kind, Kind::Close | Kind::Ping | Kind::Pong);
        if is_control && (payload_bytes > MAX_CONTROL || !head.is_final) {
            return Err(wrong("a control frame that is too long, or in fragments"));
        }
        if payload_bytes > self.max_frame {
            return Err(Violation { code: 1009, why: "a frame over max_frame" });
        }
        let head_bytes = cursor.position() as usize;
        let (is_last, mask) = (head.is_final, head.mask);
        Ok(Some(Frame { kind, is_first, is_last, payload_bytes, mask, head_bytes }))
    }

    /// Takes a head that was looked at: what follows is its payload.
    pub(super) fn begin(&mut self, frame: Frame) {
        if matches!(frame.kind, Kind::Text | Kind::Binary) {
            self.message = (!frame.is_last).then_some(frame.kind);
        }
        self.current = Some(Current { frame, left: frame.payload_bytes });
    }

    /// The frame whose payload comes next, and how much of it.
    pub(super) fn current(&self) -> Option<(Frame, u64)> {
        self.current.as_ref().map(|current| (current.frame, current.left))
    }

    /// Takes a part of the payload, and has it unmasked in `copy`, where that is asked for. `bytes` are no more than is left.
    pub(super) fn take(&mut self, bytes: &[u8], copy: Option<&mut Vec<u8>>) {
        let Some(Current { frame, left }) = &mut self.current else { return };
        if let Some(copy) = copy {
            let done = (frame.payload_bytes - *left) as usize;
            match frame.mask {
                Some(mask) => copy.extend(bytes.iter().zip(done..).map(|(byte, at)| byte ^ mask[at % 4])),
                None => copy.extend_from_slice(bytes),
            }
        }
        *left -= bytes.len() as u64;
    }

    /// The payload is all taken: the next head may come.
    pub(super) fn end(&mut self) {
        self.current = None;
    }

    /// Between two frames, so that one of our own may stand here; with data only between two messages.
    pub(super) fn is_between(&self) -> bool {
        self.current.is_none()
    }

    pub(super) fn is_between_messages(&self) -> bool {
        self.is_between() && self.message.is_none()
    }
}

fn control_kind(control: Control) -> Option<Kind> {
    match control {
        Control::Close => Some(Kind::Close),
        Control::Ping => Some(Kind::Ping),
        Control::Pong => Some(Kind::Pong),
        Control::Reserved(_) => None,
    }
}

/// A text message of the gate's own, as it goes to a side.
pub(super) fn text(to: Side, text: &str) -> Vec<u8> {
    written(to, OwnFrame::message(text.as_bytes().to_vec(), OpCode::Data(Data::Text), true))
}

/// A close frame of the gate's own. A reason that is too long for one is cut.
pub(super) fn close(to: Side, code: u16, reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    written(to, OwnFrame::close(Some(CloseFrame { code: code.into(), reason: reason[..end].into() })))
}

fn written(to: Side, mut frame: OwnFrame) -> Vec<u8> {
    if to == Side::Vendor {
        frame.header_mut().mask = Some(fastrand::u32(..).to_be_bytes());
    }
    let mut bytes = Vec::with_capacity(frame.len());
    // Writing into memory does not fail.
    let _ = frame.format(&mut bytes);
    bytes
}

/// The code of a close frame's payload, where it has one.
pub(super) fn close_code(payload: &[u8]) -> Option<u16> {
    payload.first_chunk().map(|code| u16::from_be_bytes(*code))
}
