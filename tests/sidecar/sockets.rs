//! Speech over WebSockets: it passes, is counted to the millisecond, and is held to keys, limits and budgets.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tollgate::layers::identify::keys::{Key, sha256};
use tollgate::neurons::Neurons;
use tollgate::receipt::{Facts, Outcome, Source};
use tollgate::simulator::{Fault, FaultRule, Settings, Trouble};

use crate::support::{Gate, TOKEN};

pub const NOVA: &str = "@cf/deepgram/nova-3";
pub const FLUX: &str = "@cf/deepgram/flux";
pub const AURA: &str = "@cf/deepgram/aura-2-en";
const PCM: &str = "encoding=linear16&sample_rate=16000";
/// 20 ms of that.
const FRAME: usize = 640;

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub async fn open_with(gate: &Gate, path: &str, headers: &[(&str, &str)]) -> Result<Socket, Error> {
    let mut request = format!("ws://{}{path}", gate.sidecar.listen()).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().append(
            http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
            http::HeaderValue::from_str(value).unwrap(),
        );
    }
    connect_async(request).await.map(|(socket, _)| socket)
}

pub async fn open(gate: &Gate, model: &str, query: &str) -> Socket {
    let bearer = format!("Bearer {TOKEN}");
    open_with(gate, &format!("/run/{model}?{query}"), &[("authorization", &bearer)]).await.unwrap()
}

pub async fn send(socket: &mut Socket, message: Value) {
    socket.send(Message::Text(message.to_string().into())).await.unwrap();
}

pub async fn speak(socket: &mut Socket, frames: usize) {
    for _ in 0..frames {
        socket.send(Message::Binary(vec![7; FRAME].into())).await.unwrap();
    }
}

/// All that comes until the end: texts, and the close code where there was one.
pub async fn rest(socket: &mut Socket) -> (Vec<Value>, Option<(u16, String)>) {
    let mut texts = Vec::new();
    while let Some(message) = socket.next().await {
        match message {
            Ok(Message::Text(text)) => texts.push(serde_json::from_str(&text).unwrap()),
            Ok(Message::Close(frame)) => {
                let close = frame.map(|frame| (u16::from(frame.code), frame.reason.to_string()));
                // The answer goes out, so that nobody waits for it.
                while let Some(Ok(_)) = socket.next().await {}
                return (texts, close.or(Some((1005, String::new()))));
            }
            Ok(_) => {}
            Err(_) => return (texts, None),
        }
    }
    (texts, None)
}

async fn sealed(gate: &Gate) -> Facts {
    gate.receipts.after(1).await.pop().unwrap()
}

fn refused(error: Error) -> (u16, String) {
    let Error::Http(reply) = error else { panic!("{error}") };
    (reply.status().as_u16(), String::from_utf8(reply.into_body().unwrap_or_default()).unwrap())
}

#[tokio::test]
async fn a_call_that_is_finished_costs_what_the_vendor_heard() {
    let gate = Gate::start();
    let mut socket = open(&gate, NOVA, PCM).await;
    speak(&mut socket, 125).await;
    send(&mut socket, json!({"type": "KeepAlive"})).await;
    send(&mut socket, json!({"type": "CloseStream"})).await;
    let (texts, close) = rest(&mut socket).await;
    assert_eq!(close, Some((1000, String::new())));
    assert_eq!(texts.last().unwrap()["type"], "Metadata");
    assert_eq!(texts.last().unwrap()["duration"], 2.5);
    let facts = sealed(&gate).await;
    assert_eq!((facts.outcome, facts.usage.audio_ms, facts.cost.source), (Outcome::Ok, 2_500, Source::Computed));
    // 836.36 neurons a minute.
    assert_eq!(facts.cost.neurons, Neurons::from_f64(836.36 * 2.5 / 60.0));
    assert_eq!(gate.vendor.counts().neurons(), facts.cost.neurons);
    assert_eq!(facts.socket.unwrap().ended_by, Some("vendor"));
}

#[tokio::test]
async fn a_call_that_its_client_just_closes_is_counted_by_its_bytes() {
    let gate = Gate::start();
    for (model, encoding, bytes, millis) in [
        (NOVA, PCM, 32_010, 1_001),
        (NOVA, "encoding=mulaw&sample_rate=8000", 8_004, 1_001),
        (NOVA, "encoding=linear16&sample_rate=48000&channels=2&multichannel=true", 192_000, 2_000),
        (NOVA, "encoding=linear16&sample_rate=44100&channels=2", 88_200, 500),
        (FLUX, PCM, 48_000, 1_500),
        ("@cf/pipecat-ai/smart-turn-v2", "", 16_000, 500),
    ] {
        let before = gate.receipts.all().len();
        let charged = gate.vendor.counts().neurons();
        let mut socket = open(&gate, model, encoding).await;
        for piece in vec![1u8; bytes].chunks(1000) {
            socket.send(Message::Binary(piece.to_vec().into())).await.unwrap();
        }
        socket.close(None).await.unwrap();
        rest(&mut socket).await;
        let facts = gate.receipts.after(before + 1).await.pop().unwrap();
        assert_eq!((facts.outcome, facts.usage.audio_ms), (Outcome::Ok, millis), "{model} {encoding}");
        let charged = gate.vendor.counts().neurons().saturating_sub(charged);
        assert_eq!(facts.cost.neurons, charged, "{model} {encoding}");
    }
}

#[tokio::test]
async fn speech_that_is_made_costs_its_characters() {
    let gate = Gate::start();
    let mut socket = open(&gate, AURA, "encoding=linear16&sample_rate=24000&container=none").await;
    send(&mut socket, json!({"type": "Speak", "text": "Grüß Gott"})).await;
    send(&mut socket, json!({"type": "Flush"})).await;
    let mut sound = 0;
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Binary(piece) => sound += piece.len(),
            Message::Text(text) if text.contains("Flushed") => break,
            _ => {}
        }
    }
    assert_eq!(sound, 9 * 24_000 / 15 * 2);
    send(&mut socket, json!({"type": "Close"})).await;
    assert_eq!(rest(&mut socket).await.1, Some((1000, String::new())));
    let facts = sealed(&gate).await;
    assert_eq!((facts.usage.characters, facts.cost.source), (9, Source::Computed));
    assert_eq!(facts.cost.neurons, gate.vendor.counts().neurons());
}

#[tokio::test]
async fn each_form_of_path_and_of_token_opens_a_socket() {
    let mut settings = Settings::default();
    (settings.latency, settings.rate_limits, settings.token) = (0.0, false, Some(TOKEN.into()));
    let gate = Gate::with(tollgate::simulator::start(settings).unwrap(), |_| {});
    let (bearer, bare) = (format!("Bearer {TOKEN}"), TOKEN.to_owned());
    let (protocol, token) = (format!("cf-aig-authorization.{TOKEN}"), format!("Token {TOKEN}"));
    let cases = [
        (format!("/client/v4/accounts/acc/ai/run/{NOVA}?{PCM}"), "authorization", &bearer),
        (format!("/run/{NOVA}?{PCM}"), "cf-aig-authorization", &bearer),
        (format!("/v1/acc/gw/workers-ai?model={NOVA}&{PCM}"), "cf-aig-authorization", &bare),
        (format!("/v1/acc/gw/workers-ai?{PCM}&model=%40cf%2Fdeepgram%2Fnova-3"), "sec-websocket-protocol", &protocol),
        (format!("/v1/listen?model=nova-3&{PCM}"), "authorization", &token),
    ];
    for (n, (path, header, value)) in cases.iter().enumerate() {
        let mut socket = open_with(&gate, path, &[(header, value)]).await.unwrap();
        speak(&mut socket, 1).await;
        socket.close(None).await.unwrap();
        rest(&mut socket).await;
        let facts = gate.receipts.after(n + 1).await.pop().unwrap();
        assert_eq!((&*facts.model.id, facts.usage.audio_ms), (NOVA, 20), "{path}");
    }
    let seen = gate.vendor.seen();
    assert!(
        seen.iter().all(|seen| !format!("{seen:?}").contains("cf-aig-authorization")),
        "it went on as the API takes it"
    );
}

#[tokio::test]
async fn what_is_refused_is_told_before_the_upgrade() {
    let vendor = crate::support::vendor();
    let mut config = crate::support::config(&vendor.base_url());
    let mut key = Key::new("team", sha256("tg_team"));
    key.models = vec![NOVA.into()];
    config.keys = vec![key];
    let variables = vec![("CLOUDFLARE_API_TOKEN".to_owned(), TOKEN.to_owned())];
    let (sidecar, receipts) = crate::support::start_with(config, &variables);
    let gate = Gate { vendor, sidecar, receipts, client: crate::support::client() };
    gate.vendor.fault(FaultRule::times(Fault::new(Trouble::Error(3040)), 1).on(NOVA));
    let own = format!("Bearer {TOKEN}");
    let key = ("cf-aig-authorization", "Bearer tg_team");
    let vendors = ("authorization", &*own);
    for (path, headers, status, says) in [
        (format!("/run/{NOVA}?{PCM}"), vec![vendors], 401, "key"),
        (format!("/run/{NOVA}?{PCM}"), vec![vendors, key], 429, "3040"),
        (format!("/run/{FLUX}?{PCM}"), vec![vendors, key], 403, "not for"),
        ("/run/@cf/meta/llama-3.2-1b-instruct".into(), vec![vendors, key], 403, "not for"),
        ("/v1/chat/completions".into(), vec![vendors, key], 404, "no WebSocket"),
        ("/run".into(), vec![vendors, key], 400, "?model="),
    ] {
        let (is, text) = refused(open_with(&gate, &path, &headers).await.unwrap_err());
        assert_eq!(is, status, "{path}: {text}");
        assert!(text.contains(says) && text.contains("\"success\":false"), "{path}: {text}");
    }
    let mut socket = open_with(&gate, &format!("/run/{NOVA}?{PCM}"), &[vendors, key]).await.unwrap();
    socket.close(None).await.unwrap();
    rest(&mut socket).await;
    let facts = gate.receipts.after(7).await.pop().unwrap();
    assert_eq!((facts.key.as_deref(), facts.outcome), (Some("team"), Outcome::Ok));
}

#[tokio::test]
async fn a_model_without_a_socket_is_asked_otherwise() {
    let gate = Gate::start();
    let (status, text) = refused(open_with(&gate, &format!("/run/{NOVA}"), &[]).await.unwrap_err());
    assert!(status == 401 && text.contains("cf-aig-authorization.TOKEN"), "{text}");
    let bearer = format!("Bearer {TOKEN}");
    let path = format!("/run/{}", crate::support::LLAMA);
    let (status, text) = refused(open_with(&gate, &path, &[("authorization", &bearer)]).await.unwrap_err());
    assert_eq!(status, 400);
    assert!(text.contains("has no WebSocket"), "{text}");
}

#[tokio::test]
async fn each_sides_end_is_the_others() {
    let mut settings = Settings::default();
    (settings.latency, settings.rate_limits, settings.socket_idle) = (0.0, false, Duration::from_millis(300));
    let gate = Gate::with(tollgate::simulator::start(settings).unwrap(), |_| {});
    // The vendor's silence is told by a code, or by none.
    for (n, (model, close, outcome, told)) in [
        (NOVA, Some((1011, "NET-0001: no audio in time".to_owned())), Outcome::UpstreamError, Some(1011)),
        (FLUX, None, Outcome::UpstreamError, Some(1006)),
    ]
    .into_iter()
    .enumerate()
    {
        let mut socket = open(&gate, model, PCM).await;
        speak(&mut socket, 10).await;
        assert_eq!(rest(&mut socket).await.1, close, "{model}");
        let facts = gate.receipts.after(n + 1).await.pop().unwrap();
        assert_eq!((facts.outcome, facts.usage.audio_ms), (outcome, 200), "{model}");
        assert_eq!(facts.socket.unwrap().close_code, told, "{model}");
    }
    // A client that vanishes is charged what it sent.
    let mut socket = open(&gate, NOVA, PCM).await;
    speak(&mut socket, 10).await;
    drop(socket);
    let facts = gate.receipts.after(3).await.pop().unwrap();
    assert_eq!((facts.outcome, facts.usage.audio_ms), (Outcome::Aborted, 200));
    // One that closes with a code of its own has it passed on.
    let mut socket = open(&gate, NOVA, PCM).await;
    let close =
        tokio_tungstenite::tungstenite::protocol::CloseFrame { code: CloseCode::Library(4321), reason: "x".into() };
    socket.close(Some(close)).await.unwrap();
    assert_eq!(rest(&mut socket).await.1.map(|(code, _)| code), Some(4321));
    let facts = gate.receipts.after(4).await.pop().unwrap();
    assert_eq!((facts.outcome, facts.socket.unwrap().close_code), (Outcome::Ok, Some(4321)));
}

fn with_budget(limit: &str) -> Gate {
    Gate::with(crate::support::vendor(), |config| {
        config.sockets.stretch = Duration::from_secs(5);
        let toml = format!("[[budgets]]\nname = \"speech\"\nlimit = \"{limit}\"\nwindow = \"day\"\n");
        config.budgets = tollgate::sidecar::config::Config::parse(&toml, "test").unwrap().budgets;
    })
}

/// Sends until it is ended, at most so many frames; tells what it was told.
async fn talk(mut socket: Socket, frames: usize) -> (Vec<Value>, Option<(u16, String)>) {
    let (mut to, mut from) = (&mut socket).split();
    let speaking = async {
        for _ in 0..frames {
            if to.send(Message::Binary(vec![7; FRAME].into())).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let hearing = async {
        let mut texts = Vec::new();
        while let Some(Ok(message)) = from.next().await {
            match message {
                Message::Text(text) => texts.push(serde_json::from_str(&text).unwrap()),
                Message::Close(frame) => {
                    return (texts, frame.map(|frame| (u16::from(frame.code), frame.reason.to_string())));
                }
                _ => {}
            }
        }
        (texts, None)
    };
    tokio::select! { () = speaking => unreachable!(), heard = hearing => heard }
}

#[tokio::test]
async fn where_the_money_ends_each_client_is_told_why_and_nothing_is_overspent() {
    // Twelve seconds of nova-3 for each of the voices, that would talk for an hour; TOLLGATE_VOICES=50 are fifty beside ten minutes.
    let voices = std::env::var("TOLLGATE_VOICES").map_or(10, |voices| voices.parse().unwrap());
    let worth = 836.36 / 5.0 * f64::from(voices);
    let gate = with_budget(&format!("{worth} neurons"));
    let bearer = format!("Bearer {TOKEN}");
    let mut talks = Vec::new();
    let mut refusals = 0;
    for _ in 0..voices {
        match open_with(&gate, &format!("/run/{NOVA}?{PCM}"), &[("authorization", &bearer)]).await {
            Ok(socket) => talks.push(tokio::spawn(talk(socket, 3600 * 50))),
            Err(error) => {
                let (status, text) = refused(error);
                assert!(status == 429 && text.contains("speech"), "{status} {text}");
                refusals += 1;
            }
        }
    }
    let opened = talks.len();
    assert!(opened > 0 && opened + refusals == voices as usize);
    for talk in talks {
        let (texts, close) = talk.await.unwrap();
        let (code, reason) = close.unwrap();
        assert_eq!(code, 1008, "{reason}");
        assert!(reason.contains("speech") && reason.contains("room again in"), "{reason}");
        let last = texts.last().unwrap();
        assert_eq!((&last["type"], &last["err_code"]), (&json!("Error"), &json!("budget_exceeded")), "{last}");
        assert!(texts.iter().any(|text| text["type"] == "Metadata"), "the vendor had its last word");
    }
    let facts = gate.receipts.after(voices as usize).await;
    let ended: Vec<_> = facts.iter().filter(|facts| facts.socket.is_some()).collect();
    assert!(ended.iter().all(|facts| facts.outcome == Outcome::BudgetExceeded));
    let (spent, limit) = (gate.vendor.counts().neurons(), Neurons::from_f64(worth));
    println!("{opened} voices talked and {refusals} were refused: {spent} of {limit} were spent");
    assert!(spent <= limit, "{spent} of {limit}");
    // What no second was left for may lie idle, for each of them.
    assert!(spent.as_f64() > worth - 14.0 * (opened + 1) as f64, "{spent} of {limit}");
    let charged: Neurons = ended.iter().map(|facts| facts.cost.neurons).sum();
    assert_eq!(charged, spent);
    for budget in gate.budgets().await["budgets"].as_array().unwrap() {
        assert_eq!(budget["reserved_neurons"], 0.0, "{budget}");
    }
}

#[tokio::test]
async fn a_speech_that_no_budget_covers_is_not_spoken() {
    // 2.72727 neurons a character.
    let gate = with_budget("272.727 neurons");
    let mut socket = open(&gate, AURA, "").await;
    for _ in 0..3 {
        send(&mut socket, json!({"type": "Speak", "text": "x".repeat(40)})).await;
    }
    let (texts, close) = rest(&mut socket).await;
    assert_eq!(close.unwrap().0, 1008);
    assert_eq!(texts.last().unwrap()["type"], "Warning");
    let facts = sealed(&gate).await;
    assert_eq!(facts.usage.characters, 80);
    assert_eq!(gate.vendor.counts().models[AURA].characters, 80);
}

#[tokio::test]
async fn a_socket_ends_at_its_longest_and_where_nothing_passes() {
    for (longest, idle, code, outcome) in [(1, 60, 1008, "max_duration"), (60, 1, 1000, "idle_timeout")] {
        let gate = Gate::with(crate::support::vendor(), |config| {
            config.sockets.max_duration = Duration::from_secs(longest);
            config.sockets.idle_timeout = Duration::from_secs(idle);
        });
        let mut socket = open(&gate, FLUX, PCM).await;
        let (texts, close) = rest(&mut socket).await;
        let (is, reason) = close.unwrap();
        assert_eq!(is, code, "{reason}");
        assert!(reason.contains(outcome), "{reason}");
        assert_eq!(texts.last().unwrap()["type"], "Error");
        let facts = sealed(&gate).await;
        assert_eq!((facts.outcome, facts.refused), (Outcome::Timeout, Some(outcome)));
    }
}

#[tokio::test]
async fn what_is_no_frame_ends_the_socket_with_the_reason() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for (bytes, code) in [
        (&[0x82, 0x01, 0x00][..], 1002),                              // not masked
        (&[0xc2, 0x80, 0, 0, 0, 0], 1002),                            // compressed
        (&[0x80, 0x80, 0, 0, 0, 0], 1002),                            // a fragment of nothing
        (&[0x83, 0x80, 0, 0, 0, 0], 1002),                            // a reserved kind
        (&[0x09, 0x80, 0, 0, 0, 0], 1002),                            // a ping in fragments
        (&[0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0], 1009), // a mebibyte, of which none comes
    ] {
        let gate = Gate::with(crate::support::vendor(), |config| {
            config.sockets.max_frame = "64KiB".parse().unwrap();
        });
        let mut stream = TcpStream::connect(gate.sidecar.listen()).await.unwrap();
        let request = format!(
            "GET /run/{NOVA}?{PCM} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nauthorization: Bearer t\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(
            head.starts_with(b"HTTP/1.1 101")
                && String::from_utf8_lossy(&head).contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        stream.write_all(bytes).await.unwrap();
        let mut told = Vec::new();
        stream.read_to_end(&mut told).await.unwrap();
        let place = told.windows(4).rposition(|window| window[0] == 0x88 && window[2..] == u16::to_be_bytes(code));
        assert!(place.is_some(), "{bytes:x?}: {:?}", String::from_utf8_lossy(&told));
        let facts = sealed(&gate).await;
        assert_eq!((facts.outcome, facts.refused), (Outcome::ClientError, Some("protocol_error")), "{bytes:x?}");
    }
}

#[tokio::test]
async fn a_running_socket_is_seen_in_the_metrics_and_on_the_page() {
    let gate = Gate::start();
    let mut socket = open(&gate, NOVA, PCM).await;
    speak(&mut socket, 100).await;
    let open_now = format!("tollgate_sockets_open{{model=\"{NOVA}\"}} 1");
    let seconds = format!("tollgate_audio_seconds_total{{model=\"{NOVA}\"}} 2");
    crate::support::until(async || {
        let metrics = gate.metrics().await;
        metrics.contains(&open_now) && metrics.contains(&seconds)
    })
    .await;
    let page = gate.client.get(format!("http://{}/page/now", gate.sidecar.admin())).send().await.unwrap();
    let page = page.text().await.unwrap();
    assert!(page.contains("Open sockets") && page.contains("nova-3"), "{page}");
    socket.close(None).await.unwrap();
    rest(&mut socket).await;
    sealed(&gate).await;
    let metrics = gate.metrics().await;
    assert!(metrics.contains(&open_now.replace("} 1", "} 0")) && metrics.contains(&seconds), "{metrics}");
}

#[tokio::test]
async fn a_thousand_sockets_leave_nothing_behind() {
    let gate = Gate::start();
    let tasks = async || {
        let metrics = gate.metrics().await;
        let line = metrics.lines().find(|line| line.starts_with("tollgate_tasks ")).unwrap().to_owned();
        line.split(' ').nth(1).unwrap().parse::<f64>().unwrap()
    };
    let before = tasks().await;
    for _ in 0..10 {
        let calls = (0..100).map(|n| {
            let gate = &gate;
            async move {
                let mut socket = open(gate, if n % 2 == 0 { NOVA } else { FLUX }, PCM).await;
                speak(&mut socket, 1).await;
                // Some say goodbye, some do not.
                if n % 3 > 0 {
                    socket.close(None).await.unwrap();
                    rest(&mut socket).await;
                }
            }
        });
        futures_util::future::join_all(calls).await;
    }
    let facts = gate.receipts.after(1000).await;
    assert!(facts.iter().all(|facts| facts.usage.audio_ms == 20));
    crate::support::until(async || tasks().await <= before + 8.0).await;
    let metrics = gate.metrics().await;
    assert!(metrics.contains(&format!("tollgate_sockets_open{{model=\"{NOVA}\"}} 0")));
    assert!(metrics.contains("tollgate_in_flight_requests 0"));
}
