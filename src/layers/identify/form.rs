//! What a multipart form asks for: flux-2 takes its prompt and pictures so.
//!
//! It is read as the vendor's `FormData` reads it, and where readers differ, as all of them do: a boundary stands at the
//! beginning of a line, of which the carriage return may be missing; what stands before the first one is none of the form's.

use std::borrow::Cow;

use memchr::memmem;

use super::count::Count;
use super::media::{self, MediaKind};
use super::reading::Reading;
use super::scope::{Limit, Measure, Scope, Totals};
use crate::json::{Fields, Quoted};

/// Reads the fields of a `multipart/form-data` body.
pub(super) fn read(body: &[u8], content_type: &str) -> Reading {
    let mut reading = Reading::default();
    let totals = measure(&mut reading, body, content_type);
    reading.set(totals);
    reading
}

/// A form within JSON: `{"multipart": {"body": …, "contentType": …}}`, the body as text or as base64.
pub(super) fn within(reading: &mut Reading, written: &[u8]) -> Totals {
    let text = |fields: &Fields<'_>, name| {
        let place = fields.last(name)?;
        written[place.start..].starts_with(b"\"").then(|| Quoted::at(&written[place]).text().into_owned())
    };
    let read = Fields::of(written).and_then(|fields| Some((text(&fields, "body")?, text(&fields, "contentType")?)));
    let Some((body, content_type)) = read else {
        reading.ask.reach.is_unread = true;
        reading.ask.reach.other_text_bytes += written.len() as u64;
        return Totals::UNREAD;
    };
    let content_type = String::from_utf8_lossy(&content_type);
    match media::decoded(&body) {
        Some(decoded) => measure(reading, &decoded, &content_type),
        None => measure(reading, &body, &content_type),
    }
}

fn measure(reading: &mut Reading, body: &[u8], content_type: &str) -> Totals {
    let mut scope = Scope::default();
    let mut found = false;
    if let Some(boundary) = parameter(content_type, "boundary") {
        for part in Parts::of(body, boundary.as_bytes()) {
            match add(reading, &mut scope, part) {
                true => found = true,
                // The vendor may split this part otherwise, and then it may be any field.
                false if !part.trim_ascii().is_empty() => {
                    scope.inner = Some(scope.inner.map_or(Totals::UNREAD, |inner| inner.or(Totals::UNREAD)));
                }
                false => {}
            }
        }
    }
    if found {
        return scope.totals();
    }
    reading.ask.reach.is_unread = true;
    reading.ask.reach.other_text_bytes += body.len() as u64;
    Totals::UNREAD
}

/// The parts of a body, from each delimiter to the next or to the end.
struct Parts<'a> {
    body: &'a [u8],
    delimiter: Vec<u8>,
    /// Behind the last delimiter that was found.
    at: Option<usize>,
}

impl<'a> Parts<'a> {
    fn of(body: &'a [u8], boundary: &[u8]) -> Self {
        let mut parts = Self { body, delimiter: [b"--", boundary].concat(), at: None };
        parts.at = parts.delimiter_from(0).map(|(_, end)| end);
        parts
    }

    /// The next delimiter on a line of its own: where its line begins, and where the one after it does.
    fn delimiter_from(&self, from: usize) -> Option<(usize, usize)> {
        let mut at = from;
        loop {
            let start = at + memmem::find(&self.body[at..], &self.delimiter)?;
            at = start + self.delimiter.len();
            let begins_line = start == 0 || self.body[start - 1] == b'\n';
            let rest = &self.body[at..];
            let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            match &rest[padding..] {
                _ if !begins_line => {}
                [b'\r', b'\n', ..] => return Some((start, at + padding + 2)),
                [b'\n', ..] => return Some((start, at + padding + 1)),
                // The last one, and a body that ends with it.
                [b'-', b'-', ..] | [] => return Some((start, self.body.len())),
                _ => {}
            }
        }
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let begun = self.at.take().filter(|at| *at < self.body.len())?;
        // The delimiter of an empty part may follow at once.
        let (end, next) = match self.delimiter_from(begun) {
            Some((start, next)) => (start, Some(next)),
            None => (self.body.len(), None),
        };
        self.at = next;
        let part = &self.body[begun..end];
        // The line break before a delimiter is the delimiter's.
        let part = if next.is_some() { part.strip_suffix(b"\n").unwrap_or(part) } else { part };
        Some(if next.is_some() { part.strip_suffix(b"\r").unwrap_or(part) } else { part })
    }
}

/// A part's headers, and its content.
fn split(part: &[u8]) -> Option<(Cow<'_, str>, &[u8])> {
    let ends = [&b"\r\n\r\n"[..], b"\n\n", b"\n\r\n"];
    let (at, length) = ends.iter().filter_map(|end| Some((memmem::find(part, end)?, end.len()))).min()?;
    Some((String::from_utf8_lossy(&part[..at]), &part[at + length..]))
}

/// Adds a part; false where its name is not surely read.
fn add(reading: &mut Reading, scope: &mut Scope, part: &[u8]) -> bool {
    let Some((head, content)) = split(part) else { return false };
    // A line that begins with white space goes on from the one before.
    let head = head.replace("\r\n", "\n").replace("\n ", " ").replace("\n\t", " ");
    let Some(disposition) = header(&head, "content-disposition") else { return false };
    let Some(name) = parameter(disposition, "name") else { return false };
    let is_sure = is_plain(disposition);
    scope.asks = true;
    let ask = &mut reading.ask;
    let measure = match &*name {
        "width" => Some(Measure::Width),
        "height" => Some(Measure::Height),
        "steps" => Some(Measure::Steps),
        "num_steps" => Some(Measure::NumSteps),
        _ => None,
    };
    let limit = match &*name {
        "max_tokens" => Some(Limit::Tokens),
        "max_completion_tokens" => Some(Limit::CompletionTokens),
        "max_output_tokens" => Some(Limit::OutputTokens),
        "max_length" => Some(Limit::Length),
        _ => None,
    };
    let is_file =
        parameter(disposition, "filename").is_some() || disposition.to_ascii_lowercase().contains("filename*");
    let content_type = header(&head, "content-type").unwrap_or("");
    match (&*name, measure, limit) {
        (_, Some(measure), _) => {
            let count = Count::of_form(content);
            media::wish(ask, measure, count);
            scope.measure(measure, count);
        }
        (_, _, Some(limit)) => scope.limit(limit, Count::of_form(content)),
        ("n", ..) => scope.answers(Count::of_form(content)),
        ("prompt" | "text" | "negative_prompt", ..) => ask.add_text(content),
        ("stream", ..) => reading.stream = content.trim_ascii() == b"true",
        (name, ..) => match kind(name, content_type, content, is_file) {
            Some(kind) if is_file => media::add(ask, kind, content, content.len() as u64),
            Some(kind) => media::add_text(ask, kind, content),
            None => ask.reach.other_text_bytes += content.len() as u64,
        },
    }
    is_sure
}

/// All readers take it alike: each quote that opens is closed.
fn is_plain(disposition: &str) -> bool {
    let is_form_data = disposition.get(..9).is_some_and(|begin| begin.eq_ignore_ascii_case("form-data"));
    is_form_data && disposition.bytes().filter(|byte| *byte == b'"').count() % 2 == 0
}

/// What a part is that is not known to be read as text.
fn kind(name: &str, content_type: &str, content: &[u8], is_file: bool) -> Option<MediaKind> {
    // A form's `file` is a sound: OpenAI's transcriptions have it so.
    let by_field = match name {
        "file" => Some(MediaKind::Sound),
        _ => MediaKind::of_field(name.as_bytes()),
    };
    let guess = match by_field {
        Some(kind) => kind,
        None if !is_file => return None,
        None if name.contains("audio") => MediaKind::Sound,
        None => MediaKind::Picture,
    };
    let is_picture = is_file && imagesize::image_type(content).is_ok();
    Some(if is_picture { MediaKind::Picture } else { guess.of_type(content_type.as_bytes()) })
}

/// The value of a header, by its name in any letter case.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// A parameter of a header's value, by its name in any letter case. What stands between quotes is no parameter.
fn parameter<'a>(value: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let mut rest = value;
    loop {
        rest = skip_to_semicolon(rest)?;
        let (found, after) = rest.split_at(rest.find(['=', ';']).unwrap_or(rest.len()));
        if !found.trim().eq_ignore_ascii_case(name) || !after.starts_with('=') {
            continue;
        }
        let after = after[1..].trim_start();
        return Some(match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => after[..after.find(';').unwrap_or(after.len())].trim().into(),
        });
    }
}

/// What follows the next semicolon that is not between quotes.
fn skip_to_semicolon(text: &str) -> Option<&str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b';' if !is_quoted => return Some(&text[at + 1..]),
            _ => {}
        }
    }
    None
}

fn unquoted(text: &str) -> Cow<'_, str> {
    let (mut value, mut is_escaped) = (String::new(), false);
    for char in text.chars() {
        match char {
            _ if is_escaped => is_escaped = false,
            '\\' => {
                is_escaped = true;
                continue;
            }
            '"' => break,
            _ => {}
        }
        value.push(char);
    }
    // A browser writes the quotes and line breaks of a name so.
    value.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Ask;

    fn ask(body: &str) -> Ask {
        read(body.as_bytes(), "multipart/form-data; boundary=b").ask
    }

    fn field(name: &str, value: &str) -> String {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    }

    const FILE: &str = "--b\r\nContent-Disposition: form-data; name=\"input_image_0\"; filename=\"a.png\"\r\n\
        Content-Type: image/png\r\n\r\nno picture\r\n--b--\r\n";

    #[test]
    fn fields_and_pictures_are_found() {
        let form = field("prompt", "a red fox") + &field("width", "1280") + FILE;
        let ask = ask(&form);
        assert_eq!((ask.text.bytes(), ask.image.width, ask.input_images.len()), (9, Some(1280), 1));
        assert_eq!((ask.reach.image.width.given, ask.reach.unsized_pictures), (1280, 1));
    }

    #[test]
    fn a_form_is_read_however_it_is_spelled() {
        let plain = field("steps", "30") + &field("prompt", "fox") + "--b--\r\n";
        for (what, form) in [
            ("line feeds alone", plain.replace("\r\n", "\n")),
            ("a preamble", format!("This is a form.\r\n{plain}")),
            ("no end", plain.trim_end_matches("--b--\r\n").to_owned()),
            ("a boundary within a text", plain.replace("fox", "a --b fox\r\n --b\r\n--bc")),
            ("spaces behind a boundary", plain.replace("--b\r\n", "--b \t\r\n")),
            ("an epilogue", format!("{plain}{}", field("steps", "1"))),
            ("300 parts before", (0..300).map(|n| field(&format!("x{n}"), "1")).collect::<String>() + &plain),
            ("the same field twice", field("steps", "2") + &plain),
            ("the same field twice, the other way", plain.replace("--b--", &(field("steps", "2") + "--b--"))),
            ("a file name", plain.replace("name=\"steps\"", "name=\"steps\"; filename=\"x\"")),
            ("a decoy", plain.replace("form-data; name", "form-data; x=\"; name=prompt\"; name")),
            ("no quotes", plain.replace("\"steps\"", "steps").replace("Content-Disposition", "content-DISPOSITION")),
            ("a folded line", plain.replace("form-data; name", "form-data;\r\n name")),
            ("spaces around", plain.replace("30", " 30 ")),
        ] {
            let ask = ask(&form);
            assert_eq!(ask.reach.image.steps.given, 30, "{what}");
            assert!(ask.text.bytes() >= 3, "{what}: {:?}", ask.text);
        }
        for content_type in
            ["Multipart/Form-Data; Boundary=b", "multipart/form-data; charset=\"; boundary=x\"; BOUNDARY=\"b\""]
        {
            assert_eq!(read(plain.as_bytes(), content_type).ask.image.steps, Some(30), "{content_type}");
        }
    }

    #[test]
    fn what_is_no_form_has_no_bound() {
        assert!(ask("no form").reach.is_unread);
        assert!(read(b"--b\r\n", "multipart/form-data").ask.reach.image.width.or_most);
    }

    proptest::proptest! {
        #[test]
        fn no_form_breaks_it(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200), cut in 0usize..FILE.len(), head in ".{0,40}") {
            read(&body, "multipart/form-data; boundary=");
            read(&FILE.as_bytes()[..cut], "multipart/form-data; boundary=b");
            parameter(&head, "name");
        }
    }
}
