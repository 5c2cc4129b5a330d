//! Forms, read by a library that is kept; and, where it refuses, in the looser way of the vendor's platform.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;

/// A part of a form.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: String,
    /// It has a file's name, so it is a `File` and not a text.
    pub(super) is_file: bool,
    pub(super) content: Bytes,
}

/// The parts of a `multipart/form-data` body; `None` where it is none that can be read.
pub(super) async fn read(body: &Bytes, content_type: &str) -> Option<Vec<Part>> {
    let boundary = multer::parse_boundary(content_type).ok()?;
    match strictly(body.clone(), &boundary).await {
        Some(parts) => Some(parts),
        None => loosely(body, &boundary),
    }
}

async fn strictly(body: Bytes, boundary: &str) -> Option<Vec<Part>> {
    let body = stream::iter([Ok::<_, Infallible>(body)]);
    let mut form = multer::Multipart::new(body, boundary);
    let mut parts = Vec::new();
    loop {
        let Some(field) = form.next_field().await.ok()? else { return Some(parts) };
        let (name, is_file) = (field.name()?.to_owned(), field.file_name().is_some());
        parts.push(Part { name, is_file, content: field.bytes().await.ok()? });
    }
}

/// As workerd does it: a delimiter is a line that begins with it, carriage returns may be missing, and what comes before the
/// first delimiter is skipped.
fn loosely(body: &Bytes, boundary: &str) -> Option<Vec<Part>> {
    let delimiter = format!("\n--{boundary}");
    let mut rest = if body.starts_with(&delimiter.as_bytes()[1..]) {
        body.slice(delimiter.len() - 1..)
    } else {
        after(body, delimiter.as_bytes())?
    };
    let mut parts = Vec::new();
    while !rest.starts_with(b"--") {
        rest = after(&rest, b"\n")?;
        let end = memchr::memmem::find(&rest, delimiter.as_bytes())?;
        let part = rest.slice(..end);
        parts.push(part_of(&part)?);
        rest = rest.slice(end + delimiter.len()..);
    }
    Some(parts)
}

fn part_of(part: &Bytes) -> Option<Part> {
    let (head, content) = match memchr::memmem::find(part, b"\n\r\n") {
        Some(end) => (part.slice(..end), part.slice(end + 3..)),
        None => memchr::memmem::find(part, b"\n\n").map(|end| (part.slice(..end), part.slice(end + 2..)))?,
    };
    let head = String::from_utf8_lossy(&head).into_owned();
    let disposition = head.lines().find(|line| line.to_ascii_lowercase().starts_with("content-disposition:"))?;
    let name = parameter(disposition, "name")?;
    let content = content.strip_suffix(b"\r").map_or(content.clone(), |kept| content.slice(..kept.len()));
    Some(Part { name, is_file: parameter(disposition, "filename").is_some(), content })
}

/// A quoted or bare parameter of a header. What stands within another one's quotes is not looked at.
fn parameter(line: &str, name: &str) -> Option<String> {
    let mut rest = line.split_once(';')?.1;
    loop {
        let (key, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_at(after.find(';').unwrap_or(after.len())),
        };
        if key.trim().trim_start_matches(';').trim().eq_ignore_ascii_case(name) {
            return Some(value.trim().to_owned());
        }
        rest = next;
    }
}

fn after(body: &Bytes, mark: &[u8]) -> Option<Bytes> {
    memchr::memmem::find(body, mark).map(|at| body.slice(at + mark.len()..))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &str = "preamble\r\n--b\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na --b is no end\r\n\
        --b\r\ncontent-disposition: form-data; filename=\"name=x\"; name=width\r\n\r\n1280\r\n--b--\r\n";

    async fn fields(body: &str, content_type: &str) -> Vec<(String, String, bool)> {
        let parts = read(&Bytes::from(body.to_owned()), content_type).await.unwrap();
        let told = |part: Part| (part.name, String::from_utf8(part.content.to_vec()).unwrap(), part.is_file);
        parts.into_iter().map(told).collect()
    }

    #[tokio::test]
    async fn carriage_returns_may_be_missing_and_a_text_may_contain_the_boundary() {
        let expected = [("prompt", "a --b is no end", false), ("width", "1280", true)];
        let expected: Vec<_> = expected.iter().map(|(n, v, f)| ((*n).to_owned(), (*v).to_owned(), *f)).collect();
        assert_eq!(fields(FORM, "multipart/form-data; boundary=b").await, expected);
        assert_eq!(fields(&FORM.replace('\r', ""), "Multipart/Form-Data; Boundary=\"b\"").await, expected);
    }
}
