//! A caller with a voice: speaks to nova-3 for a while, at the pace of speech, and has an answer spoken by aura.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::Request;
use http::header::{self, HeaderValue};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use tokio_util::sync::CancellationToken;

use super::dice::Dice;

type Socket = WebSocketStream<TcpStream>;

/// 16 kHz, 16 bits.
const SAMPLES_A_FRAME: usize = 320;
const FRAME: Duration = Duration::from_millis(20);
/// So many frames are a turn.
const FRAMES: usize = 250;
const PAUSE: Duration = Duration::from_millis(500);

/// Calls again and again until it is told to stop.
pub async fn run(base_url: String, stop: CancellationToken) {
    while !stop.is_cancelled() {
        // What is refused or breaks off is counted by the gate; the caller goes on.
        let _ = stop.run_until_cancelled(call(&base_url)).await;
        let _ = stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
    }
}

async fn call(base_url: &str) -> Result<(), Error> {
    let mut socket =
        open(base_url, "@cf/deepgram/nova-3?encoding=linear16&sample_rate=16000&interim_results=true").await?;
    let mut voice = Voice::new();
    let mut tick = tokio::time::interval(FRAME);
    for _ in 0..FRAMES {
        tick.tick().await;
        socket.send(Message::Binary(voice.frame().into())).await?;
    }
    socket.send(Message::Text(json!({"type": "CloseStream"}).to_string().into())).await?;
    while socket.next().await.transpose()?.is_some() {}
    let mut socket =
        open(base_url, "@cf/deepgram/aura-2-en?encoding=linear16&sample_rate=24000&container=none").await?;
    for message in [
        json!({"type": "Speak", "text": "Your order left this morning."}),
        json!({"type": "Flush"}),
        json!({"type": "Close"}),
    ] {
        socket.send(Message::Text(message.to_string().into())).await?;
    }
    while socket.next().await.transpose()?.is_some() {}
    Ok(())
}

async fn open(base_url: &str, model: &str) -> Result<Socket, Error> {
    let host = base_url.strip_prefix("http://").unwrap_or(base_url);
    let request = Request::get(format!("ws://{host}/run/{model}"))
        .header(header::HOST, host)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, generate_key())
        .header(header::AUTHORIZATION, HeaderValue::from_static("Bearer demo"))
        .body(())?;
    let stream = TcpStream::connect(host).await?;
    client_async(request, stream).await.map(|(socket, _)| socket)
}

/// A hum whose pitch and loudness wander as a voice's do, with pauses.
struct Voice {
    dice: Dice,
    phase: f64,
    pitch: f64,
    loudness: f64,
}

impl Voice {
    fn new() -> Self {
        Self { dice: Dice::new(7), phase: 0.0, pitch: 120.0, loudness: 0.5 }
    }

    fn frame(&mut self) -> Vec<u8> {
        self.pitch = (self.pitch + (self.dice.share() - 0.5) * 20.0).clamp(80.0, 250.0);
        self.loudness = (self.loudness + (self.dice.share() - 0.5) * 0.4).clamp(0.0, 1.0);
        let mut frame = Vec::with_capacity(SAMPLES_A_FRAME * 2);
        for _ in 0..SAMPLES_A_FRAME {
            self.phase = (self.phase + self.pitch / 16_000.0).fract();
            let overtones = (1..=4).map(|n| (self.phase * f64::from(n) * std::f64::consts::TAU).sin() / f64::from(n));
            let sample = overtones.sum::<f64>() * self.loudness * 8_000.0;
            frame.extend((sample as i16).to_le_bytes());
        }
        frame
    }
}
