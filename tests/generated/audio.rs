//! Sounds, honest ones and those whose header lies, in every form that a request has for them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use crate::json::Json;

/// Some seconds of sound in one of several formats.
pub fn sound() -> BoxedStrategy<Vec<u8>> {
    let size = prop_oneof![4 => Just(None), 1 => Just(Some(0u32)), 1 => Just(Some(u32::MAX)), 1 => (1u32..5_000).prop_map(Some)];
    let wav = (1u32..4_000, size, any::<bool>()).prop_map(|(millis, size, list)| wav(millis, size, list));
    let mp3 = (prop::collection::vec(1u8..14, 1..40), any::<bool>()).prop_map(|(rates, tag)| mp3(&rates, tag));
    let opus = prop::collection::vec((0u8..32, 0u8..4), 1..40).prop_map(|packets| opus(&packets));
    let amr = (1usize..200)
        .prop_map(|frames| [b"#!AMR\n".to_vec(), [&[0x04][..], &[0; 12]].concat().repeat(frames)].concat());
    let junk = prop::collection::vec(any::<u8>(), 0..300);
    prop_oneof![3 => wav, 2 => mp3, 1 => opus, 1 => amr, 1 => junk, 1 => Just(b"{\0\x01raw sound".to_vec())].boxed()
}

/// 8 kHz, 8 bits, mono. `size` is what its head says of its data.
fn wav(millis: u32, size: Option<u32>, list: bool) -> Vec<u8> {
    let data = vec![128; millis as usize * 8];
    let mut wav = b"RIFF\xff\xff\xff\xffWAVE".to_vec();
    if list {
        wav.extend(b"LIST\x05\0\0\0INFOx\0");
    }
    wav.extend(b"fmt \x10\0\0\0\x01\0\x01\0");
    wav.extend(8_000u32.to_le_bytes());
    wav.extend(8_000u32.to_le_bytes());
    wav.extend(b"\x01\0\x08\0data");
    wav.extend(size.unwrap_or(data.len() as u32).to_le_bytes());
    wav.extend(data);
    wav
}

/// MPEG-2 layer III at 24 kHz, a rate for each frame.
fn mp3(rates: &[u8], tag: bool) -> Vec<u8> {
    const KBITS: [usize; 15] = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
    let mut mp3 = if tag { b"ID3\x04\0\0\0\0\0\x04tags".to_vec() } else { Vec::new() };
    for rate in rates {
        let length = 72 * KBITS[usize::from(*rate)] * 1000 / 24_000;
        mp3.extend([0xff, 0xf3, rate << 4 | 0x04, 0xc0]);
        mp3.resize(mp3.len() + length - 4, 0);
    }
    mp3
}

/// A page for each packet; granules say nothing.
fn opus(packets: &[(u8, u8)]) -> Vec<u8> {
    let page = |packet: &[u8]| [&b"OggS\0\0"[..], &[0; 20], &[1, packet.len() as u8], packet].concat();
    let mut ogg = [page(b"OpusHead\x01\x01\0\0\x80\xbb\0\0\0\0\0"), page(b"OpusTags\0\0\0\0\0\0\0\0")].concat();
    for (config, code) in packets {
        ogg.extend(page(&[config << 3 | code, 2, 0, 0]));
    }
    ogg
}

/// A sound in JSON.
pub fn in_json() -> BoxedStrategy<Json> {
    let form = prop::sample::select(vec!["base64", "url", "list", "body", "loose"]);
    (sound(), form).prop_map(|(sound, form)| Json::object([("audio", field(&sound, form))])).boxed()
}

fn field(sound: &[u8], form: &str) -> Json {
    let encoded = STANDARD.encode(sound);
    match form {
        "url" => Json::text(&format!("data:audio/wav;base64,{encoded}")),
        "list" => Json::List(sound.iter().map(|byte| Json::raw(byte.to_string())).collect()),
        "body" => Json::object([("body", Json::text(&encoded)), ("contentType", Json::text("audio/wav"))]),
        "loose" => Json::text(&encoded.trim_end_matches('=').replace('+', "-").replace('/', "_")),
        _ => Json::text(&encoded),
    }
}
