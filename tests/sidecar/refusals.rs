//! A refusal arrives: a client that is still sending its body when it is refused sees the reason, and no reset.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use tollgate::layers::identify::keys::{Key, sha256};
use tollgate::sidecar::Sidecar;

use crate::support::{LLAMA, config, node_place, tool, vendor};

const SIZES: [usize; 3] = [32 << 10, 1 << 20, 30 << 20];

type Headers = Vec<(&'static str, &'static str)>;

/// What is refused before its body is here: path, method, headers, and how it is told.
fn refused() -> Vec<(String, &'static str, Headers, u16)> {
    let (chat, key) = ("/v1/chat/completions".to_owned(), ("authorization", "Bearer tg_key"));
    vec![
        (chat.clone(), "POST", vec![], 401),
        (chat.clone(), "POST", vec![("authorization", "Bearer tg_wrong")], 401),
        ("/nowhere".into(), "POST", vec![key], 404),
        (format!("/run/{LLAMA}"), "PUT", vec![key], 405),
        (chat.clone(), "POST", vec![key], 413),
        (chat.clone(), "POST", vec![key, ("content-encoding", "lzma")], 413),
        (chat, "POST", vec![("authorization", "Bearer tg_spent")], 429),
    ]
}

/// A gate that takes bodies of 16 KiB, with a key, and another that has one call a minute.
fn gate(linger: Duration) -> (tollgate::simulator::Running, Sidecar) {
    let vendor = vendor();
    let mut config = config(&vendor.base_url());
    config.max_body = bytesize::ByteSize::kib(16);
    config.timeouts.linger = linger;
    let mut spent = Key::new("spent", sha256("tg_spent"));
    spent.requests_per_minute = std::num::NonZeroU32::new(1);
    config.keys.extend([Key::new("key", sha256("tg_key")), spent]);
    let variables = vec![("CLOUDFLARE_API_TOKEN".to_owned(), "own".to_owned())];
    let sidecar = Sidecar::start(config, &variables, Vec::new()).unwrap();
    (vendor, sidecar)
}

/// Asks with the spent key's only call of the minute made. A minute may end between the two, and then it is asked once more: the
/// call that found no refusal was the minute's own.
fn asked(sidecar: &Sidecar, status: u16, ask: impl Fn() -> String) -> String {
    let call = head("/v1/chat/completions", "POST", &[("authorization", "Bearer tg_spent")], 2) + "{}";
    assert!(!answer(sidecar, call.as_bytes(), &[]).is_empty());
    let seen = ask();
    if status == 429 && !seen.contains("429") { ask() } else { seen }
}

fn head(path: &str, method: &str, headers: &[(&str, &str)], length: usize) -> String {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// Sends all of it before it reads anything, as the simplest clients do. The reply's head.
fn answer(sidecar: &Sidecar, head: &[u8], body: &[u8]) -> String {
    let mut stream = TcpStream::connect(sidecar.listen()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(head).unwrap();
    stream.write_all(body).expect("the body is taken to its end");
    let mut reply = Vec::new();
    let mut piece = [0; 4096];
    while !reply.windows(4).any(|four| four == b"\r\n\r\n") {
        let read = stream.read(&mut piece).expect("the reply is read, and no reset");
        assert!(read > 0, "the connection ended before its reply");
        reply.extend_from_slice(&piece[..read]);
    }
    String::from_utf8_lossy(&reply).into_owned()
}

#[test]
fn a_client_that_sends_all_before_it_reads_sees_the_reason() {
    let (_vendor, sidecar) = gate(Duration::from_secs(30));
    for size in SIZES {
        let body = vec![b' '; size];
        for (path, method, headers, status) in refused() {
            let head = head(&path, method, &headers, size);
            let reply = asked(&sidecar, status, || answer(&sidecar, head.as_bytes(), &body));
            assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{size} bytes to {path}: {reply}");
        }
    }
}

#[test]
fn nobody_is_asked_for_a_body_that_is_refused() {
    let (_vendor, sidecar) = gate(Duration::from_secs(30));
    let expecting = [("authorization", "Bearer tg_wrong"), ("expect", "100-continue")];
    let reply = answer(&sidecar, head("/v1/chat/completions", "POST", &expecting, 1 << 20).as_bytes(), &[]);
    assert!(reply.starts_with("HTTP/1.1 401 "), "{reply}");
}

#[test]
fn the_rest_of_a_body_is_not_waited_for_longer_than_is_set() {
    let (_vendor, sidecar) = gate(Duration::from_secs(1));
    let mut stream = TcpStream::connect(sidecar.listen()).unwrap();
    stream.write_all(head("/nowhere", "POST", &[("authorization", "Bearer tg_key")], 1 << 20).as_bytes()).unwrap();
    let begun = Instant::now();
    // A byte now and then, until the gate has had enough.
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut reply = [0; 4096];
    loop {
        let _ = stream.write(b" ");
        match stream.read(&mut reply) {
            Ok(0) => break,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            _ => assert!(begun.elapsed() < Duration::from_secs(15), "it is still open"),
        }
    }
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
}

/// Each of the refusals by a real client: `ask(url, method, headers, size)` prints the status that it saw.
fn each_refusal(sidecar: &Sidecar, ask: impl Fn(&str, &str, &[(&str, &str)], usize) -> String) {
    for size in SIZES {
        for (path, method, headers, status) in refused() {
            let url = format!("http://{}{path}", sidecar.listen());
            let seen = asked(sidecar, status, || ask(&url, method, &headers, size));
            assert_eq!(seen.trim(), status.to_string(), "{size} bytes to {path}");
        }
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn curl_sees_the_reason() {
    if Command::new("curl").arg("--version").output().is_err() {
        assert!(std::env::var_os("TOLLGATE_TEST_ALL").is_none(), "there is no curl");
        println!("left out: curl, which is not here (tests/all installs it)");
        return;
    }
    let (_vendor, sidecar) = gate(Duration::from_secs(30));
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        each_refusal(&sidecar, |url, method, headers, size| {
            let body = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(&body, vec![b' '; size]).unwrap();
            let mut curl = Command::new("curl");
            curl.args(["-q", "-sS", "--noproxy", "*", version, "-X", method, "-o", "/dev/null", "-w", "%{http_code}"]);
            // Without this, curl asks first whether it may send so much.
            curl.args(["-H", "expect:", "--data-binary", &format!("@{}", body.path().display()), url]);
            let headers = headers.iter().flat_map(|(name, value)| ["-H".to_owned(), format!("{name}: {value}")]);
            run(curl.args(headers))
        });
    }
}

#[test]
fn httpx_sees_the_reason() {
    let Some(python) = tool("TOLLGATE_TEST_CLIENTS", "httpx, and refusals of what it still sends") else { return };
    let (_vendor, sidecar) = gate(Duration::from_secs(30));
    const SCRIPT: &str = "
import sys, httpx
version, url, method, size, *headers = sys.argv[1:]
pairs = dict(zip(headers[::2], headers[1::2]))
with httpx.Client(http1=version == '1', http2=version == '2', timeout=30, trust_env=False) as client:
    print(client.request(method, url, content=b' ' * int(size), headers=pairs).status_code)
";
    for version in ["1", "2"] {
        each_refusal(&sidecar, |url, method, headers, size| {
            let headers = headers.iter().flat_map(|(name, value)| [*name, *value]);
            run(Command::new(&python).args(["-c", SCRIPT, version, url, method, &size.to_string()]).args(headers))
        });
    }
}

#[test]
fn nodes_fetch_sees_the_reason() {
    let Some(installed) = tool("TOLLGATE_TEST_NODE", "node's fetch, and refusals of what it still sends") else {
        return;
    };
    let place = node_place(std::path::Path::new(&installed));
    let (_vendor, sidecar) = gate(Duration::from_secs(30));
    const SCRIPT: &str = "
const [url, method, size, headers] = process.argv.slice(1);
const reply = await fetch(url, { method, body: Buffer.alloc(Number(size), 32), headers: JSON.parse(headers) });
await reply.text();
console.log(reply.status);
";
    each_refusal(&sidecar, |url, method, headers, size| {
        let headers: serde_json::Map<_, _> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        let headers = serde_json::Value::Object(headers).to_string();
        let node = std::path::Path::new(&installed).join("node_modules/.bin/node");
        let script = ["--input-type=module", "-e", SCRIPT, url, method, &size.to_string(), &headers].map(str::to_owned);
        run(Command::new(node).args(script).current_dir(place.path()))
    });
}
