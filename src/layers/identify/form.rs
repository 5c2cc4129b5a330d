//! What a multipart form asks for: flux-2 takes its prompt and pictures so.

use memchr::memmem;

use super::json::Reading;
use super::media::{self, MediaKind};

/// More parts than any model takes.
const MAX_PARTS: usize = 256;

/// Reads the fields of a `multipart/form-data` body. What cannot be read is the vendor's business: the body passes as it is.
pub(super) fn read(body: &[u8], content_type: &str) -> Reading {
    let mut reading = Reading::default();
    let Some(boundary) = boundary(content_type) else { return reading };
    let delimiter = [b"--", boundary.as_bytes()].concat();
    let starts: Vec<usize> = memmem::find_iter(body, &delimiter).take(MAX_PARTS).collect();
    for pair in starts.windows(2) {
        if let Some((head, content)) = part(&body[pair[0] + delimiter.len()..pair[1]]) {
            add(&mut reading, head, content);
        }
    }
    reading
}

fn boundary(content_type: &str) -> Option<&str> {
    let (_, rest) = content_type.split_once("boundary=")?;
    Some(rest.split(';').next()?.trim().trim_matches('"'))
}

/// A part's headers and its content, less the line break that belongs to the delimiter.
fn part(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = memmem::find(bytes, b"\r\n\r\n")?;
    let content = &bytes[end + 4..];
    Some((std::str::from_utf8(&bytes[..end]).ok()?, content.strip_suffix(b"\r\n").unwrap_or(content)))
}

fn add(reading: &mut Reading, head: &str, content: &[u8]) {
    let Some(name) = parameter(head, "name=") else { return };
    if parameter(head, "filename=").is_some() {
        let kind = if name.contains("audio") || name == "file" { MediaKind::Sound } else { MediaKind::Picture };
        return media::add(&mut reading.ask, kind, content, content.len() as u64);
    }
    let Ok(text) = std::str::from_utf8(content) else { return };
    let ask = &mut reading.ask;
    match name {
        "prompt" | "text" => ask.add_text(text),
        "width" => ask.image.width = text.trim().parse().ok(),
        "height" => ask.image.height = text.trim().parse().ok(),
        "steps" | "num_steps" => ask.image.steps = text.trim().parse().ok(),
        "stream" => reading.stream = text.trim() == "true",
        _ => {}
    }
}

fn parameter<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lower = head.to_ascii_lowercase();
    let disposition = lower.find("content-disposition")?;
    let at = memmem::find_iter(&lower.as_bytes()[disposition..], name.as_bytes())
        .map(|at| disposition + at)
        .find(|at| matches!(head.as_bytes().get(at.wrapping_sub(1)), Some(b' ' | b';')))?;
    let value = head[at + name.len()..].split(['\r', ';']).next()?;
    Some(value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &str = "--b\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na red fox\r\n\
        --b\r\nContent-Disposition: form-data; name=\"width\"\r\n\r\n1280\r\n\
        --b\r\nContent-Disposition: form-data; name=\"input_image_0\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n\
        no picture\r\n--b--\r\n";

    #[test]
    fn fields_and_pictures_are_found() {
        let ask = read(FORM.as_bytes(), "multipart/form-data; boundary=b").ask;
        assert_eq!((ask.text.bytes(), ask.image.width, ask.input_images.len()), (9, Some(1280), 1));
    }

    proptest::proptest! {
        #[test]
        fn no_form_breaks_it(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200), cut in 0usize..FORM.len()) {
            read(&body, "multipart/form-data; boundary=");
            read(&FORM.as_bytes()[..cut], "multipart/form-data; boundary=b");
        }
    }
}
