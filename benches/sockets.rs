//! What the gate adds to a frame of speech, and what an open socket takes: 200 sockets of 50 frames a second beside the same without
//! a gate, and the gate's resident memory at 1,000 open ones. A ping goes to the vendor and back as a frame does.

#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const SPEAKING: usize = 200;
const OPEN: usize = 1_000;
const FRAME_EVERY: Duration = Duration::from_millis(20);
const FRAMES: u32 = 250;

async fn open(base: &str) -> Socket {
    let path = "client/v4/accounts/acc/ai/run/@cf/deepgram/nova-3?encoding=linear16&sample_rate=16000";
    let mut request = format!("ws://{base}/{path}").into_client_request().unwrap();
    request.headers_mut().insert("authorization", "Bearer t".parse().unwrap());
    // With Nagle's algorithm a ping right after a frame waits for the frame's acknowledgement, which the kernel delays by 40 ms.
    let without_nagle = true;
    connect_async_with_config(request, None, without_nagle).await.unwrap().0
}

/// How long pings took beside the frames, shortest first.
async fn speak(base: &str) -> Vec<Duration> {
    let mut voices = tokio::task::JoinSet::new();
    for voice in 0..SPEAKING {
        let mut socket = open(base).await;
        voices.spawn(async move {
            tokio::time::sleep(FRAME_EVERY.mul_f64(voice as f64 / SPEAKING as f64)).await;
            let mut ticks = tokio::time::interval(FRAME_EVERY);
            let mut times = Vec::new();
            for frame in 0..FRAMES {
                ticks.tick().await;
                socket.send(Message::Binary(vec![7; 640].into())).await.unwrap();
                if frame % 5 == 0 {
                    let sent = Instant::now();
                    socket.send(Message::Ping(frame.to_le_bytes().to_vec().into())).await.unwrap();
                    while !matches!(socket.next().await.unwrap().unwrap(), Message::Pong(_)) {}
                    times.push(sent.elapsed());
                }
            }
            let _ = socket.close(None).await;
            times
        });
    }
    let mut times: Vec<_> = voices.join_all().await.concat();
    times.sort_unstable();
    times
}

/// In bytes.
fn resident(gate: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn gate(upstream: &str) -> (Child, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(["serve", "--upstream", upstream]).stdout(Stdio::piped()).stderr(Stdio::null());
    command.envs([
        ("TOLLGATE_LISTEN", "127.0.0.1:0"),
        ("TOLLGATE_ADMIN", "127.0.0.1:0"),
        ("CLOUDFLARE_ACCOUNT_ID", "acc"),
    ]);
    command.envs([("TOLLGATE_RECORDS_PATH", ""), ("TOLLGATE_CATALOGUE_PATH", ""), ("TOLLGATE_KEYS_PATH", "")]);
    command.env("TOLLGATE_SOCKETS", "{ takes_turn = false }").env("TOLLGATE_MAX_CONNECTIONS_PER_ADDRESS", "0");
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let address = line.split("listening on http://").nth(1).unwrap().split([',', '\n']).next().unwrap().to_owned();
    (child, address)
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut settings = tollgate::simulator::Settings::default();
        (settings.latency, settings.rate_limits, settings.socket_idle) = (0.0, false, Duration::from_secs(60));
        let vendor = tollgate::simulator::start(settings).unwrap();
        let direct = vendor.base_url().trim_start_matches("http://").to_owned();
        let (mut child, address) = gate(&vendor.base_url());

        let before = speak(&direct).await;
        let through = speak(&address).await;
        let at = |times: &[Duration], part: f64| times[(times.len() as f64 * part) as usize];
        println!("{SPEAKING} sockets of 50 frames a second, there and back:");
        for part in [0.5, 0.99] {
            let (direct, gate) = (at(&before, part), at(&through, part));
            println!(
                "  p{:<2} {direct:?} without, {gate:?} through the gate: {:?} more",
                part * 100.0,
                gate.saturating_sub(direct)
            );
        }

        let idle = resident(&child);
        let mut sockets = Vec::new();
        for _ in 0..OPEN {
            let mut socket = open(&address).await;
            socket.send(Message::Binary(vec![7; 640].into())).await.unwrap();
            sockets.push(socket);
        }
        let open = resident(&child);
        println!("{OPEN} open sockets: {:.1} KiB each", open.saturating_sub(idle) as f64 / 1024.0 / OPEN as f64);
        child.kill().unwrap();
        child.wait().unwrap();
    });
}
