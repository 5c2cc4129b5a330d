//! WAV, and its kin for long sounds: RF64, BW64 and Wave64.
//!
//! The samples are what their bytes come to. A recorder that streams leaves the size of `data` open (0 or all ones); then the sound
//! is all there is. Where a size is told, a decoder may stop there or read on: the first is likely, the second possible.

use super::{LEAST_BITS_A_SECOND, Length, USUAL_BITS_A_SECOND, at_rate, frames, of_samples};

/// What `fmt ` says.
#[derive(Clone, Copy)]
struct Format {
    tag: u64,
    channels: u64,
    samples_a_second: u64,
    bits: u64,
}

/// How sizes are written.
#[derive(Clone, Copy)]
struct Chunks {
    /// Bytes of a chunk's name.
    name: usize,
    /// Bytes of its size.
    size: usize,
    /// Its size counts its own head.
    counts_head: bool,
    /// Chunks begin at multiples of this.
    align: u64,
}

const RIFF: Chunks = Chunks { name: 4, size: 4, counts_head: false, align: 2 };
const WAVE64: Chunks = Chunks { name: 16, size: 8, counts_head: true, align: 8 };

const PCM: u64 = 1;
const MS_ADPCM: u64 = 2;
const FLOAT: u64 = 3;
const A_LAW: u64 = 6;
const MU_LAW: u64 = 7;
const IMA_ADPCM: u64 = 0x11;
const GSM: u64 = 0x31;
const MPEG: u64 = 0x50;
const MP3: u64 = 0x55;
/// The true tag is the beginning of a GUID.
const EXTENSIBLE: u64 = 0xfffe;

/// WAV, RF64 and BW64. In the latter two the sizes stand in `ds64`, where `data` says all ones: the sound is all there is.
pub(super) fn riff(bytes: &[u8]) -> Option<Length> {
    (bytes.get(8..12)? == b"WAVE").then(|| walk(bytes, 12, RIFF)).flatten()
}

pub(super) fn wave64(bytes: &[u8]) -> Option<Length> {
    (bytes.get(24..28)? == b"wave").then(|| walk(bytes, 40, WAVE64)).flatten()
}

fn walk(bytes: &[u8], first: usize, chunks: Chunks) -> Option<Length> {
    let (mut at, mut format) = (first, None);
    loop {
        let name = bytes.get(at..at + 4)?;
        let told = little_endian(bytes, at + chunks.name, chunks.size)?;
        let body = at + chunks.name + chunks.size;
        let size = if chunks.counts_head { told.saturating_sub((body - at) as u64) } else { told };
        match name {
            b"fmt " => format = read_format(bytes.get(body..)?),
            b"data" => {
                let rest = bytes.get(body..)?;
                let is_open = told == 0 || told == u64::from(u32::MAX) || size > rest.len() as u64;
                let likely = if is_open { rest.len() } else { usize::try_from(size).unwrap_or(rest.len()) };
                return Some(of_data(format, rest, likely));
            }
            _ => {}
        }
        let next = size.checked_next_multiple_of(chunks.align)?;
        at = body.checked_add(usize::try_from(next).ok()?)?;
    }
}

fn read_format(bytes: &[u8]) -> Option<Format> {
    let tag = little_endian(bytes, 0, 2)?;
    Some(Format {
        tag: if tag == EXTENSIBLE { little_endian(bytes, 24, 2).unwrap_or(tag) } else { tag },
        channels: little_endian(bytes, 2, 2)?.max(1),
        samples_a_second: little_endian(bytes, 4, 4)?,
        bits: little_endian(bytes, 14, 2)?,
    })
}

/// Of this data, of which so many bytes are said to be the sound.
fn of_data(format: Option<Format>, data: &[u8], likely: usize) -> Length {
    let bytes = data.len() as u64;
    let Some(Format { tag, channels, samples_a_second, bits }) = format else { return Length::unknown(bytes) };
    let bits_a_sample = match tag {
        PCM | FLOAT if bits > 0 => bits.next_multiple_of(8),
        A_LAW | MU_LAW => 8,
        MS_ADPCM | IMA_ADPCM => 4,
        GSM => {
            // 65 bytes hold 320 samples.
            let of = |bytes: u64| of_samples(bytes.div_ceil(65) * 320, samples_a_second);
            return Length { likely_ms: of(likely as u64), upper_ms: of(bytes) };
        }
        MPEG | MP3 => return frames::mpeg(data).unwrap_or_else(|| Length::unknown(bytes)),
        _ => {
            let likely_ms = at_rate(likely as u64, USUAL_BITS_A_SECOND);
            return Length { likely_ms, upper_ms: at_rate(bytes, LEAST_BITS_A_SECOND) };
        }
    };
    let of = |bytes: u64| at_rate(bytes, samples_a_second.saturating_mul(channels * bits_a_sample));
    if samples_a_second == 0 {
        Length::unknown(bytes)
    } else {
        Length { likely_ms: of(likely as u64), upper_ms: of(bytes) }
    }
}

fn little_endian(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(length)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}
