//! `content-encoding`: bodies made small for the way.

use std::io::Write;

/// In every coding that an edge undoes.
pub const CODINGS: [&str; 8] = ["gzip", "X-GZIP", "deflate", "br", "zstd", "identity", "gzip, br", "deflate-raw"];

/// The body, and what its header says.
pub fn encode(body: &[u8], coding: &str) -> (Vec<u8>, &'static str) {
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    match coding {
        "gzip" | "X-GZIP" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body).unwrap();
            (encoder.finish().unwrap(), if coding == "gzip" { "gzip" } else { "X-GZIP" })
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body).unwrap();
            (encoder.finish().unwrap(), "deflate")
        }
        "deflate-raw" => {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body).unwrap();
            (encoder.finish().unwrap(), "deflate")
        }
        "br" => {
            let mut encoded = Vec::new();
            brotli::CompressorWriter::new(&mut encoded, 4096, 3, 20).write_all(body).unwrap();
            (encoded, "br")
        }
        "zstd" => {
            let level = ruzstd::encoding::CompressionLevel::Fastest;
            (ruzstd::encoding::compress_to_vec(body, level), "zstd")
        }
        "gzip, br" => (encode(&encode(body, "gzip").0, "br").0, "gzip, br"),
        _ => (body.to_vec(), "identity"),
    }
}
