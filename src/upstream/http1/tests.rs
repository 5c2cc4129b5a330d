use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body::Frame;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Semaphore;

use super::broken::Broken;
use super::connection::{Connection, MAX_HEAD_BYTES};
use crate::body::Body;

/// A connection and its other side, which takes so many bytes before they are read.
async fn connection(room: usize) -> (Connection, DuplexStream) {
    let (near, far) = duplex(room);
    let place = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
    (Connection::new(Box::new(near), place), far)
}

fn request(method: Method, body: impl Into<Body>) -> Request<Body> {
    let request = Request::builder().method(method).uri("http://api.test:80/path?query=1").header("x-own", "value");
    request.body(body.into()).unwrap()
}

/// A body whose length nobody knows.
fn unsized_body(pieces: &[&'static str]) -> Body {
    let pieces: VecDeque<_> = pieces.iter().map(|piece| Ok::<_, io::Error>(Frame::data(Bytes::from(*piece)))).collect();
    Body::stream(http_body_util::StreamBody::new(futures_util::stream::iter(pieces)))
}

/// What upstream answers a request with these bytes, after which it closes: the reply, its body, and whether the connection is
/// good for another one.
async fn answered(method: Method, reply: &[u8], cut: usize) -> Result<(StatusCode, Bytes, bool), Broken> {
    let (connection, mut far) = connection(1 << 20).await;
    let reply = reply.to_vec();
    tokio::spawn(async move {
        let mut read = [0; 16];
        far.read_exact(&mut read).await.unwrap();
        for piece in reply.chunks(cut.max(1)) {
            far.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    let (head, mut incoming) = connection.send(request(method, "{}")).await?.into_parts();
    let mut body = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| incoming.poll_frame(cx)).await {
        body.extend_from_slice(&frame?.into_data().unwrap_or_default());
    }
    Ok((head.status, body.freeze(), incoming.into_reusable().is_some()))
}

fn chunked(body: &[u8], chunk: usize, trailers: &str) -> Vec<u8> {
    let mut framed = Vec::new();
    for piece in body.chunks(chunk.max(1)) {
        framed.extend(format!("{:X};ext=\"1\"\r\n", piece.len()).bytes());
        framed.extend([piece, b"\r\n"].concat());
    }
    framed.extend(format!("0\r\n{trailers}\r\n").bytes());
    framed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_body_is_the_same_however_it_is_framed_and_cut(
        body in prop::collection::vec(any::<u8>(), 0..2000),
        chunk in 1_usize..600,
        cut in 1_usize..700,
        has_trailers in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let with = |head: String, framed: Vec<u8>| [head.into_bytes(), framed].concat();
        let continued = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n";
        let trailers = if has_trailers { "x-sum: 1\r\n" } else { "" };
        let all = [
            (with(format!("{continued}Content-Length: {}\r\n\r\n", body.len()), body.clone()), true),
            (with("HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n".into(), chunked(&body, chunk, trailers)), true),
            (with("HTTP/1.1 200 OK\r\n\r\n".into(), body.clone()), false),
            (with("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n".into(), body.clone()), false),
            (with(format!("HTTP/1.0 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()), body.clone()), false),
            (with(format!("HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: {0}, {0}\r\n\r\n", body.len()), body.clone()), false),
        ];
        for (reply, is_reusable) in all {
            let told = runtime.block_on(answered(Method::POST, &reply, cut)).unwrap();
            prop_assert_eq!(told, (StatusCode::OK, Bytes::from(body.clone()), is_reusable));
        }
    }

    #[test]
    fn bytes_that_are_no_reply_are_an_error_and_no_panic(reply in prop::collection::vec(any::<u8>(), 0..300), cut in 1_usize..50) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let junk = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".as_slice(), &reply].concat();
        for reply in [reply, junk] {
            let _ = runtime.block_on(answered(Method::POST, &reply, cut));
        }
    }

    #[test]
    fn a_reply_that_is_cut_is_never_taken_for_a_whole_one(
        body in prop::collection::vec(any::<u8>(), 1..500),
        chunk in 1_usize..200,
        part in 0.0..1.0_f64,
        is_chunked in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let reply = match is_chunked {
            true => [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".as_slice(), &chunked(&body, chunk, "")].concat(),
            false => [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat(),
        };
        let cut = (reply.len() as f64 * part) as usize;
        let told = runtime.block_on(answered(Method::POST, &reply[..cut], 100));
        prop_assert!(matches!(told, Err(Broken::Closed)), "{told:?}");
    }
}

#[tokio::test]
async fn replies_without_a_body_have_none() {
    for (method, reply) in [
        (Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"),
        (Method::POST, "HTTP/1.1 204 No Content\r\n\r\n"),
        (Method::GET, "HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\n\r\n"),
        (Method::POST, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    ] {
        let (_, body, is_reusable) = answered(method, reply.as_bytes(), 7).await.unwrap();
        assert!(body.is_empty() && is_reusable, "{reply}");
    }
}

#[tokio::test]
async fn what_is_no_reply_is_told_as_such() {
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(MAX_HEAD_BYTES + 1));
    for reply in [
        "SSH-2.0-OpenSSH_9.6\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\n1",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n1",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5 5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhello\r\n",
        &endless,
    ] {
        let told = answered(Method::POST, reply.as_bytes(), 1 << 16).await;
        assert!(matches!(told, Err(Broken::Malformed(_))), "{told:?}");
    }
    assert!(matches!(answered(Method::POST, b"", 1).await, Err(Broken::Closed)));
}

#[tokio::test]
async fn what_follows_a_reply_makes_its_connection_useless() {
    let (_, body, is_reusable) =
        answered(Method::POST, b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n12", 100).await.unwrap();
    assert_eq!((&*body, is_reusable), (&b"1"[..], false));
}

/// What is written for a request, by a connection that takes so little at a time.
async fn written(request: Request<Body>, end: &str) -> String {
    let (connection, mut far) = connection(5).await;
    let sent = tokio::spawn(connection.send(request));
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        far.read_buf(&mut bytes).await.unwrap();
    }
    far.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    let incoming = sent.await.unwrap().unwrap().into_body();
    assert!(incoming.into_reusable().is_some());
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn requests_are_written_as_their_bodies_are_known() {
    let head = |method: &str, rest: &str| {
        format!("{method} /path?query=1 HTTP/1.1\r\nhost: api.test:80\r\nx-own: value\r\n{rest}")
    };
    let known = written(request(Method::POST, "this is the end"), "the end").await;
    assert_eq!(known, head("POST", "content-length: 15\r\n\r\nthis is the end"));
    let unknown = request(Method::POST, "").map(|_| unsized_body(&["this is the ", "", "end"]));
    let unknown = written(unknown, "\r\n0\r\n\r\n").await;
    assert_eq!(unknown, head("POST", "transfer-encoding: chunked\r\n\r\nc\r\nthis is the \r\n3\r\nend\r\n0\r\n\r\n"));
    let mut told = request(Method::POST, "").map(|_| unsized_body(&["this is ", "the end"]));
    told.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("15"));
    told.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    assert_eq!(written(told, "the end").await, head("POST", "content-length: 15\r\n\r\nthis is the end"));
    assert_eq!(written(request(Method::GET, ""), "\r\n\r\n").await, head("GET", "\r\n"));
    assert_eq!(written(request(Method::POST, ""), "\r\n\r\n").await, head("POST", "content-length: 0\r\n\r\n"));
}

#[tokio::test]
async fn a_body_of_another_length_than_told_breaks_the_request_off() {
    for (length, pieces) in [("5", ["four", ""]), ("3", ["four", ""]), ("5", ["four", "more"])] {
        let mut request = request(Method::POST, "").map(|_| unsized_body(&pieces));
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static(length));
        let (connection, _far) = connection(1000).await;
        let told = connection.send(request).await.map(|_| ());
        assert!(matches!(told, Err(Broken::Request(_))), "{told:?}");
    }
}

#[tokio::test]
async fn an_answer_before_all_is_written_is_an_answer() {
    for closes in [true, false] {
        let (connection, mut far) = connection(100).await;
        let upstream = tokio::spawn(async move {
            far.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nno!").await.unwrap();
            let mut read = Vec::new();
            if !closes {
                while !read.ends_with(b"}") {
                    far.read_buf(&mut read).await.unwrap();
                }
            }
            read.len()
        });
        if closes {
            upstream.await.unwrap();
        }
        let reply = connection.send(request(Method::POST, format!("{{{}}}", "x".repeat(5000)))).await.unwrap();
        assert_eq!(reply.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let mut incoming = reply.into_body();
        let frame = poll_fn(|cx| incoming.poll_frame(cx)).await.unwrap().unwrap();
        assert_eq!(&*frame.into_data().unwrap(), b"no!");
        assert!(incoming.is_over());
        // What was not written whole cannot be followed by another request.
        assert!(incoming.into_reusable().is_none());
    }
}

#[tokio::test]
async fn trailers_follow_a_body_in_chunks() {
    let (connection, mut far) = connection(1000).await;
    let reply =
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".as_slice(), &chunked(b"body", 3, "x-sum: 7\r\n")];
    far.write_all(&reply.concat()).await.unwrap();
    let mut incoming = connection.send(request(Method::POST, "{}")).await.unwrap().into_body();
    let mut trailers = None;
    while let Some(frame) = poll_fn(|cx| incoming.poll_frame(cx)).await {
        trailers = frame.unwrap().into_trailers().ok().or(trailers);
    }
    assert_eq!(trailers.unwrap()["x-sum"], "7");
}

#[tokio::test]
async fn a_stream_that_waits_keeps_no_buffer() {
    let (connection, mut far) = connection(1 << 16).await;
    far.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\ndata:\r\n").await.unwrap();
    let mut incoming = connection.send(request(Method::POST, "{}")).await.unwrap().into_body();
    let frame = poll_fn(|cx| incoming.poll_frame(cx)).await.unwrap().unwrap();
    assert_eq!(&*frame.into_data().unwrap(), b"data:");
    assert!(futures_util::poll!(poll_fn(|cx| incoming.poll_frame(cx))).is_pending());
    assert!(incoming.buffer_bytes() < 100);
}
