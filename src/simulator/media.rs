//! Pictures, speech, and what was heard.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::dice::Dice;
use super::prompt::Prompt;
use super::text::envelope;
use super::{picture, sound};
use crate::catalogue::{Model, Unit};
use crate::usage::{ImageUsage, Size, Usage};

/// A reply that is no text.
pub(super) enum Media {
    Json(Value),
    Bytes(&'static str, Bytes),
}

/// A picture of the size and steps that the request or the model says.
pub(super) fn draw(prompt: &Prompt, model: &Model) -> (Media, Usage) {
    let default = model.image.unwrap_or(ImageUsage { size: Size { width: 1024, height: 1024 }, steps: 4 });
    // flux-1-schnell takes no size.
    let has_size = !model.id.contains("flux-1-schnell");
    let size = if has_size { prompt.size(default.size) } else { default.size };
    let steps = ["steps", "num_steps"].iter().find_map(|name| prompt.number(name));
    let steps = steps.and_then(|steps| u32::try_from(steps).ok()).unwrap_or(default.steps);
    let png = picture::png(size.width, size.height, &mut Dice::new(prompt.seed(&model.id)));
    let usage = Usage { image: Some(ImageUsage { size, steps }), ..Usage::default() };
    let is_json = model.id.contains("flux") || model.id.contains("lucid");
    let media = if is_json {
        Media::Json(envelope(json!({"image": STANDARD.encode(png)})))
    } else {
        Media::Bytes("image/png", png.into())
    };
    (media, usage)
}

/// Speech for the request's `text`.
pub(super) fn speak(prompt: &Prompt, model: &Model) -> (Media, Usage) {
    let text = prompt.json["text"].as_str().or(prompt.json["prompt"].as_str()).unwrap_or_default();
    let characters = text.chars().count() as u64;
    let (sound, millis) = sound::speak(characters, &mut Dice::new(prompt.seed(&model.id)));
    let has_characters = model.prices.get(Unit::KiloCharacters).is_some();
    let usage = Usage { characters: if has_characters { characters } else { 0 }, audio_ms: millis, ..Usage::default() };
    let is_json = model.id.contains("melotts");
    let media = if is_json {
        Media::Json(envelope(json!({"audio": STANDARD.encode(sound)})))
    } else {
        Media::Bytes("audio/mpeg", sound.into())
    };
    (media, usage)
}

/// What was said in a recording.
pub(super) fn hear(prompt: &Prompt, model: &Model) -> (Media, Usage) {
    let audio = audio(prompt);
    let millis = wav_millis(&audio).unwrap_or(audio.len() as u64 / 16);
    let seconds = millis as f64 / 1000.0;
    let text = "the quiet river keeps its figures";
    let result = if model.id.contains("nova") || model.id.contains("flux") {
        let heard = json!({"transcript": text, "confidence": 0.98, "words": []});
        json!({"metadata": {"duration": seconds, "channels": 1}, "results": {"channels": [{"alternatives": [heard]}]}})
    } else {
        json!({"text": text, "word_count": 6, "transcription_info": {"language": "en", "duration": seconds}, "segments": []})
    };
    (Media::Json(envelope(result)), Usage { audio_ms: millis, ..Usage::default() })
}

/// Raw bytes, an array of them, or base64.
fn audio(prompt: &Prompt) -> Bytes {
    let field = &prompt.json["audio"];
    let field = field.get("body").unwrap_or(field);
    match field {
        Value::String(encoded) => STANDARD.decode(encoded).unwrap_or_default().into(),
        Value::Array(bytes) => bytes.iter().map(|byte| byte.as_u64().unwrap_or(0) as u8).collect(),
        _ => prompt.bytes.clone(),
    }
}

/// How long a WAV file lasts: its data over its bytes a second.
fn wav_millis(audio: &[u8]) -> Option<u64> {
    let number = |at: usize| Some(u64::from(u32::from_le_bytes(audio.get(at..at + 4)?.try_into().ok()?)));
    (audio.get(..4)? == b"RIFF" && audio.get(36..40)? == b"data").then_some(())?;
    let (a_second, data) = (number(28)?, number(40)?);
    (a_second > 0).then(|| data * 1000 / a_second)
}
