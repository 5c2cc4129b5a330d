//! How long a sound lasts, by its frames.
//!
//! Workers AI prices speech by the minute, and some models do not say how many minutes it was. So the frames of a sound are
//! counted: what its header says of its length is not believed. Matroska and WebM, MP4, FLAC, AIFF and CAF are taken apart by
//! [symphonia](https://docs.rs/symphonia) (with the feature `sound`); Ogg, WAV, MP3, ADTS and AMR here. Nothing is decoded.
//!
//! # What is promised
//! [`Length::upper_ms`] is no less than what a decoder would hear, whatever the bytes are: bytes that cannot be taken apart count
//! at the lowest bit rate that their codec goes down to. [`Length::likely_ms`] is the true length of a sound that is whole.
//!
//! # What it does not do
//! It believes what a header says of the sample rate, as decoders do. It does not know ASF (WMA): that counts as unknown.

#[cfg(feature = "sound")]
mod contained;
mod frames;
mod ogg;
#[cfg(feature = "sound")]
mod packet;
mod packet_time;
#[cfg(test)]
mod tests;
pub mod text;
mod wave;

/// How long a sound lasts, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Length {
    /// What it is.
    pub likely_ms: u64,
    /// What it is at most.
    pub upper_ms: u64,
}

/// What a format that is not known is likely to take: 64 kbit/s.
const USUAL_BITS_A_SECOND: u64 = 64_000;
/// What a format that is not known takes at least: AMR's lowest mode, as 3GPP TS 26.071 has it.
const LEAST_BITS_A_SECOND: u64 = 4_750;

impl Length {
    /// The same length, likely and at most.
    fn exact(ms: u64) -> Self {
        Self { likely_ms: ms, upper_ms: ms }
    }

    /// Of so many bytes of which nothing is known.
    pub fn unknown(bytes: u64) -> Self {
        Self { likely_ms: at_rate(bytes, USUAL_BITS_A_SECOND), upper_ms: at_rate(bytes, LEAST_BITS_A_SECOND) }
    }

    /// The two one after the other.
    pub fn and(self, next: Self) -> Self {
        Self {
            likely_ms: self.likely_ms.saturating_add(next.likely_ms),
            upper_ms: self.upper_ms.saturating_add(next.upper_ms),
        }
    }
}

/// How long the sound in these bytes lasts. All of them are looked at: 0.2 to 2.4 ms for a megabyte.
pub fn measure(bytes: &[u8]) -> Length {
    let known = match bytes {
        [b'R', b'I', b'F', b'F', ..] | [b'R', b'F', b'6', b'4', ..] | [b'B', b'W', b'6', b'4', ..] => wave::riff(bytes),
        [b'r', b'i', b'f', b'f', ..] => wave::wave64(bytes),
        [b'#', b'!', b'A', b'M', b'R', ..] => frames::amr(bytes),
        [b'O', b'g', b'g', b'S', ..] => in_ogg(bytes),
        _ => contained(bytes).or_else(|| frames::mpeg(bytes)),
    };
    let length = known.unwrap_or_else(|| Length::unknown(bytes.len() as u64));
    // What is likely is never beyond what is possible.
    Length { likely_ms: length.likely_ms.min(length.upper_ms), ..length }
}

/// By the packets of its pages. How long Vorbis is, within what its packets may hold at most, their reader knows better.
fn in_ogg(bytes: &[u8]) -> Option<Length> {
    let (pages, has_vorbis) = ogg::length(bytes)?;
    let read = has_vorbis.then(|| contained(bytes)).flatten().filter(|read| read.likely_ms > 0);
    Some(Length { likely_ms: read.map_or(pages.likely_ms, |read| read.likely_ms), ..pages })
}

/// How long a sound of `total` bytes lasts that begins so: as the second half of what is here goes on.
pub fn measure_head(head: &[u8], total: u64) -> u64 {
    if let Some((tag_bytes, frame_bytes, micros)) = frames::mpeg_pace(head) {
        return ratio(total.saturating_sub(tag_bytes), micros, frame_bytes.saturating_mul(1000));
    }
    let (here, half) = (measure(head).likely_ms, measure(&head[..head.len() / 2]).likely_ms);
    let missing = total.saturating_sub(head.len() as u64);
    here.saturating_add(ratio(missing, here.saturating_sub(half), (head.len() - head.len() / 2) as u64))
}

#[cfg(feature = "sound")]
fn contained(bytes: &[u8]) -> Option<Length> {
    contained::length(bytes)
}

#[cfg(not(feature = "sound"))]
fn contained(_: &[u8]) -> Option<Length> {
    None
}

fn at_rate(bytes: u64, bits_a_second: u64) -> u64 {
    ratio(bytes, 8000, bits_a_second)
}

/// Milliseconds of so many samples.
fn of_samples(samples: u64, a_second: u64) -> u64 {
    ratio(samples, 1000, a_second)
}

/// `count * times / divisor`; nothing divided by nothing is nothing.
fn ratio(count: u64, times: u64, divisor: u64) -> u64 {
    let wide = (u128::from(count) * u128::from(times)).checked_div(u128::from(divisor)).unwrap_or(0);
    u64::try_from(wide).unwrap_or(u64::MAX)
}
