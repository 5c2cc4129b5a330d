//! Seconds of speech, counted beside the vendor: every encoding, rate and number of channels, however a call ends.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use proptest::prelude::*;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tollgate::neurons::Neurons;

use crate::sockets::{FLUX, NOVA, Socket, open, rest, send};
use crate::support::Gate;

/// Of the dearer model, in neurons: 836.36 a minute.
const MILLISECOND: f64 = 0.01395;

#[derive(Clone, Copy, Debug)]
enum End {
    /// The vendor is asked to finish, and says how much it heard.
    Finished,
    Closed,
    /// The connection is gone without a word.
    Dropped,
    /// It is gone in the middle of a frame.
    Torn,
}

#[derive(Clone, Debug)]
struct Speech {
    model: &'static str,
    query: String,
    /// Those that are heard one by one.
    channels: u32,
    frames: Vec<usize>,
    end: End,
}

fn speech() -> impl Strategy<Value = Speech> {
    let encoding = prop::sample::select(vec!["linear16", "linear32", "mulaw", "alaw"]);
    let rate = prop::sample::select(vec![8_000u32, 16_000, 22_050, 44_100, 48_000]);
    let end = prop::sample::select(vec![End::Finished, End::Closed, End::Dropped, End::Torn]);
    let frames = prop::collection::vec(1..9_000usize, 1..12);
    (any::<bool>(), encoding, rate, 1..=3u32, any::<bool>(), frames, end).prop_map(
        |(is_flux, encoding, rate, channels, multichannel, frames, end)| {
            let (model, channels) = if is_flux { (FLUX, 1) } else { (NOVA, channels) };
            let mut query = format!("encoding={encoding}&sample_rate={rate}");
            if channels > 1 {
                query += &format!("&channels={channels}&multichannel={multichannel}");
            }
            let channels = if multichannel { channels } else { 1 };
            Speech { model, query, channels, frames, end }
        },
    )
}

async fn say(mut socket: Socket, frames: &[usize], end: End) {
    for bytes in frames {
        socket.send(Message::Binary(vec![9; *bytes].into())).await.unwrap();
    }
    match end {
        End::Finished => {
            send(&mut socket, json!({"type": "CloseStream"})).await;
            rest(&mut socket).await;
        }
        End::Closed => {
            socket.close(None).await.unwrap();
            rest(&mut socket).await;
        }
        End::Dropped => drop(socket),
        End::Torn => {
            let stream = socket.get_mut();
            // A masked binary frame of 126 bytes, of which ten come.
            let torn = [&[0x82, 0xfe, 0, 126, 1, 2, 3, 4][..], &[9; 10]].concat();
            tokio::io::AsyncWriteExt::write_all(stream, &torn).await.unwrap();
            tokio::io::AsyncWriteExt::flush(stream).await.unwrap();
        }
    }
}

#[test]
fn what_is_charged_is_what_the_vendor_heard_however_a_call_ends() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let gate = runtime.block_on(async { Gate::start() });
    let calls = std::cell::Cell::new(0);
    let cases = std::env::var("TOLLGATE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(96);
    proptest!(ProptestConfig::with_cases(cases), |(Speech { model, query, channels, frames, end } in speech())| {
        runtime.block_on(async {
            let before = gate.vendor.counts().neurons();
            say(open(&gate, model, &query).await, &frames, end).await;
            calls.set(calls.get() + 1);
            let facts = gate.receipts.after(calls.get()).await.pop().unwrap();
            let charged = heard_in_full(&gate, before, facts.cost.neurons).await;
            let over = facts.cost.neurons.saturating_sub(charged);
            prop_assert!(charged <= facts.cost.neurons, "{} of {charged} charged", facts.cost.neurons);
            // A torn frame's ten bytes may be counted or not, and each channel's time is rounded up to a whole millisecond.
            let ten_bytes = facts.cost.neurons.as_f64() * 10.0 / frames.iter().sum::<usize>() as f64;
            let allowed = match end {
                End::Torn => ten_bytes + f64::from(channels) * MILLISECOND,
                _ => 0.02,
            };
            prop_assert!(over.as_f64() <= allowed, "{over} over {charged}, {model} {query} {end:?}");
            Ok(())
        })?;
    });
}

/// The vendor bills a moment after a connection is gone.
async fn heard_in_full(gate: &Gate, before: Neurons, expected: Neurons) -> Neurons {
    let mut charged = Neurons::ZERO;
    for _ in 0..200 {
        charged = gate.vendor.counts().neurons().saturating_sub(before);
        if charged >= expected || !charged.is_zero() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    charged
}

#[tokio::test]
async fn ten_thousand_handshakes_that_never_end_harm_nobody() {
    let gate = Gate::start();
    let address = gate.sidecar.listen();
    let head =
        format!("GET /run/{NOVA} HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-web");
    let mut held = std::collections::VecDeque::new();
    for n in 0..10_000 {
        let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else { continue };
        // Some are turned away while they write.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await;
        held.push_back(stream);
        if held.len() > 300 {
            held.pop_front();
        }
        if n % 2_500 == 0 {
            let mut socket = open(&gate, NOVA, "encoding=linear16&sample_rate=16000").await;
            socket.send(Message::Binary(vec![9; 640].into())).await.unwrap();
            send(&mut socket, json!({"type": "CloseStream"})).await;
            let heard = rest(&mut socket).await.0;
            assert_eq!(heard.last().unwrap()["duration"], 0.02);
        }
    }
    drop(held);
    assert_eq!(gate.receipts.after(4).await.len(), 4, "a handshake that never ended is no call");
    let mut socket = open(&gate, NOVA, "").await;
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
}
