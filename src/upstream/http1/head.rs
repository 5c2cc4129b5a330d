//! The heads of requests and replies.

use std::io::Write as _;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};

use super::broken::Broken;
use super::framing::Framing;

/// A reply's head, and what follows from it.
pub(super) struct Head {
    pub(super) reply: Response<()>,
    pub(super) framing: Framing,
    /// The connection may carry another request afterwards.
    pub(super) keeps_open: bool,
}

/// How a request's body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Length(u64),
    Chunked,
}

/// More header lines are no head but an attack, as hyper has it.
const MAX_HEADERS: usize = 100;

impl Head {
    /// Takes a head from what was read, once it is all there.
    pub(super) fn parse(unread: &mut BytesMut, method: &Method) -> Result<Option<Self>, Broken> {
        if unread.is_empty() {
            return Ok(None);
        }
        let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Response::new(&mut lines);
        let status = parsed.parse(unread).map_err(|_| Broken::Malformed("its head cannot be read"))?;
        let httparse::Status::Complete(length) = status else { return Ok(None) };
        let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or(Broken::Malformed("its status is none"))?;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Broken::Malformed("it changes the protocol, which nobody asked for"));
        }
        let version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
        let mut fields = Vec::with_capacity(parsed.headers.len());
        for line in parsed.headers.iter() {
            let name = HeaderName::from_bytes(line.name.as_bytes());
            let begins = line.value.as_ptr().addr() - unread.as_ptr().addr();
            fields.push((
                name.map_err(|_| Broken::Malformed("a header has no name"))?,
                begins..begins + line.value.len(),
            ));
        }
        let bytes = unread.split_to(length).freeze();
        if unread.is_empty() {
            // Its buffer is the head's alone.
            *unread = BytesMut::new();
        }
        let mut reply = Response::new(());
        (*reply.status_mut(), *reply.version_mut()) = (status, version);
        *reply.headers_mut() = headers(fields, &bytes)?;
        let framing = Framing::of(method, status, reply.headers())?;
        let keeps_open = keeps_open(version, reply.headers()) && !matches!(framing, Framing::UntilClose);
        Ok(Some(Self { reply, framing, keeps_open }))
    }
}

fn headers(fields: Vec<(HeaderName, std::ops::Range<usize>)>, bytes: &Bytes) -> Result<HeaderMap, Broken> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        let value = HeaderValue::from_maybe_shared(bytes.slice(value));
        headers.append(name, value.map_err(|_| Broken::Malformed("a header's value is none"))?);
    }
    Ok(headers)
}

fn keeps_open(version: Version, headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION).iter();
    let mut words = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    match version {
        Version::HTTP_11 => !words.any(|word| word.eq_ignore_ascii_case(b"close")),
        _ => words.any(|word| word.eq_ignore_ascii_case(b"keep-alive")),
    }
}

/// A request's head in bytes, and how its body follows: `length` is the body's, where it is known.
pub(super) fn write<B>(request: &Request<B>, length: Option<u64>) -> (BytesMut, Sent) {
    let (uri, headers) = (request.uri(), request.headers());
    let told = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let sent = length.or(told).map_or(Sent::Chunked, Sent::Length);
    let mut head = BytesMut::with_capacity(512);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    for part in [request.method().as_str(), " ", path, " HTTP/1.1\r\nhost: "] {
        head.put_slice(part.as_bytes());
    }
    head.put_slice(uri.authority().map_or("", |authority| authority.as_str()).as_bytes());
    head.put_slice(b"\r\n");
    for (name, value) in headers {
        if !matches!(*name, header::HOST | header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::CONNECTION) {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                head.put_slice(part);
            }
        }
    }
    match sent {
        // What asks for something has no body as a rule, and none is meant where nothing says so.
        Sent::Length(0) if told.is_none() && !has_body(request.method()) => {}
        Sent::Length(length) => {
            let _ = write!((&mut head).writer(), "content-length: {length}\r\n");
        }
        Sent::Chunked => head.put_slice(b"transfer-encoding: chunked\r\n"),
    }
    head.put_slice(b"\r\n");
    (head, sent)
}

fn has_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}
