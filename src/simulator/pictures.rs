//! Pictures that a request gives: links, data URLs, base64, bytes.

use bytes::Bytes;

use super::binary;
use super::js::View;
use crate::catalogue::Model;
use crate::usage::Size;

/// A picture, a sound or a file beside the text.
#[derive(Clone, Debug)]
pub(super) enum Picture {
    /// Behind a link: nobody but the vendor knows how large it is.
    Linked,
    Bytes(Bytes),
    /// Something else that is turned into tokens: sound, video, a document.
    Other,
}

/// What the largest picture comes to in tokens: qwen's processor, and that of llama-3.2-11b (four tiles of 1,601).
const MAX_TOKENS: u64 = 16_384;
const LLAMA_TOKENS: u64 = 6_404;
/// clef-omni's, as its page has it.
const OMNI_TOKENS: u64 = 1_024;
/// Pixels in a token.
const TOKEN_PIXELS: u64 = 28 * 28;
/// A usual picture's tokens, and what a sound or a document comes to.
const USUAL_TOKENS: u64 = 1_024;
const OTHER_TOKENS: u64 = 20_000;
/// Without a header that tells its size.
const UNREADABLE: Size = Size { width: 1_024, height: 1_024 };

impl Picture {
    pub(super) fn size(&self) -> Size {
        let Self::Bytes(bytes) = self else { return UNREADABLE };
        imagesize::blob_size(bytes).map_or(UNREADABLE, |size| Size {
            width: u32::try_from(size.width).unwrap_or(u32::MAX),
            height: u32::try_from(size.height).unwrap_or(u32::MAX),
        })
    }

    /// What it comes to beside text.
    pub(super) fn tokens(&self, model: &Model, is_dear: bool) -> u64 {
        let most = match () {
            () if model.id.contains("llama-3.2-11b") => LLAMA_TOKENS,
            () if model.id.contains("clef-omni") => OMNI_TOKENS,
            () => MAX_TOKENS,
        };
        match self {
            _ if !is_dear => USUAL_TOKENS,
            Self::Other => OTHER_TOKENS,
            Self::Linked => most,
            Self::Bytes(_) => self.size().area().div_ceil(TOKEN_PIXELS).min(most),
        }
    }
}

/// What one field holds: a link, base64, a list of bytes, an object with any of these, or a list of them.
pub(super) fn given(field: View<'_>) -> Vec<Picture> {
    if let Some(text) = field.text() {
        return vec![of_text(text)];
    }
    if field.is_object() {
        let inner = ["url", "body", "data", "b64_json"].iter().find_map(|name| field.given(name));
        return inner.map(given).unwrap_or_default();
    }
    if let Some(bytes) = binary::of_list(field) {
        return vec![Picture::Bytes(bytes)];
    }
    field.items().into_iter().flatten().flat_map(|item| item.text().map(of_text)).collect()
}

fn of_text(text: &str) -> Picture {
    let is_link = text.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http"));
    if is_link { Picture::Linked } else { Picture::Bytes(binary::of_text(text)) }
}

/// Every picture and the like of a chat: parts of messages and inputs, and fields of their own.
pub(super) fn all(object: View<'_>) -> Vec<Picture> {
    let mut found: Vec<_> = ["image", "images"].iter().filter_map(|name| object.given(name)).flat_map(given).collect();
    for list in ["messages", "input"] {
        for message in object.get(list).and_then(View::items).into_iter().flatten() {
            let parts = message.get("content").and_then(View::items);
            found.extend(parts.into_iter().flatten().flat_map(of_part));
        }
    }
    found
}

fn of_part(part: View<'_>) -> Vec<Picture> {
    if let Some(picture) = part.given("image_url").or_else(|| part.given("image")).or_else(|| source(part)) {
        return given(picture);
    }
    if is_part(part) { vec![Picture::Other] } else { Vec::new() }
}

/// A picture in Anthropic's form.
fn source(part: View<'_>) -> Option<View<'_>> {
    part.get("type").and_then(View::text).filter(|kind| *kind == "image")?;
    part.given("source")
}

/// A part of a message that is a picture, a sound or a file.
pub(super) fn is_part(part: View<'_>) -> bool {
    source(part).is_some() || PART_FIELDS.iter().any(|name| part.given(name).is_some())
}

const PART_FIELDS: [&str; 10] = [
    "image_url",
    "image",
    "input_audio",
    "audio_url",
    "file",
    "file_data",
    "file_url",
    "file_id",
    "video_url",
    "video",
];
