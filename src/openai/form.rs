//! Multipart forms, as OpenAI's clients send their recordings.

use memchr::memmem;

/// A part of a form.
#[derive(Debug, PartialEq)]
pub(super) struct Part<'a> {
    pub(super) name: &'a str,
    pub(super) file_name: Option<&'a str>,
    pub(super) content_type: Option<&'a str>,
    pub(super) content: &'a [u8],
}

/// More parts than any of OpenAI's routes takes.
const MAX_PARTS: usize = 64;

/// The parts of a form; `None` where this is none.
pub(super) fn parts<'a>(body: &'a [u8], content_type: &'a str) -> Option<Vec<Part<'a>>> {
    let delimiter = format!("\r\n--{}", boundary(content_type)?);
    // The first delimiter may stand at the very beginning.
    let first = delimiter.trim_start();
    let start = if body.starts_with(first.as_bytes()) {
        first.len()
    } else {
        memmem::find(body, delimiter.as_bytes())? + delimiter.len()
    };
    let mut parts = Vec::new();
    let mut rest = &body[start..];
    while parts.len() < MAX_PARTS && !rest.starts_with(b"--") {
        let end = memmem::find(rest, delimiter.as_bytes())?;
        parts.extend(part(&rest[..end]));
        rest = &rest[end + delimiter.len()..];
    }
    Some(parts)
}

fn boundary(content_type: &str) -> Option<&str> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    parameter(parameters, "boundary")
}

/// A part between two delimiters: line break, headers, blank line, content.
fn part(bytes: &[u8]) -> Option<Part<'_>> {
    let end = memmem::find(bytes, b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let header = |name: &str| {
        let headers = head.split("\r\n").filter_map(|line| line.split_once(':'));
        headers.into_iter().find(|(header, _)| header.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let disposition = header("content-disposition")?;
    Some(Part {
        name: parameter(disposition, "name")?,
        file_name: parameter(disposition, "filename"),
        content_type: header("content-type"),
        content: &bytes[end + 4..],
    })
}

fn parameter<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let parameters = header.split(';').filter_map(|parameter| parameter.split_once('='));
    let (_, value) = parameters.into_iter().find(|(found, _)| found.trim().eq_ignore_ascii_case(name))?;
    Some(value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_form_are_found() {
        let form = b"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--b\r\ncontent-disposition: form-data; \
            name=\"file\"; filename=\"a b.wav\"\r\nContent-Type: audio/wav\r\n\r\nRIFF--b\r\n\r\n--b--\r\n";
        let parts = parts(form, "Multipart/Form-Data; boundary=\"b\"").unwrap();
        let file =
            Part { name: "file", file_name: Some("a b.wav"), content_type: Some("audio/wav"), content: b"RIFF--b\r\n" };
        assert_eq!(parts, [Part { name: "model", file_name: None, content_type: None, content: b"whisper" }, file]);
        assert_eq!(super::parts(form, "application/json; boundary=b"), None);
        assert_eq!(super::parts(&form[..form.len() - 10], "multipart/form-data; boundary=b"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_form_breaks_it(body in proptest::collection::vec(proptest::sample::select(b"--b\r\n:;=\"a".to_vec()), 0..120)) {
            parts(&body, "multipart/form-data; boundary=b");
            parts(&body, "multipart/form-data; boundary=");
        }
    }
}
