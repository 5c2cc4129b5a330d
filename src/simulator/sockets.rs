//! Speech over WebSockets: nova-3's, flux', aura's and smart-turn's messages, with durations that are known.
//!
//! What it bills is what it has read: audio by its encoding, rate and channels, characters of each `Speak`. It reads frames with
//! tungstenite's own `WebSocket`, and says what was seen of the vendor (2026-11): `Results` each second, `Metadata` only after
//! `CloseStream`, no `Metadata` at all from flux, which takes neither `KeepAlive` nor `Finalize`, an end after ten silent seconds.
//!
//! Trouble after the upgrade: `die-mid` is gone without a word at message `at`, `stream-error` says an error and ends, `stall-mid`
//! reads no further.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{self, Message};

use super::fault::{Fault, Trouble};
use super::state::State;
use crate::body::Body;
use crate::catalogue::Model;
use crate::socket::Dialect;
use crate::usage::Usage;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A socket on its way to be opened.
pub(super) struct SocketRequest {
    pub(super) account: String,
    pub(super) model: Arc<Model>,
    pub(super) dialect: Dialect,
    pub(super) query: HashMap<String, String>,
    pub(super) fault: Option<Fault>,
}

/// One that is open.
struct OpenSocket {
    wanted: SocketRequest,
    state: Arc<State>,
    socket: Socket,
    audio_bytes: u64,
    told_ms: u64,
    characters: u64,
    /// Said, and not flushed yet.
    unsaid: u64,
    flushed: u64,
    messages: usize,
}

/// What comes of a message.
enum Next {
    GoOn,
    /// The socket is closed with a code; without one, it is gone.
    End(Option<u16>, &'static str),
}

/// How the characters of a speech are in time, as the demo's are: fifteen a second.
const CHARACTERS_A_SECOND: u64 = 15;

/// Whether a request asks for a WebSocket.
pub(super) fn is_wanted(request: &Request<Incoming>) -> bool {
    request.headers().get(header::UPGRADE).is_some_and(|asked| asked.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// The query's names and values.
pub(super) fn query(query: &str) -> HashMap<String, String> {
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    crate::socket::pairs(query).map(|(name, value)| (decoded(name), decoded(value))).collect()
}

/// Accepts it, and serves it on a task of its own.
pub(super) fn accept(
    state: &Arc<State>,
    wanted: SocketRequest,
    upgrade: OnUpgrade,
    headers: &http::HeaderMap,
) -> Response<Body> {
    let mut reply = Response::new(Body::empty());
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map_or(&b""[..], HeaderValue::as_bytes);
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let told = reply.headers_mut();
    told.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    told.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    told.extend(HeaderValue::from_str(&derive_accept_key(key)).ok().map(|key| (header::SEC_WEBSOCKET_ACCEPT, key)));
    let state = state.clone();
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        let open = OpenSocket {
            wanted,
            state,
            socket,
            audio_bytes: 0,
            told_ms: 0,
            characters: 0,
            unsaid: 0,
            flushed: 0,
            messages: 0,
        };
        open.serve().await;
    });
    reply
}

impl OpenSocket {
    /// To its end; then it is billed, however it ended.
    async fn serve(mut self) {
        let _ = self.greet().await;
        let ended = self.converse().await;
        self.bill();
        // The answer to a client's close frame goes out with this.
        let _ = self.socket.flush().await;
        if let Ok(Some((code, reason))) = ended {
            let frame = CloseFrame { code: code.into(), reason: reason.into() };
            let _ = self.socket.close(Some(frame)).await;
            // Until the other side has answered.
            let _ =
                timeout(Duration::from_secs(1), async { while let Some(Ok(_)) = self.socket.next().await {} }).await;
        }
    }

    async fn greet(&mut self) -> Result<(), tungstenite::Error> {
        match self.wanted.dialect {
            Dialect::Turns => self.say(json!({"type": "Connected", "request_id": "sim", "sequence_id": 0})).await,
            Dialect::Speak => {
                let name = self.wanted.model.id.to_string();
                self.say(json!({"type": "Metadata", "request_id": "sim", "model_name": name, "model_version": "1"}))
                    .await
            }
            Dialect::Listen | Dialect::Audio => Ok(()),
        }
    }

    /// The code to close with; `None` where the connection is gone, or to be dropped.
    async fn converse(&mut self) -> Result<Option<(u16, &'static str)>, tungstenite::Error> {
        let idle = self.state.settings.socket_idle;
        loop {
            let Ok(message) = timeout(idle, self.socket.next()).await else {
                return Ok(match self.wanted.dialect {
                    Dialect::Listen => Some((1011, "NET-0001: no audio in time")),
                    Dialect::Turns => None,
                    Dialect::Speak | Dialect::Audio => continue,
                });
            };
            let Some(message) = message else { return Ok(None) };
            let next = match message? {
                Message::Binary(audio) => self.hear(&audio).await?,
                Message::Text(text) => self.read(&text).await?,
                Message::Close(_) => return Ok(None),
                _ => Next::GoOn,
            };
            match next {
                Next::GoOn => {}
                Next::End(Some(code), reason) => return Ok(Some((code, reason))),
                Next::End(None, _) => return Ok(None),
            }
        }
    }

    async fn hear(&mut self, audio: &[u8]) -> Result<Next, tungstenite::Error> {
        if self.wanted.dialect == Dialect::Speak {
            return Ok(Next::End(Some(1008), "no audio is taken here"));
        }
        if audio.is_empty() && self.wanted.dialect == Dialect::Listen {
            return self.finish().await;
        }
        self.audio_bytes += audio.len() as u64;
        self.messages += 1;
        if let Some(next) = self.strike().await? {
            return Ok(next);
        }
        let heard_ms = self.heard_ms();
        match self.wanted.dialect {
            _ if heard_ms < self.told_ms + 1000 && self.wanted.dialect != Dialect::Audio => {}
            Dialect::Listen => self.tell_results(false).await?,
            Dialect::Turns => {
                self.told_ms = heard_ms;
                let end = heard_ms as f64 / 1000.0;
                let turn = json!({"type": "TurnInfo", "event": "Update", "turn_index": 0, "audio_window_start": 0.0,
                    "audio_window_end": end, "transcript": "la la", "words": [], "request_id": "sim", "sequence_id": self.messages});
                self.say(turn).await?;
            }
            _ => self.say(json!({"is_complete": self.messages.is_multiple_of(2), "probability": 0.5})).await?,
        }
        Ok(Next::GoOn)
    }

    async fn read(&mut self, text: &str) -> Result<Next, tungstenite::Error> {
        let message: Value = serde_json::from_str(text).unwrap_or_default();
        match (self.wanted.dialect, message["type"].as_str().unwrap_or("")) {
            (Dialect::Listen, "CloseStream") => return self.finish().await,
            (Dialect::Listen, "Finalize") => self.tell_results(true).await?,
            (Dialect::Listen, "KeepAlive") => {}
            (Dialect::Listen, _) => return Ok(Next::End(Some(1008), "DATA-0000: no such message")),
            (Dialect::Turns, "CloseStream") => {
                self.socket.close(None).await?;
                return Ok(Next::End(None, ""));
            }
            (Dialect::Turns, "Configure") => self.say(json!({"type": "ConfigureSuccess"})).await?,
            (Dialect::Turns, other) => {
                let why = format!("unknown variant `{other}`, expected `CloseStream`");
                self.say(json!({"type": "Error", "sequence_id": 0, "code": "UNPARSABLE", "description": why})).await?;
                return Ok(Next::End(Some(1008), "unparsable"));
            }
            (Dialect::Speak, "Speak") => {
                let characters = message["text"].as_str().unwrap_or("").chars().count() as u64;
                (self.characters, self.unsaid) = (self.characters + characters, self.unsaid + characters);
                self.messages += 1;
                if let Some(next) = self.strike().await? {
                    return Ok(next);
                }
            }
            (Dialect::Speak, "Flush") => self.speak().await?,
            (Dialect::Speak, "Clear") => {
                self.unsaid = 0;
                self.say(json!({"type": "Cleared", "sequence_id": self.flushed})).await?;
            }
            (Dialect::Speak, "Close") => {
                self.speak().await?;
                return Ok(Next::End(Some(1000), ""));
            }
            (Dialect::Speak, _) => {
                self.say(json!({"type": "Warning", "code": "UNKNOWN", "description": "no such message"})).await?;
            }
            (Dialect::Audio, _) => {}
        }
        Ok(Next::GoOn)
    }

    /// All that was said so far, as sound.
    async fn speak(&mut self) -> Result<(), tungstenite::Error> {
        let rate: u64 = self.wanted.query.get("sample_rate").and_then(|rate| rate.parse().ok()).unwrap_or(24_000);
        let samples = std::mem::take(&mut self.unsaid) * rate.min(48_000) / CHARACTERS_A_SECOND;
        for piece in vec![0u8; (samples * 2) as usize].chunks(4800) {
            self.socket.send(Message::Binary(piece.to_vec().into())).await?;
        }
        self.flushed += 1;
        self.say(json!({"type": "Flushed", "sequence_id": self.flushed})).await
    }

    async fn tell_results(&mut self, is_asked: bool) -> Result<(), tungstenite::Error> {
        let (start, end) = (self.told_ms, self.heard_ms());
        self.told_ms = end;
        let results = json!({"type": "Results", "channel_index": [0, 1], "start": start as f64 / 1000.0,
            "duration": (end - start) as f64 / 1000.0, "is_final": true, "speech_final": is_asked, "from_finalize": is_asked,
            "channel": {"alternatives": [{"transcript": "la la", "confidence": 0.9, "words": []}]},
            "metadata": {"request_id": "sim", "model_info": {"name": "nova-3", "version": "1", "arch": "nova-3"}, "model_uuid": "sim"}});
        self.say(results).await
    }

    async fn finish(&mut self) -> Result<Next, tungstenite::Error> {
        self.tell_results(true).await?;
        let metadata = json!({"type": "Metadata", "transaction_key": "deprecated", "request_id": "sim", "sha256": "0",
            "created": "2026-11-27T00:00:00.000Z", "duration": self.heard_ms() as f64 / 1000.0, "channels": self.number("channels", 1)});
        self.say(metadata).await?;
        Ok(Next::End(Some(1000), ""))
    }

    /// Trouble that was asked for, when its message has come.
    async fn strike(&mut self) -> Result<Option<Next>, tungstenite::Error> {
        let Some(fault) = self.wanted.fault.filter(|fault| self.messages > fault.at.unwrap_or(0)) else {
            return Ok(None);
        };
        match fault.trouble {
            Trouble::DieMid => Ok(Some(Next::End(None, ""))),
            Trouble::StreamError(code) => {
                let why = "an error that was asked for";
                self.say(json!({"type": "Error", "code": code.to_string(), "description": why})).await?;
                Ok(Some(Next::End(Some(1011), "NET-0000")))
            }
            Trouble::StallMid => std::future::pending().await,
            _ => Ok(None),
        }
    }

    async fn say(&mut self, message: Value) -> Result<(), tungstenite::Error> {
        self.socket.send(Message::Text(message.to_string().into())).await
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        self.wanted.query.get(name).and_then(|value| value.parse().ok()).unwrap_or(default)
    }

    /// Milliseconds of the audio that came, rounded up.
    fn heard_ms(&self) -> u64 {
        let sample = match self.wanted.query.get("encoding").map(String::as_str) {
            Some("mulaw" | "alaw") => 1,
            Some("linear32") => 4,
            _ => 2,
        };
        let bytes_a_second = self.number("sample_rate", 16_000) * self.number("channels", 1) * sample;
        (self.audio_bytes * 1000).div_ceil(bytes_a_second.max(1))
    }

    fn bill(&self) {
        let is_split = self.wanted.query.get("multichannel").is_some_and(|value| value == "true");
        let channels = if is_split { self.number("channels", 1) } else { 1 };
        let usage = match self.wanted.dialect {
            Dialect::Speak => Usage { characters: self.characters, ..Usage::default() },
            _ => Usage { audio_ms: self.heard_ms() * channels, ..Usage::default() },
        };
        let cost = self.wanted.model.prices.over_socket().cost(&usage);
        self.state.books.charge_as(&self.wanted.account, &self.wanted.model, &usage, cost);
    }
}
