//! How long a recording lasts, frame by frame: what a decoder would hear, whatever its header says.

/// What cannot be read is taken for telephone sound: 8,000 bytes a second.
const UNKNOWN_BYTES_A_MS: u64 = 8;

/// Milliseconds of sound.
pub(super) fn millis(sound: &[u8]) -> u64 {
    let known = match sound {
        [b'R', b'I', b'F', b'F', ..] => wav(sound),
        [b'O', b'g', b'g', b'S', ..] => opus(sound),
        [b'#', b'!', b'A', b'M', b'R', b'\n', ..] => Some(amr(&sound[6..])),
        _ => mp3(sound),
    };
    known.unwrap_or(sound.len() as u64 / UNKNOWN_BYTES_A_MS)
}

fn little_endian(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)))
}

/// By its chunks. A size that was left open, or that is more than there is, ends with the file.
fn wav(sound: &[u8]) -> Option<u64> {
    let (mut at, mut bytes_a_second) = (12, None);
    loop {
        let (name, size) = (sound.get(at..at + 4)?, little_endian(sound, at + 4)?);
        let begin = at + 8;
        match name {
            b"fmt " => bytes_a_second = Some(little_endian(sound, begin + 8)?),
            b"data" => {
                let there = (sound.len() - begin) as u64;
                let length = if size == 0 { there } else { size.min(there) };
                return (length * 1000).checked_div(bytes_a_second?);
            }
            _ => {}
        }
        at = begin + usize::try_from(size).ok()?.div_ceil(2) * 2;
    }
}

/// Opus in Ogg: each packet's first byte tells its frames (RFC 6716, 3.1).
fn opus(sound: &[u8]) -> Option<u64> {
    let (mut at, mut packets, mut tenths) = (0, 0, 0);
    let mut begins = true;
    // Where a page is broken, what came before it has been heard.
    while let Some((lacing, mut packet)) = page(sound, at) {
        for length in lacing {
            let whole = sound.get(packet..packet + usize::from(*length)).unwrap_or_default();
            if begins {
                if packets == 0 && !whole.starts_with(b"OpusHead") {
                    return None;
                }
                packets += 1;
                // The first two are its header and its comments.
                tenths += if packets > 2 { opus_tenths(whole) } else { 0 };
            }
            packet += usize::from(*length);
            begins = *length < 255;
        }
        at = packet;
    }
    (packets > 0).then_some(tenths / 10)
}

/// The lengths of the pieces of the page that begins there, and where the first one does.
fn page(sound: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = sound.get(at..).filter(|rest| rest.starts_with(b"OggS"))?;
    let lacing = rest.get(27..27 + usize::from(*rest.get(26)?))?;
    Some((lacing, at + 27 + lacing.len()))
}

/// Tenths of a millisecond in a packet. One of nothing, and one of more than 120 ms, decoders refuse.
fn opus_tenths(packet: &[u8]) -> u64 {
    const MOST: u64 = 1_200;
    let Some(toc) = packet.first() else { return 0 };
    let config = toc >> 3;
    let frame = match config {
        0..12 => [100, 200, 400, 600][usize::from(config % 4)],
        12..16 => [100, 200][usize::from(config % 2)],
        _ => [25, 50, 100, 200][usize::from(config % 4)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => packet.get(1).map_or(0, |second| u64::from(second & 0x3f)),
    };
    if frame * frames > MOST { 0 } else { frame * frames }
}

/// 20 ms a frame, whose first byte tells its length.
fn amr(mut frames: &[u8]) -> u64 {
    const BYTES: [usize; 16] = [13, 14, 16, 18, 20, 21, 27, 32, 6, 1, 1, 1, 1, 1, 1, 1];
    let mut millis = 0;
    while let Some(head) = frames.first() {
        frames = frames.get(BYTES[usize::from(head >> 3 & 15)]..).unwrap_or_default();
        millis += 20;
    }
    millis
}

/// Frame by frame, for each has its own rate. Tags before and behind are no sound.
fn mp3(sound: &[u8]) -> Option<u64> {
    let mut at = match sound {
        [b'I', b'D', b'3', _, _, _, a, b, c, d, ..] => {
            10 + [a, b, c, d].iter().fold(0, |size, byte| size << 7 | usize::from(**byte & 0x7f))
        }
        _ => 0,
    };
    let mut micros = 0;
    let first = at;
    while let Some((bytes, length)) = sound.get(at..at + 4).and_then(mp3_frame) {
        micros += length;
        at += bytes;
    }
    (at > first).then_some(micros / 1000)
}

/// A frame's bytes and microseconds, of layer III.
fn mp3_frame(head: &[u8]) -> Option<(usize, u64)> {
    const KBITS_V1: [u64; 15] = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
    const KBITS_V2: [u64; 15] = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
    if head[0] != 0xff || head[1] & 0xe6 != 0xe2 {
        return None;
    }
    let (is_v1, is_v25) = (head[1] & 0x18 == 0x18, head[1] & 0x18 == 0);
    let rate =
        [44_100, 48_000, 32_000].get(usize::from(head[2] >> 2 & 3))? >> if is_v1 { 0 } else { 1 + u8::from(is_v25) };
    let kbits =
        *(if is_v1 { KBITS_V1 } else { KBITS_V2 }).get(usize::from(head[2] >> 4)).filter(|kbits| **kbits > 0)?;
    let samples: u64 = if is_v1 { 1152 } else { 576 };
    let bytes = samples / 8 * kbits * 1000 / rate + u64::from(head[2] >> 1 & 1);
    Some((bytes as usize, samples * 1_000_000 / rate))
}

#[cfg(test)]
mod tests {
    use super::super::dice::Dice;
    use super::super::sound::speak;
    use super::*;

    #[test]
    fn our_own_speech_lasts_as_long_as_it_says() {
        let (sound, ms) = speak(300, &mut Dice::new(1));
        assert_eq!(millis(&sound), ms);
        let tagged = [&b"ID3\x04\0\0\0\0\0\x03abc"[..], &sound].concat();
        assert_eq!(millis(&tagged), ms);
    }

    #[test]
    fn a_wav_of_unknown_length_lasts_to_its_end() {
        for size in [0, 16_000, u32::MAX] {
            let mut wav = b"RIFF\0\0\0\0WAVELIST\x03\0\0\0abc\0fmt \x10\0\0\0\x01\0\x01\0".to_vec();
            wav.extend(8_000u32.to_le_bytes());
            wav.extend(8_000u32.to_le_bytes());
            wav.extend(b"\x01\0\x08\0data");
            wav.extend(size.to_le_bytes());
            wav.resize(wav.len() + 16_000, 128);
            assert_eq!(millis(&wav), 2_000, "{size}");
        }
    }

    #[test]
    fn opus_packets_tell_their_length() {
        let page = |packet: &[u8]| {
            let mut page = b"OggS\0\0".to_vec();
            page.extend([0; 20]);
            page.extend([1, packet.len() as u8]);
            page.extend(packet);
            page
        };
        // One frame of 20 ms, two of 20 ms, three of 2.5 ms.
        let packets: [&[u8]; 5] = [b"OpusHead", b"OpusTags", &[0x08, 0], &[0x09, 0], &[0x83, 3]];
        let sound: Vec<u8> = packets.iter().flat_map(|packet| page(packet)).collect();
        assert_eq!(millis(&sound), 20 + 40 + 7);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_it(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), kind in 0usize..6) {
            let magic: &[u8] = [&b"RIFF....WAVEdata"[..], b"OggS", b"#!AMR\n", b"ID3", b"\xff\xf3\x64\xc0", b""][kind];
            bytes.splice(0..0, magic.iter().copied());
            millis(&bytes);
        }
    }
}
