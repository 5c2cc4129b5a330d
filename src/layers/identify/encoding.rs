//! A request's body without its content encoding, for measuring: it goes upstream as it came.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap};

use super::intake;
use super::settings::Settings;
use crate::Error;
use crate::memory::SMALL_BYTES;

/// A body as it can be measured.
pub(super) enum Content {
    /// It came without an encoding.
    Plain,
    /// It came in one, and is this.
    Decoded(Bytes),
    /// It is not what its encoding says. The vendor will not read it either.
    Broken(String),
}

/// Few bodies become more than so many times as long; those that do are decoded once more.
const USUAL_RATIO: u64 = 16;

/// Takes off the encodings that the headers name, as long as what comes out is at most [`Settings::max_body`] long.
pub(super) fn decode(settings: &Settings, headers: &HeaderMap, body: &Bytes) -> Result<Content, Error> {
    let values = headers.get_all(header::CONTENT_ENCODING).iter();
    let names: Vec<_> = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).collect();
    let mut decoded: Option<Bytes> = None;
    // The one that was put on last is named last.
    for name in names.into_iter().rev() {
        let name = String::from_utf8_lossy(name).trim().to_ascii_lowercase();
        if matches!(&*name, "" | "identity") {
            continue;
        }
        match take_off(settings, &name, decoded.as_ref().unwrap_or(body))? {
            Ok(bytes) => decoded = Some(bytes),
            Err(why) => return Ok(Content::Broken(format!("the body is not in the encoding {name:?}: {why}"))),
        }
    }
    Ok(decoded.map_or(Content::Plain, Content::Decoded))
}

/// One encoding less, in a share of the memory for bodies.
fn take_off(settings: &Settings, name: &str, body: &Bytes) -> Result<io::Result<Bytes>, Error> {
    let Settings { max_body, memory, .. } = settings;
    let usual = (body.len() as u64 * USUAL_RATIO + SMALL_BYTES).min(*max_body);
    for limit in [usual, *max_body] {
        let mut share = memory.try_take(limit).ok_or_else(|| intake::overloaded(settings, limit, Duration::ZERO))?;
        match decoders::decode(name, body, limit) {
            None => return Err(Error::Encoding(name.chars().take(40).collect())),
            Some(Ok(bytes)) if bytes.len() as u64 > limit => {}
            Some(Ok(bytes)) => {
                share.shrink(bytes.len() as u64);
                return Ok(Ok(share.hold(bytes.into())));
            }
            Some(Err(error)) => return Ok(Err(error)),
        }
    }
    Err(Error::DecodedTooLarge { max_bytes: *max_body })
}

#[cfg(feature = "encodings")]
mod decoders {
    use std::io::{self, Read};

    const BUFFER_BYTES: usize = 16 * 1024;

    /// At most one byte more than `max_bytes`; `None` for an encoding that is not known.
    pub(super) fn decode(name: &str, body: &[u8], max_bytes: u64) -> Option<io::Result<Vec<u8>>> {
        let read = |reader: &mut dyn Read| {
            let mut decoded = Vec::new();
            reader.take(max_bytes.saturating_add(1)).read_to_end(&mut decoded).map(|_| decoded)
        };
        Some(match name {
            "gzip" | "x-gzip" => read(&mut flate2::read::MultiGzDecoder::new(body)),
            // Some senders leave out the envelope that the name stands for (RFC 9110, 8.4.1.2).
            "deflate" => read(&mut flate2::read::ZlibDecoder::new(body))
                .or_else(|_| read(&mut flate2::read::DeflateDecoder::new(body))),
            "br" => read(&mut brotli_decompressor::Decompressor::new(body, BUFFER_BYTES)),
            "zstd" => match ruzstd::decoding::StreamingDecoder::new(body) {
                Ok(mut reader) => read(&mut reader),
                Err(error) => Err(io::Error::other(error)),
            },
            _ => return None,
        })
    }
}

#[cfg(not(feature = "encodings"))]
mod decoders {
    pub(super) fn decode(_: &str, _: &[u8], _: u64) -> Option<std::io::Result<Vec<u8>>> {
        None
    }
}

#[cfg(all(test, feature = "encodings"))]
mod tests {
    use std::io::Write;

    use http::HeaderValue;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn named(encoding: &'static str, body: Vec<u8>, max_bytes: u64) -> Result<Content, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        decode(&Settings { max_body: max_bytes, ..Settings::default() }, &headers, &body.into())
    }

    #[test]
    fn each_encoding_comes_off_and_several_in_their_order() {
        let text = br#"{"prompt":"hello hello hello"}"#;
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(text).unwrap();
        let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        raw.write_all(text).unwrap();
        // "hello world" by brotli's and zstd's own tools.
        let (zlib, raw) = (zlib.finish().unwrap(), raw.finish().unwrap());
        for (encoding, body) in [
            ("gzip", gzip(text)),
            ("X-GZIP", gzip(text)),
            ("identity, gzip", gzip(text)),
            ("gzip, gzip", gzip(&gzip(text))),
            ("gzip,deflate", {
                let mut outer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                outer.write_all(&gzip(text)).unwrap();
                outer.finish().unwrap()
            }),
            ("deflate", zlib),
            ("deflate", raw),
            ("zstd", ruzstd::encoding::compress_to_vec(&text[..], ruzstd::encoding::CompressionLevel::Fastest)),
        ] {
            match named(encoding, body, 1000).unwrap() {
                Content::Decoded(bytes) => assert_eq!(&bytes[..], text, "{encoding}"),
                _ => panic!("{encoding} was not read"),
            }
        }
        let hello = vec![0x0b, 0x02, 0x80, b'h', b'e', b'l', b'l', b'o', 0x03];
        assert!(matches!(named("br", hello, 1000).unwrap(), Content::Decoded(bytes) if &bytes[..] == b"hello"));
    }

    #[test]
    fn a_bomb_is_told_and_what_is_not_known_is_refused() {
        let bomb = gzip(&vec![b' '; 10 << 20]);
        assert!(bomb.len() < 20_000);
        assert!(matches!(named("gzip", bomb, 1 << 20), Err(Error::DecodedTooLarge { max_bytes: 1_048_576 })));
        assert!(matches!(named("compress", vec![1], 100), Err(Error::Encoding(name)) if name == "compress"));
        assert!(matches!(named("gzip", b"no gzip".to_vec(), 100).unwrap(), Content::Broken(_)));
        assert!(matches!(named("identity", b"plain".to_vec(), 1).unwrap(), Content::Plain));
    }
}
