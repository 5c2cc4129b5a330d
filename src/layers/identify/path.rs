//! A path in its one canonical form: what is looked at is what leaves.
//!
//! Servers differ in what they make of `//`, `/./`, `%2e%2e`, `;x` or `\`. Here each segment is decoded once, empty ones and `.`
//! go, `..` takes the one before it with it. Characters that some reader would take for more than themselves (a second layer of
//! encoding, path parameters, spaces, control characters) are refused, as no route of the vendor's has them.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::Error;

/// A path, read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CanonicalPath<'a> {
    /// Decoded, an encoded slash like any other: accounts, routes and models are read from it.
    decoded: Cow<'a, str>,
    /// The same segments, encoded where they have to be: how it leaves where it is no call.
    encoded: Cow<'a, str>,
}

/// What a segment holds as it is.
const IN_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'@')
    .remove(b':')
    .remove(b'+')
    .remove(b',')
    .remove(b'=');

impl<'a> CanonicalPath<'a> {
    /// Reads a request's path, which begins with a slash. A path that has its canonical form already is not copied.
    pub(super) fn read(path: &'a str) -> Result<Self, Error> {
        if is_canonical(path) {
            return Ok(Self { decoded: path.into(), encoded: path.into() });
        }
        let mut segments = Vec::new();
        for segment in path.split('/') {
            let segment = percent_decode_str(segment).decode_utf8().map_err(|_| unclear("bytes that are no UTF-8"))?;
            if let Some(what) = segment.chars().find_map(ambiguity) {
                return Err(unclear(what));
            }
            if segment.contains('/') && segment.split('/').any(|part| matches!(part, "" | "." | "..")) {
                return Err(unclear("an encoded slash beside another or beside dots"));
            }
            match &*segment {
                "" | "." => {}
                ".." => drop(segments.pop().ok_or_else(|| unclear("a `..` that leads out of it"))?),
                _ => segments.push(segment),
            }
        }
        let encode = |segment: &Cow<'_, str>| utf8_percent_encode(segment, IN_SEGMENT).to_string();
        let encoded: Vec<_> = segments.iter().map(encode).collect();
        Ok(Self {
            decoded: format!("/{}", segments.join("/")).into(),
            encoded: format!("/{}", encoded.join("/")).into(),
        })
    }

    /// What is looked at.
    pub(super) fn decoded(&self) -> &str {
        &self.decoded
    }

    /// What leaves where it is no call.
    pub(super) fn encoded(&self) -> &str {
        &self.encoded
    }

    /// Nothing in it had to be decoded or encoded, so that it has one reading only.
    pub(super) fn is_plain(&self) -> bool {
        self.decoded == self.encoded
    }
}

fn is_canonical(path: &str) -> bool {
    let bytes = path.as_bytes();
    let is_usual = bytes.iter().all(|byte| USUAL[usize::from(*byte)]);
    // A segment that begins with a dot may be one of the two that mean something.
    let is_odd = |place: usize| matches!(bytes.get(place + 1), Some(b'/' | b'.'));
    is_usual
        && bytes.first() == Some(&b'/')
        && (bytes.len() == 1 || bytes.last() != Some(&b'/'))
        && !memchr::memchr_iter(b'/', bytes).any(is_odd)
}

/// The bytes that stand for themselves in a path, however it is read.
const USUAL: [bool; 256] = {
    let mut usual = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let letter = byte as u8;
        usual[byte] = letter.is_ascii_alphanumeric()
            || matches!(letter, b'/' | b'-' | b'.' | b'_' | b'~' | b'@' | b':' | b'+' | b',' | b'=');
        byte += 1;
    }
    usual
};

/// What some reader would take for more than the character itself.
fn ambiguity(letter: char) -> Option<&'static str> {
    match letter {
        '%' => Some("a percent sign that is encoded, or that encodes nothing"),
        '\\' => Some("a backslash"),
        ';' => Some("a semicolon"),
        '?' | '#' => Some("an encoded `?` or `#`"),
        _ if letter.is_control() => Some("a control character"),
        _ if letter.is_whitespace() => Some("a space"),
        _ => None,
    }
}

fn unclear(what: &str) -> Error {
    Error::Malformed(format!(
        "the path can be read in more than one way: it has {what}. Send the account, the route and the model's name in plain \
         segments, each percent-encoded at most once"
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(path: &str) -> Option<(String, String)> {
        let path = CanonicalPath::read(path).ok()?;
        Some((path.decoded().to_owned(), path.encoded().to_owned()))
    }

    #[test]
    fn one_path_in_many_spellings_is_one_path() {
        for spelling in [
            "/a/run/@cf/m/n",
            "/a/run/@cf/m/n/",
            "//a///run/@cf//m/n",
            "/a/./run/@cf/m/n/.",
            "/a/b/../run/@cf/m/n",
            "/a/b/%2e%2E/run/@cf/m/n",
            "/a/%2e/%72un/%40cf/m/n",
            "/a/%72%75%6E/@cf/m/n/",
        ] {
            assert_eq!(read(spelling), Some(("/a/run/@cf/m/n".into(), "/a/run/@cf/m/n".into())), "{spelling}");
        }
        assert_eq!(read("/a/%40cf%2Fm%2Fn"), Some(("/a/@cf/m/n".into(), "/a/@cf%2Fm%2Fn".into())));
        assert_eq!(read("/aäb|c"), Some(("/aäb|c".into(), "/a%C3%A4b%7Cc".into())));
        assert_eq!(read("/"), Some(("/".into(), "/".into())));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for path in [
            "/a/%2572un/x",
            "/a/%252e%252e/x",
            "/a/..%2frun/x",
            "/a/run%2F%2Fx",
            "/a/run%2F./x",
            "/a/run\\x",
            "/a/%5cx",
            "/a/run;x=1/y",
            "/a/run%3bx",
            "/a/%20run",
            "/a/%00run",
            "/a/run%09/x",
            "/a/run\u{a0}/x",
            "/a/run%C2%A0/x",
            "/a/%3Fx",
            "/a/x%23",
            "/a/%zz",
            "/a/%4",
            "/a/%ff",
            "/../a",
            "/a/../..",
        ] {
            let error = CanonicalPath::read(path).expect_err(path);
            assert!(error.status() == 400 && error.to_string().contains("more than one way"), "{path}: {error}");
        }
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_canonical(path in "(/|%2[ef]|\\.|%25|[a-z@]|%40|;|\u{a0}|é|%C3%A9| ){0,24}") {
            let path = format!("/{path}");
            if let Ok(read) = CanonicalPath::read(&path) {
                let again = CanonicalPath::read(read.encoded()).unwrap();
                prop_assert_eq!(again.encoded(), read.encoded());
                prop_assert_eq!(again.decoded(), read.decoded());
                prop_assert!(!read.decoded().contains("//") && !read.decoded().split('/').any(|part| part == ".." || part == "."));
            }
        }
    }
}
