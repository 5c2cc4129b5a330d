//! Bytes as JSON gives them: base64 in any hand, a data URL, a list of numbers, an object around one of these.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

use super::js::View;

const LOOSE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// `Buffer.from(text, "base64")`: both alphabets, and what belongs to neither is skipped.
pub(super) fn base64(text: &str) -> Bytes {
    let digits = text.bytes().take_while(|byte| *byte != b'=').filter_map(|byte| match byte {
        b'-' => Some(b'+'),
        b'_' => Some(b'/'),
        b'+' | b'/' => Some(byte),
        _ => byte.is_ascii_alphanumeric().then_some(byte),
    });
    let mut digits: Vec<u8> = digits.collect();
    // A single digit is no byte.
    if digits.len() % 4 == 1 {
        digits.pop();
    }
    LOOSE.decode(digits).unwrap_or_default().into()
}

/// The base64 of a data URL, or of a bare text.
pub(super) fn of_text(text: &str) -> Bytes {
    let is_url = text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"));
    match text.split_once(',') {
        Some((_, data)) if is_url => base64(data),
        _ => base64(text),
    }
}

/// `Uint8Array.from(list)`, where the list holds numbers alone.
pub(super) fn of_list(list: View<'_>) -> Option<Bytes> {
    let items = list.items()?;
    // A number that is no byte wraps around.
    let bytes: Option<Vec<u8>> = items.map(|item| item.number().map(|number| number as i64 as u8)).collect();
    bytes.filter(|bytes| !bytes.is_empty()).map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_in_any_hand() {
        for text in ["UklGRg==", "UklGRg", " Ukl\nGRg= ", "Ukl!GRg"] {
            assert_eq!(base64(text), &b"RIFF"[..], "{text}");
        }
        assert_eq!(base64("_-8"), base64("/+8="));
        assert_eq!(of_text("DATA:audio/wav;base64,UklGRg=="), &b"RIFF"[..]);
    }
}
