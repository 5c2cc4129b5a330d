//! How long a packet sounds, by its own first bytes.

/// RFC 6716, 3.1: what the first byte tells of the frames, and the second of how many there are. No packet is over 120 ms.
pub(super) fn opus_micros(packet: &[u8]) -> u64 {
    let Some(first) = packet.first() else { return 0 };
    let frame = match first >> 3 {
        silk @ 0..12 => [10_000, 20_000, 40_000, 60_000][usize::from(silk & 3)],
        hybrid @ 12..16 => [10_000, 20_000][usize::from(hybrid & 1)],
        celt => 2_500 << (celt & 3),
    };
    let frames = match first & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => packet.get(1).map_or(1, |second| u64::from(second & 0x3f)),
    };
    (frame * frames).min(120_000)
}

/// RFC 9639, 9.1.1: a frame's head tells its samples, by a code or in full after the frame's number.
pub(super) fn flac_samples(packet: &[u8]) -> Option<u64> {
    let [0xff, 0xf8..=0xfb, sizes, _, number, ..] = *packet else { return None };
    let number_bytes = match number.leading_ones() {
        0 => 1,
        ones @ 2..=7 => ones as usize,
        _ => return None,
    };
    let after = packet.get(4 + number_bytes..)?;
    Some(match sizes >> 4 {
        0 => return None,
        1 => 192,
        code @ 2..=5 => 576 << (code - 2),
        6 => u64::from(*after.first()?) + 1,
        7 => u64::from(u16::from_be_bytes([*after.first()?, *after.get(1)?])) + 1,
        code => 256 << (code - 8),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opus_packet_tells_its_length() {
        // SILK of 60 ms; CELT of 2.5, 20 and twice 20 ms; 48 frames of 2.5 ms; more than there can be.
        for (packet, micros) in [
            (&[3 << 3][..], 60_000),
            (&[16 << 3], 2_500),
            (&[31 << 3], 20_000),
            (&[31 << 3 | 1], 40_000),
            (&[16 << 3 | 3, 48], 120_000),
            (&[3 << 3 | 3, 63], 120_000),
            (&[], 0),
        ] {
            assert_eq!(opus_micros(packet), micros, "{packet:?}");
        }
    }
}
