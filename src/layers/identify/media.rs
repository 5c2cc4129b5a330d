//! Pictures and sounds in a request: how large, how long.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::count::Count;
use super::scope::Measure;
use crate::audio;
use crate::call::Ask;
use crate::json::{Broken, Kind, Quoted, Walk};
use crate::usage::Size;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MediaKind {
    Picture,
    Sound,
    /// A video or a document: how much of it is read, nothing in a request tells.
    Other,
}

/// How much of a picture or sound is looked at: its header is within.
const HEAD_BYTES: usize = 64 * 1024;
/// What a picture is taken for that cannot be read, such as one behind a link, where no bound is asked for.
const UNREADABLE: Size = Size { width: 1024, height: 1024 };
/// The sizes of no more pictures are kept.
const MAX_PICTURES: usize = 64;
/// Objects within objects that are searched for a picture.
const MAX_DEPTH: u8 = 48;

/// As forgiving as JavaScript's `atob`: padding may be missing, and bits that are left over are no matter.
const FORGIVING: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

impl MediaKind {
    /// Of the fields that the vendor's schemas and OpenAI's have for them.
    pub(super) fn of_field(name: &[u8]) -> Option<Self> {
        match name {
            b"image" | b"images" | b"image_b64" | b"image_url" | b"mask" | b"mask_image" => Some(Self::Picture),
            b"audio" | b"input_audio" | b"audio_url" => Some(Self::Sound),
            b"video" | b"videos" | b"video_url" | b"input_video" | b"file" | b"files" | b"file_data" | b"file_url"
            | b"file_id" | b"input_file" => Some(Self::Other),
            // flux-2's `input_image_0` to `_3`.
            other => other.starts_with(b"input_image").then_some(Self::Picture),
        }
    }

    /// Of a media type, such as `image/png`; otherwise what the field is for.
    pub(super) fn of_type(self, media_type: &[u8]) -> Self {
        let begins = |with: &[u8]| media_type.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
        match () {
            () if begins(b"image/") => Self::Picture,
            () if begins(b"audio/") => Self::Sound,
            () if begins(b"video/") || begins(b"application/") => Self::Other,
            () => self,
        }
    }
}

/// Takes a picture's measure as it is plainly given. Zero counts as absent.
pub(super) fn wish(ask: &mut Ask, measure: Measure, count: Count) {
    let wish = match count {
        Count::Plain(number) | Count::Odd(number) if number > 0 => Some(u32::try_from(number).unwrap_or(u32::MAX)),
        _ => None,
    };
    let image = &mut ask.image;
    *match measure {
        Measure::Width => &mut image.width,
        Measure::Height => &mut image.height,
        Measure::Steps => &mut image.steps,
        Measure::NumSteps => &mut image.num_steps,
    } = wish;
}

/// Adds raw bytes, of which `head` is the beginning.
pub(super) fn add(ask: &mut Ask, kind: MediaKind, head: &[u8], total: u64) {
    match kind {
        MediaKind::Sound => {
            let rest = audio::Length::unknown(total.saturating_sub(head.len() as u64));
            ask.add_sound(audio::measure(head).and(rest));
        }
        MediaKind::Picture => match imagesize::blob_size(head) {
            Ok(size) => {
                let side = |side| u32::try_from(side).unwrap_or(u32::MAX);
                add_picture(ask, Some(Size { width: side(size.width), height: side(size.height) }));
            }
            Err(_) => add_picture(ask, None),
        },
        MediaKind::Other => ask.reach.unsized_media += 1,
    }
}

fn add_picture(ask: &mut Ask, size: Option<Size>) {
    let is_kept = ask.input_images.len() < MAX_PICTURES;
    if size.is_none() || !is_kept {
        ask.reach.unsized_pictures += 1;
    }
    if is_kept {
        ask.input_images.push(size.unwrap_or(UNREADABLE));
    }
}

/// Adds what lies elsewhere.
pub(super) fn add_unsized(ask: &mut Ask, kind: MediaKind) {
    match kind {
        MediaKind::Picture => add_picture(ask, None),
        MediaKind::Sound | MediaKind::Other => ask.reach.unsized_media += 1,
    }
}

/// Takes a picture or a sound in any of the forms that models take: base64, a data URL, a link, an array of bytes, an object
/// or an array of these.
pub(super) fn take(walk: &mut Walk<'_>, ask: &mut Ask, kind: MediaKind, depth: u8) -> Result<(), Broken> {
    match walk.peek()? {
        Kind::String => add_text(ask, kind, &walk.string()?.text()),
        Kind::Array | Kind::Object if depth >= MAX_DEPTH => {
            walk.skip()?;
            add_unsized(ask, kind);
        }
        Kind::Array => take_list(walk, ask, kind, depth)?,
        Kind::Object => take_object(walk, ask, kind, depth)?,
        _ => drop(walk.literal()?),
    }
    Ok(())
}

/// An array of bytes, or of pictures or sounds.
fn take_list(walk: &mut Walk<'_>, ask: &mut Ask, kind: MediaKind, depth: u8) -> Result<(), Broken> {
    walk.open();
    let (mut head, mut total, mut is_first) = (Vec::new(), 0, true);
    while walk.element(&mut is_first)? {
        if walk.peek()? != Kind::Number {
            take(walk, ask, kind, depth + 1)?;
            continue;
        }
        let byte = walk.literal()?;
        total += 1;
        if head.len() < HEAD_BYTES || kind == MediaKind::Sound {
            head.push(std::str::from_utf8(byte).ok().and_then(|byte| byte.parse::<f64>().ok()).unwrap_or(0.0) as u8);
        }
    }
    if total > 0 {
        add(ask, kind, &head, total);
    }
    Ok(())
}

/// `{"body": base64, "contentType": …}`, `{"url": …}`, `{"data": base64, "format": …}`: the longest text is the picture or the
/// sound, and a link beside it is one too.
fn take_object(walk: &mut Walk<'_>, ask: &mut Ask, kind: MediaKind, depth: u8) -> Result<(), Broken> {
    walk.open();
    let (mut longest, mut is_found, mut is_first) = (None::<Quoted<'_>>, false, true);
    while walk.key(&mut is_first)?.is_some() {
        match walk.peek()? {
            Kind::String => {
                let text = walk.string()?;
                if is_link(&text.text()) {
                    add_unsized(ask, kind);
                    is_found = true;
                } else if longest.is_none_or(|longest| text.raw.len() > longest.raw.len()) {
                    longest = Some(text);
                }
            }
            Kind::Array | Kind::Object => {
                take(walk, ask, kind, depth + 1)?;
                is_found = true;
            }
            _ => drop(walk.literal()?),
        }
    }
    match longest.filter(|text| !is_found || text.raw.len() > SHORTEST_MEDIA) {
        Some(text) => add_text(ask, kind, &text.text()),
        None if !is_found => add_unsized(ask, kind),
        None => {}
    }
    Ok(())
}

/// Beside a link, a shorter text is a label.
const SHORTEST_MEDIA: usize = 64;

fn is_link(text: &[u8]) -> bool {
    let head = &text[..text.len().min(16)];
    memchr::memmem::find(head, b"://").is_some()
}

/// A text in a field for pictures or sounds.
pub(super) fn add_text(ask: &mut Ask, kind: MediaKind, text: &[u8]) {
    let text = text.trim_ascii();
    if text.is_empty() {
        return;
    }
    let Some(url) = strip_scheme(text) else {
        return if is_link(text) || kind == MediaKind::Other {
            add_unsized(ask, kind)
        } else {
            add_base64(ask, kind, text)
        };
    };
    let (media_type, data) = url.split_at(memchr::memchr(b',', url).unwrap_or(url.len()));
    let kind = kind.of_type(media_type);
    let is_base64 = media_type.len() >= 7 && media_type[media_type.len() - 7..].eq_ignore_ascii_case(b";base64");
    if is_base64 && kind != MediaKind::Other {
        add_base64(ask, kind, data.strip_prefix(b",").unwrap_or_default());
    } else {
        add_unsized(ask, kind);
    }
}

/// The bytes of a text that is base64 from beginning to end.
pub(super) fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    FORGIVING.decode(text.trim_ascii()).ok()
}

/// What stands behind `data:`, in any letter case.
fn strip_scheme(text: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = text.split_at_checked(5)?;
    scheme.eq_ignore_ascii_case(b"data:").then_some(rest)
}

/// Both alphabets, with white space and without padding, as JavaScript's readers forgive it.
fn add_base64(ask: &mut Ask, kind: MediaKind, text: &[u8]) {
    if kind == MediaKind::Sound {
        let bytes = audio::text::decode(text);
        return add(ask, kind, &bytes, bytes.len() as u64);
    }
    let read = |byte: &u8| match byte {
        b'-' => Some(b'+'),
        b'_' => Some(b'/'),
        b'=' => None,
        space if space.is_ascii_whitespace() => None,
        other => Some(*other),
    };
    let head: Vec<u8> = text.iter().filter_map(read).take(HEAD_BYTES).collect();
    // What is no base64 gives no head, and so the size of something unreadable.
    let head = FORGIVING.decode(&head[..head.len() / 4 * 4]).unwrap_or_default();
    let length = text.len() - text.iter().rev().take_while(|byte| **byte == b'=').count();
    add(ask, kind, &head, length as u64 * 3 / 4);
}
