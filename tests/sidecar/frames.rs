//! Frames through a socket, against a vendor that sends every message back: bytes are equal, whatever their frames are.

use futures_util::{SinkExt, StreamExt};
use proptest::prelude::*;
use tokio::net::TcpListener;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};

use crate::sockets::NOVA;
use crate::support::{config, start};

/// Sends each message back in one frame, and answers pings as the library does.
async fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut socket = accept_async(stream).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    if (message.is_binary() || message.is_text()) && socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[derive(Clone, Debug)]
struct Piece {
    bytes: Vec<u8>,
    is_text: bool,
    /// Where it is cut into frames.
    cuts: Vec<usize>,
    /// A ping between the fragments.
    ping: Option<Vec<u8>>,
}

fn piece() -> impl Strategy<Value = Piece> {
    let size = prop_oneof![
        Just(0usize),
        Just(125),
        Just(126),
        Just(65_535),
        Just(65_536),
        1..3_000usize,
        60_000..200_000usize
    ];
    let cuts = prop::collection::vec(0..200_000usize, 0..4);
    let ping = prop::option::of(prop::collection::vec(any::<u8>(), 0..125));
    (size, any::<bool>(), cuts, ping, any::<u8>()).prop_map(|(size, is_text, mut cuts, ping, seed)| {
        let letter = |n: usize| (n as u8).wrapping_mul(31).wrapping_add(seed);
        // An empty binary message would end nova-3's stream.
        let size = if is_text { size } else { size.max(1) };
        let bytes = (0..size).map(|n| if is_text { b'a' + letter(n) % 26 } else { letter(n) }).collect();
        cuts.retain(|cut| *cut < size);
        cuts.sort_unstable();
        Piece { bytes, is_text, cuts, ping }
    })
}

#[test]
fn bytes_are_equal_both_ways_whatever_their_frames_are() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (sidecar, _) = runtime.block_on(async { start(config(&format!("http://{}", echo().await))) });
    let url = format!("ws://{}/run/{NOVA}?encoding=linear16&sample_rate=16000", sidecar.listen());
    proptest!(ProptestConfig::with_cases(48), |(pieces in prop::collection::vec(piece(), 1..6))| {
        runtime.block_on(async {
            let mut request = url.as_str().into_client_request().unwrap();
            request.headers_mut().insert("authorization", "Bearer t".parse().unwrap());
            let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
            for Piece { bytes, is_text, cuts, ping } in pieces {
                let kind = if is_text { Data::Text } else { Data::Binary };
                let mut begin = 0;
                for (n, end) in cuts.iter().copied().chain([bytes.len()]).enumerate() {
                    let kind = if n == 0 { kind } else { Data::Continue };
                    let frame = Frame::message(bytes[begin..end].to_vec(), OpCode::Data(kind), n == cuts.len());
                    socket.feed(Message::Frame(frame)).await.unwrap();
                    if let (0, Some(ping)) = (n, &ping) {
                        socket.feed(Message::Ping(ping.clone().into())).await.unwrap();
                    }
                    begin = end;
                }
                socket.flush().await.unwrap();
                let (mut ponged, mut echoed) = (ping.is_none(), false);
                while !ponged || !echoed {
                    match socket.next().await.unwrap().unwrap() {
                        Message::Pong(pong) => { assert_eq!(Some(&pong[..]), ping.as_deref()); ponged = true; }
                        message => {
                            assert_eq!(message.is_text(), is_text);
                            assert!(message.into_data() == bytes, "{} bytes came back otherwise", bytes.len());
                            echoed = true;
                        }
                    }
                }
            }
        });
    });
    drop(sidecar);
}

#[tokio::test]
async fn a_client_that_takes_its_leave_is_answered_also_where_the_vendor_only_hangs_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let vendor = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut socket = accept_async(listener.accept().await.unwrap().0).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() {
                return;
            }
        }
    });
    let (sidecar, _) = start(config(&vendor));
    let mut request = format!("ws://{}/run/{NOVA}", sidecar.listen()).into_client_request().unwrap();
    request.headers_mut().insert("authorization", "Bearer t".parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    socket.close(Some(CloseFrame { code: CloseCode::Library(4321), reason: "x".into() })).await.unwrap();
    let Message::Close(Some(answer)) = socket.next().await.unwrap().unwrap() else { panic!("no close frame came") };
    assert_eq!(answer.code, CloseCode::Library(4321));
}
