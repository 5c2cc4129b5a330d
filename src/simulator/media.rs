//! Pictures, speech, and what was heard.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::dice::Dice;
use super::envelope::envelope;
use super::js::View;
use super::prompt::Prompt;
use super::settings::Writes;
use super::{binary, hearing, limits, picture, sound};
use crate::catalogue::{Model, Unit};
use crate::usage::{ImageUsage, Size, Usage};

/// A reply that is no text.
pub(super) enum Media {
    Json(Value),
    Bytes(&'static str, Bytes),
}

/// A picture of the size and steps that the request or the model says, within what the model makes.
pub(super) fn draw(prompt: &Prompt<'_>, model: &Model) -> (Media, Usage) {
    let default = model.image.unwrap_or(ImageUsage { size: Size { width: 1024, height: 1024 }, steps: 4 });
    let limits = limits::picture(model);
    let side = |name, default| match limits.max_side {
        Some(most) => prompt.limit(&[name], Some(u64::from(default)), most) as u32,
        None => default,
    };
    let size = Size { width: side("width", default.size.width), height: side("height", default.size.height) };
    let steps = prompt.limit(&["steps", "num_steps"], Some(default.steps.into()), limits.max_steps) as u32;
    let png = picture::png(size.width, size.height, &mut Dice::new(prompt.seed(&model.id)));
    let input_images = prompt.pictures().iter().map(|picture| picture.size()).collect();
    let usage = Usage { image: Some(ImageUsage { size, steps }), input_images, ..Usage::default() };
    let is_json = model.id.contains("flux") || model.id.contains("lucid");
    let media = if is_json {
        Media::Json(envelope(json!({"image": STANDARD.encode(png)})))
    } else {
        Media::Bytes("image/png", png.into())
    };
    (media, usage)
}

/// Speech for the request's `text`.
pub(super) fn speak(prompt: &Prompt<'_>, model: &Model, writes: Writes) -> (Media, Usage) {
    let text = prompt.field("text").or_else(|| prompt.field("prompt")).map(View::string).unwrap_or_default();
    // Whether characters are scalar values, UTF-16 units or bytes is not known; bytes are the most.
    let characters = if prompt.is_dear() { text.len() } else { text.chars().count() } as u64;
    let has_characters = model.prices.get(Unit::KiloCharacters).is_some();
    // Where minutes are charged, nothing bounds how slowly the text is spoken.
    let drawl = if writes == Writes::ToTheLimit && !has_characters { 8 } else { 1 };
    let (sound, millis) = sound::speak(characters * drawl, &mut Dice::new(prompt.seed(&model.id)));
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
pub(super) fn hear(prompt: &Prompt<'_>, model: &Model) -> (Media, Usage) {
    let millis = hearing::millis(&audio(prompt));
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

/// A picture that is looked at.
pub(super) fn look(prompt: &Prompt<'_>) -> Usage {
    let raw = prompt.raw.map(|bytes| super::pictures::Picture::Bytes(bytes.clone()));
    let picture = raw.or_else(|| prompt.pictures().into_iter().next());
    let size = picture.map_or(Size { width: 224, height: 224 }, |picture| picture.size());
    Usage { input_images: vec![size], ..Usage::default() }
}

/// Raw bytes, a form's file, or what `audio` holds.
fn audio(prompt: &Prompt<'_>) -> Bytes {
    if let Some(raw) = prompt.raw {
        return raw.clone();
    }
    if let Some(file) = prompt.files().next() {
        return file.content.clone();
    }
    let Some(field) = prompt.field("audio") else { return Bytes::new() };
    let field = field.get("body").unwrap_or(field);
    match field.text() {
        Some(text) => binary::of_text(text),
        None => binary::of_list(field).unwrap_or_default(),
    }
}
