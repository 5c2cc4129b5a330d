//! Ogg's pages and packets.
//!
//! Packets are counted, and the positions that pages tell are not believed. Nor is a page left out because its checksum is wrong, for
//! many decoders do not look at that.

use memchr::memmem;

use super::packet_time::{flac_samples, opus_micros};
use super::{LEAST_BITS_A_SECOND, Length, USUAL_BITS_A_SECOND, at_rate, of_samples};

/// A stream within the file, by its serial number.
struct Stream {
    serial: u32,
    codec: Codec,
    packets: u64,
    bytes: u64,
    /// In the codec's own unit.
    sum: u64,
    /// The position that the last page tells, in samples.
    told: u64,
    /// The end of a packet that goes on in the next page.
    unfinished: Vec<u8>,
}

enum Codec {
    /// Microseconds are summed up.
    Opus,
    /// A packet is at most so many samples, at this rate.
    Vorbis { most_samples: u64, rate: u64 },
    /// Samples are summed up.
    Flac { rate: u64 },
    /// Each packet is so many samples.
    Speex { samples: u64, rate: u64 },
    /// Bytes are summed up, and packets as if they were Opus's: of a codec that is not known, or of a page whose stream did not
    /// begin, which a reader that looks at no serial number takes for the stream's before it.
    Unknown,
    /// Video, or text.
    Silent,
}

/// Of a packet no more is kept than what tells its length.
const KEPT_BYTES: usize = 64;

/// What its packets come to, and whether some are Vorbis's, of which only the most is known here.
pub(super) fn length(bytes: &[u8]) -> Option<(Length, bool)> {
    let mut streams: Vec<Stream> = Vec::new();
    let (mut at, mut lost) = (0, 0);
    while let Some(page) = memmem::find(&bytes[at..], b"OggS").map(|found| at + found) {
        lost += page - at;
        let end = page + read_page(&mut streams, &bytes[page..]).unwrap_or(4);
        // Where no other page follows, this one's length is broken, and others may be within what it claims.
        at = if end >= bytes.len() || bytes[end..].starts_with(b"OggS") { end.min(bytes.len()) } else { page + 4 };
    }
    lost += bytes.len() - at;
    let lost = Length { likely_ms: 0, upper_ms: at_rate(lost as u64, LEAST_BITS_A_SECOND) };
    let is_sound = |stream: &&Stream| !matches!(stream.codec, Codec::Silent);
    let has_vorbis = streams.iter().any(|stream| matches!(stream.codec, Codec::Vorbis { .. }));
    let length = || streams.iter().map(Stream::length).fold(lost, Length::and);
    streams.iter().any(|stream| is_sound(&stream)).then(|| (length(), has_vorbis))
}

/// The page's length in bytes; `None` where it is none.
fn read_page(streams: &mut Vec<Stream>, bytes: &[u8]) -> Option<usize> {
    let head = bytes.get(..27)?;
    let (is_continued, is_first) = (head[5] & 1 != 0, head[5] & 2 != 0);
    let told = u64::from_le_bytes(head[6..14].try_into().ok()?);
    let serial = u32::from_le_bytes(head[14..18].try_into().ok()?);
    let lacing = bytes.get(27..27 + usize::from(head[26]))?;
    let mut at = 27 + lacing.len();
    let place = match streams.iter().rposition(|stream| stream.serial == serial).filter(|_| !is_first) {
        Some(place) => place,
        None => {
            // A chain has streams of its own one after the other, perhaps of the same number.
            let codec = Codec::of(bytes.get(at..).unwrap_or_default());
            streams.push(Stream { serial, codec, packets: 0, bytes: 0, sum: 0, told: 0, unfinished: Vec::new() });
            streams.len() - 1
        }
    };
    let stream = &mut streams[place];
    if !is_continued {
        stream.unfinished.clear();
    }
    for size in lacing {
        let piece = bytes.get(at..).map(|rest| &rest[..rest.len().min(usize::from(*size))]).unwrap_or_default();
        let room = KEPT_BYTES.saturating_sub(stream.unfinished.len());
        stream.unfinished.extend_from_slice(&piece[..piece.len().min(room)]);
        at += usize::from(*size);
        stream.bytes += piece.len() as u64;
        if *size < 255 {
            stream.add();
        }
    }
    // All ones say that no packet ends here.
    stream.told = if told == u64::MAX { stream.told } else { told };
    Some(at.min(bytes.len()).max(27))
}

impl Codec {
    fn of(packet: &[u8]) -> Self {
        let number =
            |at: usize| packet.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]).into());
        match packet {
            [b'O', b'p', b'u', b's', b'H', ..] => Self::Opus,
            [1, b'v', b'o', b'r', b'b', b'i', b's', ..] => {
                // Blocks overlap those beside them by half.
                let longer = packet.get(28).map_or(13, |sizes| sizes >> 4).clamp(6, 13);
                Self::Vorbis { most_samples: (1 << longer) / 2, rate: number(12) }
            }
            [0x7f, b'F', b'L', b'A', b'C', ..] => {
                let rate = packet
                    .get(27..30)
                    .map_or(0, |b| u64::from(b[0]) << 12 | u64::from(b[1]) << 4 | u64::from(b[2]) >> 4);
                Self::Flac { rate }
            }
            [b'S', b'p', b'e', b'e', b'x', ..] => {
                Self::Speex { samples: number(56) * number(64).max(1), rate: number(36) }
            }
            [0x80, b't', b'h', b'e', ..] | [0x80, b'k', b'a', b't', ..] | [b'f', b'i', b's', b'h', ..] => Self::Silent,
            _ => Self::Unknown,
        }
    }
}

impl Stream {
    /// A packet is whole.
    fn add(&mut self) {
        let packet = std::mem::take(&mut self.unfinished);
        self.packets += 1;
        self.sum += match &self.codec {
            // Its two headers sound not.
            Codec::Opus if packet.starts_with(b"OpusHead") || packet.starts_with(b"OpusTags") => 0,
            Codec::Opus | Codec::Unknown => opus_micros(&packet),
            Codec::Flac { .. } => flac_samples(&packet).unwrap_or(0),
            // The first bit says so of Vorbis's three headers.
            Codec::Vorbis { most_samples, .. } => {
                packet.first().map_or(0, |first| if first & 1 == 0 { *most_samples } else { 0 })
            }
            Codec::Speex { samples, .. } if self.packets > 2 => *samples,
            Codec::Speex { .. } | Codec::Silent => 0,
        };
    }

    fn length(&self) -> Length {
        match self.codec {
            Codec::Opus => Length::exact(self.sum.div_ceil(1000)),
            Codec::Flac { rate } | Codec::Speex { rate, .. } => Length::exact(of_samples(self.sum, rate)),
            Codec::Vorbis { rate, .. } => {
                let told = of_samples(self.told, rate);
                Length { likely_ms: told, upper_ms: of_samples(self.sum, rate) }
            }
            Codec::Unknown => {
                let likely_ms = at_rate(self.bytes, USUAL_BITS_A_SECOND);
                let upper_ms = at_rate(self.bytes, LEAST_BITS_A_SECOND).max(self.sum.div_ceil(1000));
                Length { likely_ms, upper_ms }
            }
            Codec::Silent => Length::default(),
        }
    }
}
