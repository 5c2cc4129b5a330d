//! `content-encoding` of a request, undone as an edge undoes it before the body is read.

use std::io::Read;

use bytes::Bytes;

/// A body that was made small for the way.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Undone {
    Body(Bytes),
    /// It has an encoding that is not known: 415.
    Unknown,
    /// It is not what its header says: 400.
    Broken,
    /// More than a body may be: 413.
    TooLarge,
}

/// Takes off the encodings that a header names, the last first.
pub(super) fn undo(body: Bytes, content_encoding: &str, max_bytes: usize) -> Undone {
    let mut body = body;
    for coding in content_encoding.rsplit(',').map(str::trim).filter(|coding| !coding.is_empty()) {
        let decoded = match coding.to_ascii_lowercase().as_str() {
            "identity" => continue,
            "gzip" | "x-gzip" => read(flate2::read::MultiGzDecoder::new(&*body), max_bytes),
            // What calls itself deflate is zlib's form as a rule, and now and then without zlib's head.
            "deflate" if body.first().is_some_and(|byte| byte & 0x0f == 8) => {
                read(flate2::read::ZlibDecoder::new(&*body), max_bytes)
            }
            "deflate" => read(flate2::read::DeflateDecoder::new(&*body), max_bytes),
            "br" => read(brotli::Decompressor::new(&*body, 4096), max_bytes),
            "zstd" => match ruzstd::decoding::StreamingDecoder::new(&*body) {
                Ok(decoder) => read(decoder, max_bytes),
                Err(_) => Err(Undone::Broken),
            },
            _ => return Undone::Unknown,
        };
        body = match decoded {
            Ok(decoded) => decoded.into(),
            Err(problem) => return problem,
        };
    }
    Undone::Body(body)
}

fn read(from: impl Read, max_bytes: usize) -> Result<Vec<u8>, Undone> {
    let mut decoded = Vec::new();
    match from.take(max_bytes as u64 + 1).read_to_end(&mut decoded) {
        Ok(_) if decoded.len() > max_bytes => Err(Undone::TooLarge),
        Ok(_) => Ok(decoded),
        Err(_) => Err(Undone::Broken),
    }
}
