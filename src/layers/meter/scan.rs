//! Finds the few facts worth knowing in JSON that flies by, in pieces of any size, without keeping it.
//!
//! A reply may be megabytes of vectors with its usage at the very end. The scanner follows the nesting byte by byte and
//! keeps only the small objects it is after; it never fails: bytes that are no JSON find nothing.

/// What was found.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    /// `usage`: the object's own JSON.
    pub(super) usage: Option<Vec<u8>>,
    /// `metrics`, where some models keep their tokens.
    pub(super) metrics: Option<Vec<u8>>,
    /// `transcription_info` or `metadata`: how long a sound was.
    pub(super) sound: Option<Vec<u8>>,
    /// The beginning of `audio` in base64, and its length in characters.
    pub(super) speech: Option<(Vec<u8>, u64)>,
    /// Bytes of generated text.
    pub(super) text_bytes: u64,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Scanner {
    found: Found,
    state: State,
    /// Whether each container around the current byte is an object; the last one is the innermost.
    containers: Vec<Container>,
    key: Key,
    key_text: [u8; KEY_BYTES],
    key_length: usize,
    capture: Option<Capture>,
    /// `response` holds an answer's usage: on `/v1/responses`. Elsewhere it holds what a model wrote.
    response_has_usage: bool,
}

#[derive(Clone, Copy, Debug)]
struct Container {
    is_object: bool,
    place: Place,
}

/// Where a container is, as far as it matters: what a model wrote may hold a `usage` too.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// The outermost object, or one of the objects that wrap the answer.
    Envelope,
    Deep,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Between tokens.
    Between,
    /// In an object, where a key comes next.
    BeforeKey,
    Key {
        escaped: bool,
    },
    Text {
        escaped: bool,
        counts: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Key {
    Usage,
    Metrics,
    Sound,
    Speech,
    Result,
    Response,
    /// Its text is generated.
    Generated,
    Other,
}

#[derive(Debug)]
struct Capture {
    key: Key,
    depth: usize,
    bytes: Vec<u8>,
    length: u64,
}

/// Longer than any key that is looked for.
const KEY_BYTES: usize = 20;
/// A usage object is some 300 bytes at most.
const MAX_CAPTURE: usize = 4096;
const USUAL_CAPTURE: usize = 256;
/// What is nested deeper is not looked into.
const MAX_DEPTH: usize = 64;
const USUAL_DEPTH: usize = 8;

impl Key {
    fn of(name: &[u8]) -> Self {
        match name {
            b"usage" => Self::Usage,
            b"metrics" => Self::Metrics,
            b"transcription_info" | b"metadata" => Self::Sound,
            b"audio" => Self::Speech,
            b"result" => Self::Result,
            b"response" => Self::Response,
            b"content" | b"reasoning_content" | b"reasoning" | b"text" | b"description" | b"delta" | b"arguments"
            | b"answer" | b"translated_text" | b"summary" | b"generated_text" => Self::Generated,
            _ => Self::Other,
        }
    }
}

impl Scanner {
    pub(super) fn new(response_has_usage: bool) -> Self {
        Self {
            found: Found::default(),
            state: State::Between,
            containers: Vec::with_capacity(USUAL_DEPTH),
            key: Key::Other,
            key_text: [0; KEY_BYTES],
            key_length: 0,
            capture: None,
            response_has_usage,
        }
    }

    /// Ends a document: what it held, and the scanner is ready for the next one.
    pub(super) fn finish(&mut self) -> Found {
        self.state = State::Between;
        self.containers.clear();
        self.key = Key::Other;
        self.capture = None;
        std::mem::take(&mut self.found)
    }

    /// The next piece of the document.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = match self.state {
                State::Text { escaped, counts } => self.text(bytes, escaped, counts),
                State::Key { escaped } => self.key(bytes, escaped),
                State::Between | State::BeforeKey => self.structure(bytes),
            };
            bytes = &bytes[taken..];
        }
    }

    fn text(&mut self, bytes: &[u8], escaped: bool, counts: bool) -> usize {
        let (taken, next) = if escaped {
            (1, State::Text { escaped: false, counts })
        } else {
            match memchr::memchr2(b'"', b'\\', bytes) {
                Some(at) if bytes[at] == b'"' => (at + 1, State::Between),
                Some(at) => (at + 1, State::Text { escaped: true, counts }),
                None => (bytes.len(), self.state),
            }
        };
        self.state = next;
        self.keep(&bytes[..taken]);
        let ended = next == State::Between;
        if counts {
            self.found.text_bytes += taken as u64 - u64::from(ended);
        }
        if ended {
            self.close_capture(self.containers.len());
        }
        taken
    }

    fn key(&mut self, bytes: &[u8], escaped: bool) -> usize {
        let (taken, next) = if escaped {
            (1, State::Key { escaped: false })
        } else {
            match memchr::memchr2(b'"', b'\\', bytes) {
                Some(at) if bytes[at] == b'"' => (at + 1, State::Between),
                Some(at) => (at + 1, State::Key { escaped: true }),
                None => (bytes.len(), self.state),
            }
        };
        self.state = next;
        self.keep(&bytes[..taken]);
        let ended = next == State::Between;
        let name = &bytes[..taken - usize::from(ended)];
        if ended && self.key_length == 0 {
            self.key = Key::of(name);
            return taken;
        }
        // The key comes in pieces. One that is too long becomes none of those looked for.
        if let Some(room) = self.key_text.get_mut(self.key_length..self.key_length + name.len()) {
            room.copy_from_slice(name);
        }
        self.key_length += name.len();
        if ended {
            self.key = Key::of(self.key_text.get(..self.key_length).unwrap_or_default());
        }
        taken
    }

    fn structure(&mut self, bytes: &[u8]) -> usize {
        let byte = bytes[0];
        match byte {
            b'"' if self.state == State::BeforeKey => {
                self.key_length = 0;
                self.state = State::Key { escaped: false };
                self.keep(&[byte]);
            }
            b'"' => self.begin_text(),
            b'{' | b'[' => self.open(byte),
            b'}' | b']' => self.close(byte),
            b',' => {
                let in_object = self.containers.last().is_some_and(|c| c.is_object);
                self.state = if in_object { State::BeforeKey } else { State::Between };
                self.keep(&[byte]);
            }
            // Numbers, literals, colons, white space: nothing to see until the next of the above.
            _ => {
                let run = bytes
                    .iter()
                    .position(|b| matches!(b, b'"' | b'{' | b'[' | b'}' | b']' | b','))
                    .unwrap_or(bytes.len());
                self.keep(&bytes[..run]);
                return run;
            }
        }
        1
    }

    fn begin_text(&mut self) {
        let in_object = self.containers.last().is_some_and(|c| c.is_object);
        let counts = in_object && matches!(self.key, Key::Generated | Key::Response) && self.capture.is_none();
        if in_object && self.key == Key::Speech && self.in_envelope() {
            self.begin_capture();
        }
        self.keep(b"\"");
        self.state = State::Text { escaped: false, counts };
    }

    fn open(&mut self, byte: u8) {
        let is_object = byte == b'{';
        let parent = self.containers.last().copied();
        if is_object && matches!(self.key, Key::Usage | Key::Metrics | Key::Sound) && self.in_envelope() {
            self.begin_capture();
        }
        self.keep(&[byte]);
        let place = match parent {
            None => Place::Envelope,
            Some(Container { place: Place::Envelope, is_object: true }) if self.key == Key::Result => Place::Envelope,
            Some(Container { place: Place::Envelope, is_object: true })
                if self.key == Key::Response && self.response_has_usage =>
            {
                Place::Envelope
            }
            Some(_) => Place::Deep,
        };
        if self.containers.len() < MAX_DEPTH {
            self.containers.push(Container { is_object, place });
        }
        if !is_object && self.key != Key::Generated && self.key != Key::Response {
            self.key = Key::Other;
        }
        self.state = if is_object { State::BeforeKey } else { State::Between };
    }

    fn close(&mut self, byte: u8) {
        self.keep(&[byte]);
        self.containers.pop();
        self.state = State::Between;
        self.close_capture(self.containers.len());
    }

    fn in_envelope(&self) -> bool {
        self.capture.is_none() && self.containers.last().is_some_and(|c| c.is_object && c.place == Place::Envelope)
    }

    fn begin_capture(&mut self) {
        let bytes = Vec::with_capacity(USUAL_CAPTURE);
        self.capture = Some(Capture { key: self.key, depth: self.containers.len(), bytes, length: 0 });
    }

    fn keep(&mut self, bytes: &[u8]) {
        if let Some(capture) = &mut self.capture {
            let room = MAX_CAPTURE - capture.bytes.len();
            capture.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
            capture.length += bytes.len() as u64;
        }
    }

    /// A value has ended at this depth: was it the one that is kept?
    fn close_capture(&mut self, depth: usize) {
        let Some(capture) = self.capture.take_if(|capture| capture.depth == depth) else { return };
        let whole = capture.length == capture.bytes.len() as u64;
        match capture.key {
            Key::Speech => self.found.speech = Some((capture.bytes, capture.length)),
            Key::Usage if whole => self.found.usage = Some(capture.bytes),
            Key::Metrics if whole => self.found.metrics = Some(capture.bytes),
            Key::Sound if whole => self.found.sound = Some(capture.bytes),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(pieces: &[&[u8]]) -> Found {
        let mut scanner = Scanner::new(false);
        pieces.iter().for_each(|piece| scanner.push(piece));
        scanner.finish()
    }

    fn usage(json: &str) -> Option<String> {
        scan(&[json.as_bytes()]).usage.map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn usage_is_found_at_the_top_and_in_the_result() {
        let wanted = Some(r#"{"prompt_tokens":3,"d":{"cached":[1]}}"#.to_owned());
        assert_eq!(usage(r#"{"id":"x","usage":{"prompt_tokens":3,"d":{"cached":[1]}},"z":1}"#), wanted);
        assert_eq!(usage(r#"{"result":{"data":[[1,2],[3]],"usage":{"prompt_tokens":3,"d":{"cached":[1]}}}}"#), wanted);
    }

    #[test]
    fn what_a_model_wrote_is_no_usage() {
        assert_eq!(usage(r#"{"result":{"response":{"usage":{"prompt_tokens":999}}}}"#), None);
        assert_eq!(usage(r#"{"choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":9}"}}]}"#), None);
        assert_eq!(usage(r#"{"choices":[{"usage":{"prompt_tokens":9}}]}"#), None);
        assert_eq!(usage(r#"{"usage":null}"#), None);
    }

    #[test]
    fn generated_text_is_counted() {
        let found = scan(&[
            br#"{"choices":[{"delta":{"role":"assistant","content":"four","reasoning_content":"ten \"bytes"}}]}"#,
        ]);
        assert_eq!(found.text_bytes, 4 + 11);
        assert_eq!(scan(&[br#"{"response":"tok","p":"padding"}"#]).text_bytes, 3);
    }

    #[test]
    fn a_long_speech_keeps_its_beginning_and_its_length() {
        let json = format!(r#"{{"result":{{"audio":"{}"}}}}"#, "A".repeat(100_000));
        let (head, length) = scan(&[json.as_bytes()]).speech.unwrap();
        assert_eq!((head.len(), length), (MAX_CAPTURE, 100_002));
    }

    const DOCUMENT: &str = r#"{"result":{"shape":[2,2],"data":[[0.1,-2e5],[true,null]],"response":"a\"b\\","metrics":{"input_tokens":5},
        "usage":{"prompt_tokens":3,"neurons":0.5,"x":"}\"{"},"description":"née"},"success":true}"#;

    #[test]
    fn every_split_finds_the_same() {
        let whole = scan(&[DOCUMENT.as_bytes()]);
        assert!(whole.usage.is_some() && whole.metrics.is_some() && whole.text_bytes == 6 + 4);
        for at in 0..DOCUMENT.len() {
            assert_eq!(scan(&[&DOCUMENT.as_bytes()[..at], &DOCUMENT.as_bytes()[at..]]), whole, "split at {at}");
        }
        let bytes: Vec<&[u8]> = DOCUMENT.as_bytes().chunks(1).collect();
        assert_eq!(scan(&bytes), whole);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(proptest::sample::select(b"{}[]\",:\\usage 1".to_vec()), 0..400)) {
            let mut scanner = Scanner::new(true);
            scanner.push(&bytes);
            scanner.finish();
            scanner.push(DOCUMENT.as_bytes());
            proptest::prop_assert!(scanner.finish().usage.is_some());
        }
    }
}
