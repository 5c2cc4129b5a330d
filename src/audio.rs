//! How long a sound lasts, from its first bytes and its length.
//!
//! Workers AI prices speech by the minute, and some models do not say how many minutes it was. WAV, FLAC and Ogg tell
//! their length, MP3 its bit rate; anything else is taken for 64 kbit/s.

use std::ops::Range;

/// What a format that is not known is taken for.
const FALLBACK_BITS_A_SECOND: u64 = 64_000;

/// Milliseconds of sound in `total` bytes that begin with `head`. Ogg tells its length at its end, so it needs it whole.
pub fn duration_ms(head: &[u8], total: u64) -> u64 {
    let known = match head {
        [b'R', b'I', b'F', b'F', ..] => wav(head, total),
        [b'f', b'L', b'a', b'C', ..] => flac(head),
        [b'O', b'g', b'g', b'S', ..] => ogg(head),
        _ => mp3(head, total),
    };
    known.unwrap_or_else(|| at_rate(total, FALLBACK_BITS_A_SECOND))
}

fn at_rate(bytes: u64, bits_a_second: u64) -> u64 {
    bytes.saturating_mul(8000).checked_div(bits_a_second).unwrap_or(0)
}

fn little_endian(bytes: &[u8], at: Range<usize>) -> Option<u64> {
    Some(bytes.get(at)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn big_endian(bytes: &[u8], at: Range<usize>) -> Option<u64> {
    Some(bytes.get(at)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn wav(head: &[u8], total: u64) -> Option<u64> {
    let mut at = 12;
    let mut bytes_a_second = None;
    loop {
        let size = little_endian(head, at + 4..at + 8)?;
        match head.get(at..at + 4)? {
            b"fmt " => bytes_a_second = Some(little_endian(head, at + 16..at + 20)?),
            // A recorder that streams leaves the size open; then the sound is all there is.
            b"data" => return Some(at_rate(size.min(total.saturating_sub(at as u64 + 8)), bytes_a_second? * 8)),
            _ => {}
        }
        at += 8 + usize::try_from(size).ok()?.checked_add(1)? / 2 * 2;
    }
}

fn flac(head: &[u8]) -> Option<u64> {
    // STREAMINFO comes first: 20 bits of sample rate, 3 of channels, 5 of depth, 36 of samples.
    let packed = big_endian(head, 18..26)?;
    let (rate, samples) = (packed >> 44, packed & 0xf_ffff_ffff);
    (samples * 1000).checked_div(rate)
}

fn ogg(whole: &[u8]) -> Option<u64> {
    let opus = memchr::memmem::find(whole.get(..64.min(whole.len()))?, b"OpusHead");
    let rate = match opus {
        Some(_) => 48_000,
        None => {
            let vorbis = memchr::memmem::find(whole.get(..64.min(whole.len()))?, b"\x01vorbis")?;
            little_endian(whole, vorbis + 12..vorbis + 16)?
        }
    };
    let last_page = memchr::memmem::rfind(whole, b"OggS")?;
    (little_endian(whole, last_page + 6..last_page + 14)?.checked_mul(1000)?).checked_div(rate)
}

fn mp3(head: &[u8], total: u64) -> Option<u64> {
    const KBITS_V1: [u64; 16] = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0];
    const KBITS_V2: [u64; 16] = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0];
    let tag = match head {
        // An ID3v2 tag's size has seven bits a byte.
        [b'I', b'D', b'3', _, _, _, a, b, c, d, ..] => {
            10 + [a, b, c, d].iter().fold(0, |size, byte| size << 7 | usize::from(**byte & 0x7f))
        }
        _ => 0,
    };
    let frame = head.get(tag..tag + 4)?;
    if frame[0] != 0xff || frame[1] & 0xe0 != 0xe0 {
        return None;
    }
    let is_v1 = frame[1] & 0x08 != 0;
    let kbits = (if is_v1 { KBITS_V1 } else { KBITS_V2 })[usize::from(frame[2] >> 4)];
    (kbits > 0).then(|| at_rate(total.saturating_sub(tag as u64), kbits * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wav_tells_its_length() {
        let mut wav = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
        wav.extend(16_000u32.to_le_bytes());
        wav.extend(32_000u32.to_le_bytes());
        wav.extend(b"\x02\0\x10\0data");
        wav.extend(64_000u32.to_le_bytes());
        assert_eq!(duration_ms(&wav, 64_044), 2000);
        assert_eq!(duration_ms(&wav, 32_044), 1000, "a size that was left open or lies");
    }

    #[test]
    fn an_mp3_tells_its_rate() {
        assert_eq!(duration_ms(&[0xff, 0xfb, 0x90, 0x00], 16_000), 1000);
    }

    #[test]
    fn an_unknown_sound_is_taken_for_64_kbits() {
        assert_eq!(duration_ms(b"????", 8000), 1000);
        assert_eq!(duration_ms(b"", 0), 0);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_it(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), kind in 0usize..5, total: u64) {
            let magic: &[u8] = [&b"RIFF"[..], b"fLaC", b"OggS", b"ID3", b""][kind];
            bytes.splice(0..0, magic.iter().copied());
            duration_ms(&bytes, total);
        }
    }
}
