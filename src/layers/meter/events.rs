//! The events of a stream, as far as the meter needs them: fed in pieces of any size, kept nowhere.

use super::scan::Scanner;
use super::tally::Tally;

/// Reads `data:` lines into a tally.
#[derive(Debug)]
pub(super) struct Events {
    scanner: Scanner,
    line: Line,
    /// `data: [DONE]` has passed.
    pub(super) done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Line {
    /// At its beginning: so many bytes of `data:` have matched.
    Field(usize),
    /// In the value of `data:`; so many bytes of ` [DONE]` have matched, as long as nothing else has come.
    Data(Option<usize>),
    /// Any other line.
    Other,
}

const FIELD: &[u8] = b"data:";
const DONE: &[u8] = b"[DONE]";

impl Events {
    pub(super) fn new(response_has_usage: bool) -> Self {
        Self { scanner: Scanner::new(response_has_usage), line: Line::Field(0), done: false }
    }

    /// The next piece of the stream.
    pub(super) fn push(&mut self, mut bytes: &[u8], tally: &mut Tally) {
        while let Some(&byte) = bytes.first() {
            bytes = match self.line {
                Line::Field(matched) => {
                    self.line = match byte {
                        b'\r' | b'\n' => Line::Field(0),
                        _ if FIELD.get(matched) != Some(&byte) => Line::Other,
                        _ if matched + 1 == FIELD.len() => Line::Data(Some(0)),
                        _ => Line::Field(matched + 1),
                    };
                    &bytes[1..]
                }
                Line::Data(_) | Line::Other => {
                    let end = memchr::memchr2(b'\n', b'\r', bytes);
                    let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
                    self.rest_of_line(line);
                    if end.is_some() {
                        self.end_line(tally);
                    }
                    rest
                }
            };
        }
    }

    /// The stream has ended, perhaps in the middle of a line.
    pub(super) fn finish(&mut self, tally: &mut Tally) {
        self.end_line(tally);
    }

    fn rest_of_line(&mut self, line: &[u8]) {
        if let Line::Data(done) = &mut self.line {
            *done = done.and_then(|matched| match_done(line, matched));
            self.scanner.push(line);
        }
    }

    fn end_line(&mut self, tally: &mut Tally) {
        if let Line::Data(done) = self.line {
            self.done |= done == Some(DONE.len());
            tally.add(self.scanner.finish());
        }
        self.line = Line::Field(0);
    }
}

fn match_done(line: &[u8], mut matched: usize) -> Option<usize> {
    for byte in line {
        match byte {
            b' ' if matched == 0 || matched == DONE.len() => {}
            _ if DONE.get(matched) == Some(byte) => matched += 1,
            _ => return None,
        }
    }
    Some(matched)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> (Tally, bool) {
        let (mut events, mut tally) = (Events::new(false), Tally::default());
        pieces.iter().for_each(|piece| events.push(piece, &mut tally));
        events.finish(&mut tally);
        (tally, events.done)
    }

    const PARTS: [&str; 12] = [
        "data:",
        " ",
        "\n",
        "\r\n",
        "[DONE]",
        "{\"usage\":",
        "{\"prompt_tokens\":1e30,\"input_tokens\":1e30}",
        "}",
        "{\"prompt_tokens\":0,\"completion_tokens\":18446744073709551615,\"neurons\":-1e300}",
        "\"response\":\"é\"",
        ": x",
        ",",
    ];

    proptest::proptest! {
        #[test]
        fn no_stream_breaks_it_and_every_cut_of_it_reads_the_same(
            parts in proptest::collection::vec(proptest::sample::select(&PARTS[..]), 0..40), size in 1usize..9
        ) {
            let text = parts.concat();
            let pieces: Vec<_> = text.as_bytes().chunks(size).collect();
            proptest::prop_assert_eq!(read(&[text.as_bytes()]), read(&pieces));
        }
    }
}
