//! A body in chunks (RFC 9112, section 7.1).

use bytes::{Buf, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::broken::Broken;
use super::part::{Part, split};

/// Where in its chunks a body is.
#[derive(Debug, Default)]
pub(super) enum Chunks {
    /// Before a chunk's size.
    #[default]
    Size,
    /// Within a chunk, of which so much is left: not 0.
    Data(u64),
    /// After a chunk, before its line ends.
    DataEnd,
    /// After the last chunk.
    Trailers,
    Over,
}

/// A chunk's size with its extensions, which mean nothing to us.
const MAX_LINE_BYTES: usize = 4 * 1024;
const MAX_TRAILER_BYTES: usize = 16 * 1024;
const MAX_TRAILERS: usize = 64;

impl Chunks {
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Over)
    }

    /// Takes the next part. With a chunk's data goes whatever can be told of the end, so that a body whose end is here is known
    /// to be over.
    pub(super) fn take(&mut self, unread: &mut BytesMut) -> Result<Part, Broken> {
        loop {
            match *self {
                Self::Over => return Ok(Part::End),
                Self::Size => {
                    let Some(line) = line(unread, MAX_LINE_BYTES)? else { return Ok(Part::Incomplete) };
                    *self = match size(&line)? {
                        0 => Self::Trailers,
                        size => Self::Data(size),
                    };
                }
                Self::Data(_) if unread.is_empty() => return Ok(Part::Incomplete),
                Self::Data(left) => {
                    let bytes = split(unread, left);
                    let left = left - bytes.len() as u64;
                    *self = if left == 0 { Self::DataEnd } else { Self::Data(left) };
                    if left == 0 && unread.starts_with(LAST) {
                        unread.advance(LAST.len());
                        *self = Self::Over;
                    }
                    return Ok(Part::Data(bytes));
                }
                Self::DataEnd => {
                    let Some(line) = line(unread, MAX_LINE_BYTES)? else { return Ok(Part::Incomplete) };
                    if !line.is_empty() {
                        return Err(Broken::Malformed("a chunk is longer than it says"));
                    }
                    *self = Self::Size;
                }
                Self::Trailers => {
                    let Some(trailers) = trailers(unread)? else { return Ok(Part::Incomplete) };
                    *self = Self::Over;
                    if !trailers.is_empty() {
                        return Ok(Part::Trailers(trailers));
                    }
                }
            }
        }
    }
}

/// How a body without trailers ends, right after a chunk's data.
const LAST: &[u8] = b"\r\n0\r\n\r\n";

/// Takes a line, without its end.
fn line(unread: &mut BytesMut, max_bytes: usize) -> Result<Option<BytesMut>, Broken> {
    let Some(end) = unread.iter().take(max_bytes).position(|byte| *byte == b'\n') else {
        let is_too_long = unread.len() >= max_bytes;
        return if is_too_long { Err(Broken::Malformed("a chunk's size does not end")) } else { Ok(None) };
    };
    let mut line = unread.split_to(end + 1);
    let is_crlf = line.ends_with(b"\r\n");
    line.truncate(end - usize::from(is_crlf));
    Ok(Some(line))
}

/// Hexadecimal digits, and then at most an extension.
fn size(line: &[u8]) -> Result<u64, Broken> {
    const WRONG: Broken = Broken::Malformed("a chunk's size is no number");
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, rest) = line.split_at(end);
    let is_extension = rest.trim_ascii_start().first().is_none_or(|byte| *byte == b';');
    if digits.is_empty() || !is_extension {
        return Err(WRONG);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| WRONG)?;
    u64::from_str_radix(digits, 16).map_err(|_| WRONG)
}

fn trailers(unread: &mut BytesMut) -> Result<Option<HeaderMap>, Broken> {
    const WRONG: Broken = Broken::Malformed("its trailers are no headers");
    let mut lines = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    let (length, lines) = match httparse::parse_headers(unread, &mut lines).map_err(|_| WRONG)? {
        httparse::Status::Complete(parsed) => parsed,
        httparse::Status::Partial if unread.len() > MAX_TRAILER_BYTES => return Err(WRONG),
        httparse::Status::Partial => return Ok(None),
    };
    let mut trailers = HeaderMap::new();
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| WRONG)?;
        trailers.append(name, HeaderValue::from_bytes(line.value).map_err(|_| WRONG)?);
    }
    unread.advance(length);
    Ok(Some(trailers))
}
