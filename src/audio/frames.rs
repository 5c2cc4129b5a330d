//! Formats that are a row of frames: MPEG audio (MP3 and its elders), AAC in ADTS, and AMR.
//!
//! Each frame's head tells how long the frame is, in bytes and in time. What stands between frames (a tag, a picture, a piece that is
//! broken) is passed over until two frames follow each other again; what is no tag counts as the lowest bit rate, for a decoder may
//! find more in it.

use super::{Length, at_rate, of_samples};

/// A frame as its head tells.
struct Frame {
    bytes: usize,
    samples: u64,
    samples_a_second: u64,
    /// The lowest bit rate of its format.
    least_bits_a_second: u64,
    /// Tells about the others, and sounds not.
    is_silent: bool,
}

/// Without two frames that follow each other within so many bytes it is another format.
const SEARCH_BYTES: usize = 256 * 1024;
/// AAC goes down to some 8 kbit/s; a frame of nothing but its head and an end is 9 bytes.
const LEAST_AAC: u64 = 2_000;

/// MPEG audio or ADTS, after tags or without.
pub(super) fn mpeg(bytes: &[u8]) -> Option<Length> {
    let mut at = tag_bytes(bytes);
    let begins = |skipped: &usize| begins_well(bytes.get(at + skipped..).unwrap_or_default(), *skipped > 0);
    let Some(first) = (0..SEARCH_BYTES).find(begins).map(|skipped| at + skipped) else { return torn(bytes, at) };
    let mut least = frame(&bytes[first..])?.least_bits_a_second;
    // What stands before the first frame is no sound of this format.
    at = first;
    let (mut sum, mut lost, mut loose_ms) = (SampleCount::default(), 0, 0_u64);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let begun = frame(rest);
        let (least_here, ms) = begun.as_ref().map_or((least, 0), |frame| (frame.least_bits_a_second, frame.ms()));
        least = least.min(least_here);
        match begun.filter(|frame| frame.bytes <= rest.len() && is_followed(rest, frame)) {
            Some(frame) => {
                if !frame.is_silent {
                    sum.add(frame.samples, frame.samples_a_second);
                }
                at += frame.bytes;
            }
            None => {
                let tag = tag_bytes(rest).min(rest.len());
                lost += usize::from(tag == 0);
                // Some decoders take a frame that nothing follows, and fill up one that the end cuts off.
                loose_ms = loose_ms.saturating_add(ms);
                at += tag.max(1);
            }
        }
    }
    let ms = sum.ms();
    let lost_ms = at_rate(lost as u64, least);
    Some(Length { likely_ms: ms, upper_ms: ms.saturating_add(lost_ms).saturating_add(loose_ms) })
}

/// Of a piece of one frame, which is not known from anything else.
fn torn(bytes: &[u8], at: usize) -> Option<Length> {
    let frame = bytes.get(at..).and_then(frame).filter(|frame| frame.bytes > bytes.len() - at)?;
    Some(Length::unknown(bytes.len() as u64).and(Length { likely_ms: 0, upper_ms: frame.ms() }))
}

/// Of a sound that begins so: the bytes before its first frame, and the bytes and microseconds of the whole frames that are here.
pub(super) fn mpeg_pace(head: &[u8]) -> Option<(u64, u64, u64)> {
    let begun = tag_bytes(head);
    let (mut at, mut sum) = (begun, SampleCount::default());
    while let Some(next) = head.get(at..).and_then(frame).filter(|frame| at + frame.bytes <= head.len()) {
        if !next.is_silent {
            sum.add(next.samples * 1000, next.samples_a_second);
        }
        at += next.bytes;
    }
    let bytes = (at - begun) as u64;
    (bytes > 0).then(|| (begun as u64, bytes, sum.ms()))
}

impl Frame {
    fn ms(&self) -> u64 {
        of_samples(self.samples, self.samples_a_second).saturating_add(1)
    }
}

/// Frames follow each other, or one is all there is. Among bytes of another kind two may do so by chance.
fn begins_well(bytes: &[u8], is_within: bool) -> bool {
    let Some(first) = frame(bytes).filter(|frame| frame.bytes <= bytes.len()) else { return false };
    is_followed(bytes, &first) && (!is_within || begins_well(&bytes[first.bytes..], false))
}

/// After a frame comes another one, a tag, or nothing; at the very end perhaps a piece of one.
fn is_followed(bytes: &[u8], this: &Frame) -> bool {
    let rest = &bytes[this.bytes..];
    let next = frame(rest).is_some_and(|next| next.samples_a_second == this.samples_a_second);
    next || rest.len() < 4 || tag_bytes(rest) > 0
}

fn frame(bytes: &[u8]) -> Option<Frame> {
    let [0xff, second, third, fourth, ..] = *bytes else { return None };
    match second & 0xf6 {
        0xf0 => adts(bytes),
        _ if second & 0xe0 == 0xe0 => mpeg_frame(bytes, second, third, fourth),
        _ => None,
    }
}

/// ISO 11172-3 and 13818-3, 2.4.2.3: version, layer, bit rate, sample rate, padding.
fn mpeg_frame(bytes: &[u8], second: u8, third: u8, fourth: u8) -> Option<Frame> {
    const V1: [[u64; 15]; 3] = [
        [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
        [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    ];
    const V2: [[u64; 15]; 3] = [
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
        [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
        [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    ];
    let (is_v1, halvings) = match second >> 3 & 3 {
        3 => (true, 0),
        2 => (false, 1),
        0 => (false, 2),
        _ => return None,
    };
    let layer = 3_usize.checked_sub(usize::from(second >> 1 & 3)).filter(|layer| *layer < 3)?;
    let kbits = *(if is_v1 { V1 } else { V2 })[layer].get(usize::from(third >> 4)).filter(|kbits| **kbits > 0)?;
    let samples_a_second = [44_100_u64, 48_000, 32_000].get(usize::from(third >> 2 & 3))? >> halvings;
    let samples = match (layer, is_v1) {
        (0, _) => 384,
        (2, false) => 576,
        _ => 1152,
    };
    let (slot, padding) = (if layer == 0 { 4 } else { 1 }, u64::from(third >> 1 & 1));
    let size = (samples / 8 / slot * kbits * 1000 / samples_a_second + padding) * slot;
    let size = usize::try_from(size).ok().filter(|size| *size >= 4)?;
    // A first frame that holds a table of the others stands where its side information would end.
    let side = match (is_v1, fourth >> 6 == 3) {
        (true, false) => 32,
        (true, true) | (false, false) => 17,
        (false, true) => 9,
    };
    let mark = |at: usize| bytes.get(at..at + 4).unwrap_or_default();
    let is_silent = layer == 2 && (matches!(mark(4 + side), b"Xing" | b"Info") || mark(36) == b"VBRI");
    let least = if is_v1 { 32_000 } else { 8_000 };
    Some(Frame { bytes: size, samples, samples_a_second, least_bits_a_second: least, is_silent })
}

/// ISO 13818-7, 6.2.
fn adts(bytes: &[u8]) -> Option<Frame> {
    const RATES: [u64; 13] =
        [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
    let [_, _, third, fourth, fifth, sixth, seventh, ..] = *bytes else { return None };
    let size = usize::from(fourth & 3) << 11 | usize::from(fifth) << 3 | usize::from(sixth >> 5);
    let samples_a_second = *RATES.get(usize::from(third >> 2 & 15))?;
    let samples = 1024 * (u64::from(seventh & 3) + 1);
    (size >= 7).then_some(Frame {
        bytes: size,
        samples,
        samples_a_second,
        least_bits_a_second: LEAST_AAC,
        is_silent: false,
    })
}

/// ID3 of either version, APE, and the padding of zeros that some have.
fn tag_bytes(bytes: &[u8]) -> usize {
    match bytes {
        // A size has seven bits a byte.
        [b'I', b'D', b'3', _, _, flags, a, b, c, d, ..] => {
            let size = [a, b, c, d].iter().fold(0, |size, byte| size << 7 | usize::from(**byte & 0x7f));
            let footer = if flags & 0x10 == 0 { 0 } else { 10 };
            10 + size + footer
        }
        [b'T', b'A', b'G', ..] if bytes.len() <= 128 + 32 => 128,
        [b'A', b'P', b'E', b'T', b'A', b'G', b'E', b'X', _, _, _, _, a, b, c, d, ..] => {
            32 + u32::from_le_bytes([*a, *b, *c, *d]) as usize
        }
        [0, ..] => bytes.iter().take_while(|byte| **byte == 0).count(),
        _ => 0,
    }
}

/// RFC 4867, 5: a frame of 20 ms is as long as its mode says.
pub(super) fn amr(bytes: &[u8]) -> Option<Length> {
    const NARROW: [usize; 16] = [13, 14, 16, 18, 20, 21, 27, 32, 6, 1, 1, 1, 1, 1, 1, 1];
    const WIDE: [usize; 16] = [18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 1, 1, 1, 1, 1, 1];
    let (sizes, mut rest) = match () {
        () if bytes.starts_with(b"#!AMR-WB\n") => (WIDE, &bytes[9..]),
        () if bytes.starts_with(b"#!AMR\n") => (NARROW, &bytes[6..]),
        () => return None,
    };
    let mut frames = 0_u64;
    while let [head, ..] = rest {
        rest = rest.get(sizes[usize::from(head >> 3 & 15)]..).unwrap_or_default();
        frames += 1;
    }
    Some(Length::exact(frames * 20))
}

/// Samples at a rate that may change.
#[derive(Default)]
struct SampleCount {
    samples: u64,
    samples_a_second: u64,
    before_ms: u64,
}

impl SampleCount {
    fn add(&mut self, samples: u64, samples_a_second: u64) {
        if self.samples_a_second != samples_a_second {
            *self = Self { samples: 0, samples_a_second, before_ms: self.ms() };
        }
        self.samples += samples;
    }

    fn ms(&self) -> u64 {
        self.before_ms + of_samples(self.samples, self.samples_a_second)
    }
}
