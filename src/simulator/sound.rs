//! Speech that is none: MP3 frames of a known length.

use super::dice::Dice;

/// MPEG-2 layer III at 48 kbit/s and 24 kHz: 144 bytes are exactly 24 ms.
const FRAME_HEAD: [u8; 4] = [0xff, 0xf3, 0x64, 0xc0];
const FRAME_BYTES: usize = 144;
const FRAME_MS: u64 = 24;
const CHARACTERS_A_SECOND: u64 = 15;
/// Half an hour is more than any model speaks in a call.
const MAX_FRAMES: u64 = 75_000;

/// Sound for a text, and its milliseconds.
pub(super) fn speak(characters: u64, dice: &mut Dice) -> (Vec<u8>, u64) {
    let frames = (characters * 1000 / CHARACTERS_A_SECOND / FRAME_MS + 1).min(MAX_FRAMES);
    let mut sound = Vec::with_capacity(frames as usize * FRAME_BYTES);
    for _ in 0..frames {
        sound.extend(FRAME_HEAD);
        // Nothing within a frame looks like the head of one.
        sound.extend((FRAME_HEAD.len()..FRAME_BYTES).map(|_| dice.next() as u8 & 0x7f));
    }
    (sound, frames * FRAME_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speech_lasts_as_long_as_it_says() {
        let (sound, ms) = speak(300, &mut Dice::new(1));
        assert_eq!(crate::audio::measure(&sound).likely_ms, ms);
        assert!((19_000..21_000).contains(&ms), "{ms}");
    }
}
