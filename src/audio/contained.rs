//! Matroska and WebM, Ogg with Vorbis, MP4, FLAC, AIFF and CAF, taken apart by symphonia.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use symphonia::core::codecs::CodecParameters;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::core::units::TimeBase;

use super::packet::{Kind, Sound};
use super::{LEAST_BITS_A_SECOND, Length, at_rate};

/// How bytes that the reader made nothing of are told from those that hold a file together.
struct Container {
    /// What a packet usually has around it.
    packet_bytes: u64,
    /// What a whole file may have at its end, such as a table of where its clusters stand.
    table_bytes: u64,
    /// It says where each packet stands, so a decoder has no others either.
    lists_packets: bool,
}

/// Ogg is bounded by its pages; a block of Matroska has seven or eight bytes around it; a frame of FLAC stands alone.
const OGG: Container = LISTED;
const MATROSKA: Container = Container { packet_bytes: 8, table_bytes: 256, lists_packets: false };
const FLAC: Container = Container { packet_bytes: 0, table_bytes: 0, lists_packets: false };
const LISTED: Container = Container { packet_bytes: 0, table_bytes: 0, lists_packets: true };

/// A reader that fails so often has lost its way.
const MAX_FAILURES: usize = 64;

/// `None` where it is another format, or one that cannot be read.
pub(super) fn length(bytes: &[u8]) -> Option<Length> {
    let container = container(bytes)?;
    // Nothing that a client sends is to end a call, and a reader of so many formats may have a case that nobody has tried.
    let taken_apart = catch_unwind(AssertUnwindSafe(|| Taken::apart(bytes))).ok().flatten()?;
    let has_sound = taken_apart.packets > 0 && !taken_apart.tracks.is_empty();
    has_sound.then(|| taken_apart.length(bytes, &container))
}

fn container(bytes: &[u8]) -> Option<Container> {
    match bytes {
        [b'O', b'g', b'g', b'S', ..] => Some(OGG),
        [0x1a, 0x45, 0xdf, 0xa3, ..] => Some(MATROSKA),
        [b'f', b'L', b'a', b'C', ..] => Some(FLAC),
        [_, _, _, _, b'f', b't', b'y', b'p', ..] | [b'c', b'a', b'f', b'f', ..] => Some(LISTED),
        [b'F', b'O', b'R', b'M', _, _, _, _, b'A', b'I', b'F', b'F' | b'C', ..] => Some(LISTED),
        _ => None,
    }
}

/// What a file was found to hold.
#[derive(Default)]
struct Taken {
    tracks: Vec<Timed>,
    packets: u64,
    packet_bytes: u64,
    /// The reader came to the end without a failure.
    is_whole: bool,
}

/// A track of sound.
struct Timed {
    id: u32,
    kind: Kind,
    time_base: Option<TimeBase>,
    /// By its packets' own words, in nanoseconds; where they have none, by the container's.
    likely: u64,
    upper: u64,
    /// From the first moment of a packet to the last one's end, as the container tells.
    span: Option<(i64, i64)>,
}

impl Taken {
    fn apart(bytes: &[u8]) -> Option<Self> {
        let source = MediaSourceStream::new(Box::new(Cursor::new(bytes)), Default::default());
        let probe = symphonia::default::get_probe();
        let mut reader =
            probe.probe(&Hint::new(), source, FormatOptions::default(), MetadataOptions::default()).ok()?;
        let mut taken = Self::default();
        taken.find_tracks(&*reader);
        taken.read(&mut *reader, bytes.len());
        Some(taken)
    }

    fn find_tracks(&mut self, reader: &dyn FormatReader) {
        self.tracks.extend(reader.tracks().iter().filter_map(Timed::of));
    }

    fn read(&mut self, reader: &mut dyn FormatReader, most_packets: usize) {
        let mut failures = 0;
        while failures < MAX_FAILURES && self.packets <= most_packets as u64 {
            match reader.next_packet() {
                Ok(Some(packet)) => {
                    self.packets += 1;
                    self.packet_bytes += packet.data.len() as u64;
                    let mut tracks = self.tracks.iter_mut().rev();
                    if let Some(track) = tracks.find(|track| track.id == packet.track_id) {
                        track.add(&packet);
                    }
                }
                Ok(None) => {
                    self.is_whole = failures == 0;
                    return;
                }
                // Another sound follows in the same file.
                Err(Error::ResetRequired) => self.find_tracks(reader),
                Err(Error::DecodeError(_)) => failures += 1,
                Err(_) => return,
            }
        }
    }

    /// The longest of what sounds together; what follows in a chain has tracks of its own, which sound one after the other.
    fn length(&self, bytes: &[u8], container: &Container) -> Length {
        let sounding = self.tracks.iter().map(Timed::length).fold(Length::default(), Length::and);
        let total = bytes.len() as u64;
        let around = self.packets * container.packet_bytes + described(bytes);
        let accounted = self.packet_bytes + around + if self.is_whole { container.table_bytes } else { 0 };
        let unread = total.saturating_sub(accounted);
        // A file of many parts that are no sound, a film, is whole all the same.
        if unread == 0 || container.lists_packets && self.is_whole {
            return sounding;
        }
        Length { upper_ms: sounding.upper_ms.saturating_add(at_rate(unread, LEAST_BITS_A_SECOND)), ..sounding }
    }
}

/// What stands before the first frame of FLAC, a picture perhaps, or before Matroska's first cluster.
fn described(bytes: &[u8]) -> u64 {
    if !bytes.starts_with(b"fLaC") {
        let before = memchr::memmem::find(bytes, b"\x1f\x43\xb6\x75").unwrap_or(0);
        return before as u64;
    }
    let mut at = 4;
    while let Some([kind, a, b, c]) = bytes.get(at..at + 4) {
        at += 4 + usize::from(*a) * 65_536 + usize::from(*b) * 256 + usize::from(*c);
        if kind & 0x80 != 0 {
            break;
        }
    }
    at.min(bytes.len()) as u64
}

impl Timed {
    fn of(track: &Track) -> Option<Self> {
        let Some(CodecParameters::Audio(parameters)) = &track.codec_params else { return None };
        let kind = Kind::of(parameters);
        Some(Self { id: track.id, kind, time_base: track.time_base, likely: 0, upper: 0, span: None })
    }

    fn add(&mut self, packet: &symphonia::core::packet::Packet) {
        let told = self.time_base.map_or(0, |base| nanos(base, packet.block_dur().get()));
        let (begin, length) = (packet.pts.get(), i64::try_from(packet.block_dur().get()).unwrap_or(i64::MAX));
        let end = begin.saturating_add(length);
        self.span = Some(self.span.map_or((begin, end), |(first, last)| (first.min(begin), last.max(end))));
        let (likely, upper) = match self.kind.sound(&packet.data) {
            Sound::Exactly(nanos) => (nanos, nanos),
            Sound::AtMost(nanos) => (told.min(nanos), nanos),
            Sound::Unknown => (told, told),
        };
        self.likely = self.likely.saturating_add(likely);
        self.upper = self.upper.saturating_add(upper);
    }

    fn length(&self) -> Length {
        let span = self
            .span
            .zip(self.time_base)
            .map_or(0, |((first, last), base)| nanos(base, last.saturating_sub(first).unsigned_abs()));
        let (likely, upper) = match self.kind {
            Kind::Opus | Kind::Flac(_) | Kind::Even(..) => (self.likely, self.upper),
            // Where packets have no time of their own, what lies between the first and the last is likely.
            Kind::AtMost(..) if self.likely == 0 => (span.min(self.upper), self.upper),
            Kind::AtMost(..) => (self.likely, self.upper),
            Kind::Told => (self.likely.max(span), self.upper.max(span)),
        };
        Length { likely_ms: likely.div_ceil(1_000_000), upper_ms: upper.div_ceil(1_000_000) }
    }
}

fn nanos(base: TimeBase, ticks: u64) -> u64 {
    super::ratio(ticks, 1_000_000_000 * u64::from(base.numer.get()), u64::from(base.denom.get()))
}
