//! A sound, or anything else, that stands in a text as base64.

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD_NO_PAD};

/// Takes bits that are left over at the end.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The bytes, as the most lenient reader has them: characters that are none of base64's are passed over, `=` among them wherever it
/// stands, and `-` and `_` stand for `+` and `/`.
pub fn decode(text: &[u8]) -> Vec<u8> {
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    if let Ok(bytes) = STANDARD_NO_PAD.decode(&text[..text.len() - padding]) {
        return bytes;
    }
    let mut cleaned: Vec<u8> = text.iter().filter_map(|byte| cleaned(*byte)).collect();
    // A single character left over is less than a byte.
    cleaned.truncate(cleaned.len() - usize::from(cleaned.len() % 4 == 1));
    LENIENT.decode(&cleaned).unwrap_or_default()
}

fn cleaned(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => Some(byte),
        b'-' => Some(b'+'),
        b'_' => Some(b'/'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn what_is_written_in_any_way_is_read(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..100), wrap in 1usize..80) {
            let plain = STANDARD_NO_PAD.encode(&bytes);
            let wrapped: Vec<u8> = plain.as_bytes().chunks(wrap).flat_map(|line| [line, b"\r\n"].concat()).collect();
            let url = plain.replace('+', "-").replace('/', "_");
            for text in [plain.as_bytes(), &wrapped, url.as_bytes(), format!("{plain}==").as_bytes(), format!("={plain}").as_bytes()] {
                proptest::prop_assert_eq!(&decode(text), &bytes);
            }
        }

        #[test]
        fn no_text_breaks_it(text in proptest::collection::vec(proptest::num::u8::ANY, 0..100)) {
            decode(&text);
        }
    }
}
