//! Pictures and sounds in a request: how large, how long.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

use crate::audio;
use crate::call::Ask;
use crate::usage::Size;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MediaKind {
    Picture,
    Sound,
}

/// How much of a picture or sound is looked at: its header is within.
const HEAD_BYTES: usize = 64 * 1024;
/// What a picture is taken for that cannot be read, such as one behind a link.
const UNREADABLE: Size = Size { width: 1024, height: 1024 };
/// More pictures than any model takes in a call.
const MAX_PICTURES: usize = 64;

/// Measures a picture or a sound in any of the forms that models take: base64, a data URL, an array of bytes, an object
/// or an array of these.
pub(super) struct Media<'a> {
    pub(super) ask: &'a mut Ask,
    pub(super) kind: MediaKind,
}

/// Adds raw bytes, of which `head` is the beginning.
pub(super) fn add(ask: &mut Ask, kind: MediaKind, head: &[u8], total: u64) {
    match kind {
        MediaKind::Sound => {
            let rest = audio::Length::unknown(total.saturating_sub(head.len() as u64));
            ask.add_sound(audio::measure(head).and(rest));
        }
        MediaKind::Picture if ask.input_images.len() < MAX_PICTURES => {
            let size = imagesize::blob_size(head).map_or(UNREADABLE, |size| Size {
                width: u32::try_from(size.width).unwrap_or(u32::MAX),
                height: u32::try_from(size.height).unwrap_or(u32::MAX),
            });
            ask.input_images.push(size);
        }
        MediaKind::Picture => {}
    }
}

/// Adds `data:image/png;base64,…`.
pub(super) fn add_data_url(ask: &mut Ask, url: &str) {
    let kind = if url.starts_with("data:audio") { MediaKind::Sound } else { MediaKind::Picture };
    let (_, data) = url.split_once(',').unwrap_or((url, ""));
    add_base64(ask, kind, data);
}

fn add_base64(ask: &mut Ask, kind: MediaKind, text: &str) {
    if kind == MediaKind::Sound {
        let bytes = audio::text::decode(text.as_bytes());
        return add(ask, kind, &bytes, bytes.len() as u64);
    }
    let text = text.trim_end_matches('=').as_bytes();
    let head = &text[..text.len().min(HEAD_BYTES) / 4 * 4];
    // What is no base64 gives no head, and so the size of something unreadable.
    let head = STANDARD_NO_PAD.decode(head).unwrap_or_default();
    add(ask, kind, &head, text.len() as u64 * 3 / 4);
}

impl<'de> DeserializeSeed<'de> for Media<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Media<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a picture or a sound")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if text.starts_with("data:") {
            add_data_url(self.ask, text);
        } else if text.starts_with("http") {
            add(self.ask, self.kind, &[], 0);
        } else {
            add_base64(self.ask, self.kind, text);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let (mut head, mut total) = (Vec::new(), 0);
        while let Some(byte) = seq.next_element_seed(Element { ask: self.ask, kind: self.kind })? {
            let Some(byte) = byte else { continue };
            total += 1;
            if head.len() < HEAD_BYTES || self.kind == MediaKind::Sound {
                head.push(byte);
            }
        }
        if total > 0 {
            add(self.ask, self.kind, &head, total);
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        // `{"body": base64, "contentType": …}`, `{"url": …}`: the longest text is the picture or the sound.
        let mut longest = String::new();
        while map.next_key::<serde::de::IgnoredAny>()?.is_some() {
            if let Ok(Some(text)) = map.next_value::<Loose>().map(|loose| loose.0)
                && text.len() > longest.len()
            {
                longest = text;
            }
        }
        self.visit_str(&longest)
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// An element of an array: a byte, or a whole picture.
struct Element<'a> {
    ask: &'a mut Ask,
    kind: MediaKind,
}

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = Option<u8>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<u8>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Element<'_> {
    type Value = Option<u8>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a byte, a picture or a sound")
    }

    fn visit_u64<E>(self, byte: u64) -> Result<Option<u8>, E> {
        Ok(u8::try_from(byte).ok())
    }
    fn visit_i64<E>(self, byte: i64) -> Result<Option<u8>, E> {
        Ok(u8::try_from(byte).ok())
    }
    fn visit_f64<E>(self, byte: f64) -> Result<Option<u8>, E> {
        Ok(Some(byte as u8))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Option<u8>, E> {
        Ok(None)
    }
    fn visit_unit<E>(self) -> Result<Option<u8>, E> {
        Ok(None)
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Option<u8>, E> {
        Media { ask: self.ask, kind: self.kind }.visit_str(text).map(|()| None)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<u8>, A::Error> {
        Media { ask: self.ask, kind: self.kind }.visit_map(map).map(|()| None)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Option<u8>, A::Error> {
        Media { ask: self.ask, kind: self.kind }.visit_seq(seq).map(|()| None)
    }
}

/// A text, or nothing where there is something else.
struct Loose(Option<String>);

impl<'de> serde::Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Some(text),
            _ => None,
        }))
    }
}
