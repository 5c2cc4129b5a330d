//! Writes the first inputs of each target, from the shapes that the tests have.

use std::fs;
use std::io;
use std::path::Path;

use base64::Engine;
use serde_json::Value;

fn main() -> io::Result<()> {
    let (tests, fuzz) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus"), Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus"));
    let put = |target: &str, name: usize, input: &[u8]| {
        let folder = fuzz.join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("seed-{name}")), input)
    };
    let mut number = 0;
    for file in fs::read_dir(&tests)? {
        let path = file?.path();
        if path.extension().is_none_or(|kind| kind != "json") {
            continue;
        }
        let shapes: Value = serde_json::from_slice(&fs::read(&path)?)?;
        for shape in shapes["shapes"].as_array().into_iter().flatten() {
            number += 1;
            let body = body(shape);
            let kind = shape["content_type"].as_str().unwrap_or("");
            match kind.split_once(';') {
                Some((form, parameters)) if form.to_ascii_lowercase().starts_with("multipart") => {
                    put("forms", number, &[parameters.trim().as_bytes(), b"\n", &body].concat())?;
                }
                _ => put("bodies", number, &[&[pick(kind)], &*body].concat())?,
            }
        }
    }
    let replies: Value = serde_json::from_slice(&fs::read(tests.join("replies/replies.json"))?)?;
    for (number, reply) in replies["replies"].as_array().into_iter().flatten().enumerate() {
        let is_stream = reply["content_type"] == "text/event-stream";
        let body = reply["body"].as_str().unwrap_or_default();
        put("streams", number, &[&[if is_stream { 0 } else { 3 }, 7], body.as_bytes()].concat())?;
    }
    for (number, head) in HEADS.iter().enumerate() {
        put("heads", number, &[b"\0", head.as_bytes()].concat())?;
        put("heads", number + 100, &[b"\x01", head.as_bytes()].concat())?;
    }
    for (number, query) in QUERIES.iter().enumerate() {
        put("log_query", number, query.as_bytes())?;
    }
    put("config", 0, CONFIG.as_bytes())?;
    put("cache_file", 0, CACHE)
}

fn body(shape: &Value) -> Vec<u8> {
    match (shape["body"].as_str(), shape["body_base64"].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (_, Some(base64)) => base64::engine::general_purpose::STANDARD.decode(base64).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// The first byte of `bodies` for a content type on the vendor's own route.
fn pick(kind: &str) -> u8 {
    let types = ["application/json", "", "audio/", "image/", "application/octet-stream", "text/plain"];
    let at = types.iter().rposition(|known| !known.is_empty() && kind.starts_with(known)).unwrap_or(1);
    at as u8 * 4
}

const HEADS: [&str; 5] = [
    "POST /run/@cf/meta/llama-3.2-1b-instruct HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t\r\ncontent-type: application/json\r\ncontent-length: 14\r\n\r\n{\"prompt\":\"x\"}",
    "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\nGET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    "OPTIONS * HTTP/1.0\r\norigin: http://evil.example\r\n\r\n",
];
const QUERIES: [&str; 5] = [
    "?page=1&per_page=20&model=@cf/meta/llama-3.2-1b-instruct",
    "?start_date=2026-11-27T00:00:00Z&success=true&cached=false&outcome=ok",
    "?before=0190a5b2c3d4e5f60718293a4b5c6d7e&status=200&feedback=-1",
    "/0190a5b2c3d4e5f60718293a4b5c6d7e/request",
    "/0190a5b2c3d4e5f60718293a4b5c6d7e\n{\"feedback\":1,\"score\":50,\"metadata\":{\"a\":1}}",
];
const CONFIG: &str = "listen = \"127.0.0.1:8787\"\n[upstream]\naccount_id = \"023e\"\n[cache]\nttl = \"5m\"\n[[budgets]]\nname = \"all\"\n\
    neurons = 1000\nper = \"day\"\n[[keys]]\nname = \"a\"\nsha256 = \"2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae\"\n\
    [limits.models.\"@cf/meta/llama-3.2-1b-instruct\"]\nrequests = 100\n";
const CACHE: &[u8] = b"{\"secret\":[1,2,3,4]}\n{\"key\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],\"model\":\"m\",\
    \"headers\":[[\"content-type\",\"application/json\"]],\"pooling\":null,\"cost\":1.5,\"kept_at\":{\"secs\":4000000000,\"nanos\":0},\
    \"ttl\":{\"secs\":300,\"nanos\":0},\"length\":2}\n{}";
