//! Sounds of every kind, as encoders make them and as a liar would.
//!
//! The files in `tests/data/sounds` are sines of 440 Hz made by Debian's ffmpeg 5.1.9; `made.sh` beside them says how.

use proptest::prelude::*;

use super::*;

#[cfg(feature = "sound")]
/// Of each sample: its name and its length in milliseconds.
const SAMPLES: [(&str, u64); 16] = [
    ("opus.ogg", 4_000),
    ("vorbis.ogg", 4_000),
    ("flac.ogg", 1_000),
    ("speex.ogg", 4_000),
    ("chained.ogg", 6_000),
    ("opus.webm", 4_000),
    ("opus-live.webm", 4_000),
    ("vorbis.webm", 4_000),
    ("aac.mka", 4_000),
    ("aac.m4a", 4_000),
    ("aac-fragments.mp4", 4_000),
    ("aac.adts", 4_000),
    ("vbr.mp3", 4_000),
    ("piped.flac", 1_000),
    ("pcm.aiff", 1_000),
    ("pcm.caf", 1_000),
];

#[cfg(feature = "sound")]
fn sample(name: &str) -> Vec<u8> {
    std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sounds").join(name)).unwrap()
}

/// Within 2%, and never under; encoders add up to two frames at the ends, and AAC's are of 128 ms here.
fn assert_honest(name: &str, bytes: &[u8], ms: u64) {
    let length = measure(bytes);
    let added = if name.starts_with("aac") { 256 } else { 70 };
    assert!(length.upper_ms >= ms, "{name}: {length:?} for {ms} ms");
    assert!(length.likely_ms.abs_diff(ms) <= ms / 50 + added, "{name}: {length:?} for {ms} ms");
    assert!(length.upper_ms <= 20 * ms, "{name}: {length:?} for {ms} ms");
}

#[cfg(feature = "sound")]
#[test]
fn sounds_of_every_container_are_as_long_as_they_are() {
    for (name, ms) in SAMPLES {
        assert_honest(name, &sample(name), ms);
    }
}

/// A WAV of silence, 16 bit at 16 kHz, whose data has this size by its head.
fn wav(seconds: usize, told: u32) -> Vec<u8> {
    let mut wav = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    wav.extend(16_000u32.to_le_bytes());
    wav.extend(32_000u32.to_le_bytes());
    wav.extend(b"\x02\0\x10\0data");
    wav.extend(told.to_le_bytes());
    wav.resize(44 + seconds * 32_000, 0);
    wav
}

#[test]
fn a_wav_is_as_long_as_its_bytes_whatever_its_head_says() {
    for told in [64_000, 0, u32::MAX, 1 << 30] {
        assert_eq!(measure(&wav(2, told)), Length::exact(2000), "{told}");
    }
    // A decoder may stop where the head says, or read on.
    assert_eq!(measure(&wav(2, 32_000)), Length { likely_ms: 1000, upper_ms: 2000 });
    let mut rf64 = wav(2, u32::MAX);
    rf64[..4].copy_from_slice(b"RF64");
    rf64.splice(12..12, *b"ds64\x1c\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(measure(&rf64), Length::exact(2000));
    // The bytes a second that a head tells are not needed, so they are not believed.
    let mut fast = wav(2, 64_000);
    fast[28..32].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(measure(&fast), Length::exact(2000));
}

#[test]
fn a_wave64_is_as_long_as_its_bytes() {
    let (plain, mut w64) = (wav(2, 64_000), b"riff".to_vec());
    w64.extend([0; 20]);
    w64.extend(b"wave\0\0\0\0\0\0\0\0\0\0\0\0fmt \0\0\0\0\0\0\0\0\0\0\0\0");
    w64.extend(40u64.to_le_bytes());
    w64.extend(&plain[20..36]);
    w64.extend(b"data\0\0\0\0\0\0\0\0\0\0\0\0");
    w64.extend((64_000u64 + 24).to_le_bytes());
    w64.resize(w64.len() + 64_000, 0);
    assert_eq!(measure(&w64), Length::exact(2000));
}

#[test]
fn each_frame_of_amr_is_20_ms_the_silent_ones_too() {
    let mut narrow = b"#!AMR\n".to_vec();
    for _ in 0..50 {
        narrow.push(0x04);
        narrow.extend([0x55; 12]);
        narrow.push(0x7c);
    }
    assert_eq!(measure(&narrow), Length::exact(2000));
    let mut wide = b"#!AMR-WB\n".to_vec();
    for _ in 0..50 {
        wide.push(0x44);
        wide.extend([0x55; 60]);
    }
    assert_eq!(measure(&wide), Length::exact(1000));
}

/// MP3 frames at 44.1 kHz, each of its own bit rate, and before them one that says something else of all.
fn mp3(frames: usize, first: &[u8]) -> Vec<u8> {
    let mut mp3 = Vec::new();
    for n in 0..=frames {
        let rate = [1_u8, 5, 9, 14][n % 4];
        let size = 144 * [32, 64, 128, 320][n % 4] * 1000 / 44_100;
        let begin = mp3.len();
        mp3.extend([0xff, 0xfb, rate << 4, 0x44]);
        mp3.resize(begin + size, 0x55);
        if n == 0 {
            mp3[begin + 36..begin + 36 + first.len()].copy_from_slice(first);
        }
    }
    mp3
}

#[test]
fn the_frames_of_an_mp3_are_counted_whatever_its_first_one_says() {
    // 500 frames of 1,152 samples.
    let mut lying = b"Xing\0\0\0\x01\0\0\0\x05".to_vec();
    for first in [&lying[..], b"Info\0\0\0\x01\xff\xff\xff\xff"] {
        assert_honest("mp3", &mp3(500, first), 13_061);
    }
    lying[..4].copy_from_slice(b"VBRI");
    assert_honest("vbri", &mp3(500, &lying), 13_061);
    // With a picture before it and a tag behind.
    let mut tagged = b"ID3\x03\0\0\0\x07\x68\x20".to_vec();
    tagged.resize(10 + 0x1f420, 0xff);
    tagged.extend(mp3(500, &lying));
    tagged.extend([&b"TAG"[..], &[b' '; 125]].concat());
    assert_honest("tagged", &tagged, 13_061);
    assert!(measure(&tagged).upper_ms < 14_000);
}

#[test]
fn what_is_unknown_is_likely_usual_and_at_most_the_lowest_rate() {
    assert_eq!(measure(&[b'?'; 8000]), Length { likely_ms: 1000, upper_ms: 13_473 });
    assert_eq!(measure(b""), Length::default());
}

#[test]
fn a_head_goes_on_as_it_began() {
    let (whole, total) = (mp3(2_000, b"Xing"), mp3(2_000, b"Xing").len());
    let ms = measure_head(&whole[..64 * 1024], total as u64);
    assert!(ms.abs_diff(52_245) < 2_000, "{ms}");
    assert_eq!(measure_head(&wav(4, 0)[..4096], 4 * 32_000 + 44).div_ceil(10), 400);
}

#[cfg(feature = "sound")]
/// Ogg's pages with all positions set to a lie.
fn lied(mut ogg: Vec<u8>, position: u64) -> Vec<u8> {
    let pages: Vec<_> = memchr::memmem::find_iter(&ogg, b"OggS").collect();
    for page in pages {
        ogg[page + 6..page + 14].copy_from_slice(&position.to_le_bytes());
    }
    ogg
}

#[cfg(feature = "sound")]
#[test]
fn positions_and_samples_that_lie_make_nothing_shorter() {
    for position in [0, 1, 48_000, u64::MAX - 1, u64::MAX] {
        for (name, ms) in [("opus.ogg", 4_000), ("vorbis.ogg", 4_000), ("speex.ogg", 4_000), ("flac.ogg", 1_000)] {
            let length = measure(&lied(sample(name), position));
            assert!(length.upper_ms >= ms && length.upper_ms <= 20 * ms, "{name} at {position}: {length:?}");
        }
    }
    // FLAC whose head says that it has one sample, or none.
    for samples in [0, 1] {
        let mut flac = sample("piped.flac");
        flac[21] &= 0xf0;
        flac[22..26].copy_from_slice(&[0, 0, 0, samples]);
        assert_honest("flac", &flac, 1_000);
    }
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("TOLLGATE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(256);
    ProptestConfig::with_cases(cases)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn no_bytes_break_it(mut bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0usize..12) {
        let magic: [&[u8]; 12] = [
            b"RIFF____WAVE", b"riff", b"fLaC\0\0\0\x22", b"OggS\0", b"ID3", b"", b"\x1a\x45\xdf\xa3", b"____ftypM4A ", b"#!AMR\n",
            b"FORM____AIFF", b"caff\0\x01", b"\xff\xfb\x90\x44",
        ];
        bytes.splice(0..0, magic[kind].iter().copied());
        measure(&bytes);
        measure_head(&bytes, u64::MAX);
    }

    /// A decoder that makes the best of it hears all but the page or the cluster that is broken, a quarter of the sound here. What a
    /// broken length makes of the packets after it, it hears too.
    #[cfg(feature = "sound")]
    #[test]
    fn a_broken_sound_is_not_shorter_than_what_can_be_heard_of_it(
        which in 0..SAMPLES.len(),
        place: prop::sample::Index,
        change in 1u8..,
    ) {
        let (name, ms) = SAMPLES[which];
        // An MP4 is heard by its tables, whatever they say.
        prop_assume!(!name.contains(".m4a") && !name.contains(".mp4"));
        let mut bytes = sample(name);
        // The first kilobyte says how all is to be read: without it another sound is heard, or none.
        let head = 1024.min(bytes.len() / 2);
        let place = head + place.index(bytes.len() - head);
        bytes[place] ^= change;
        let length = measure(&bytes);
        prop_assert!(length.upper_ms * 10 >= ms * 7, "{}, byte {}: {:?} for {} ms", name, place, length, ms);
    }

    #[cfg(feature = "sound")]
    #[test]
    fn a_cut_sound_is_as_long_as_what_is_left(which in 0..SAMPLES.len(), cut in 0.3f64..1.0) {
        let (name, ms) = SAMPLES[which];
        // Without the table at its end an MP4 cannot be read by anyone.
        prop_assume!(name != "aac.m4a");
        let bytes = sample(name);
        let left = &bytes[..(bytes.len() as f64 * cut) as usize];
        let length = measure(left);
        // Tables and padding at the beginning are no sound.
        let head = if name.starts_with("vorbis") { 4_800 } else if name == "piped.flac" { 8_400 } else { 1_200 };
        let share = left.len().saturating_sub(head) as f64 / (bytes.len() - head) as f64;
        prop_assert!(length.upper_ms as f64 >= ms as f64 * share * 0.8, "{}: {:?} for {} of {} ms", name, length, share, ms);
    }
}

#[cfg(feature = "sound")]
#[test]
fn a_long_sound_is_measured_soon() {
    let ogg = sample("opus.ogg");
    // A chain of some 16 MB.
    let long = ogg.repeat((16 << 20) / ogg.len());
    let began = std::time::Instant::now();
    let length = measure(&long);
    println!("{} bytes, {} s of sound, in {:?}", long.len(), length.likely_ms / 1000, began.elapsed());
    assert!(length.upper_ms >= 4_000 * ((16 << 20) / ogg.len()) as u64);
}
