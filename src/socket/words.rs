//! What is read of the messages on a socket: how much was heard, and what is to be said.

use serde::Deserialize;

use crate::json::{Fields, Quoted};

/// Of a message of the vendor's.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Heard {
    /// Seconds from the beginning to the end of what it tells about.
    pub(super) until: Option<f64>,
    /// Seconds of all audio: the vendor's last word.
    pub(super) all: Option<f64>,
    /// It says that something went wrong.
    pub(super) is_error: bool,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<std::borrow::Cow<'a, str>>,
    #[serde(default)]
    start: Option<f64>,
    #[serde(default)]
    duration: Option<f64>,
    #[serde(default)]
    audio_window_end: Option<f64>,
}

/// More seconds than any call has are not believed.
const MOST_SECONDS: f64 = 1e6;

impl Heard {
    /// A message that cannot be read tells nothing.
    pub(super) fn of(message: &[u8]) -> Self {
        let Ok(message) = serde_json::from_slice::<Message<'_>>(message) else { return Self::default() };
        let seconds = |figure: f64| Some(figure).filter(|figure| (0.0..MOST_SECONDS).contains(figure));
        match message.kind.as_deref() {
            Some("Results") => {
                let end = message.start.unwrap_or(0.0) + message.duration.unwrap_or(0.0);
                Self { until: seconds(end), ..Self::default() }
            }
            Some("TurnInfo") => Self { until: message.audio_window_end.and_then(seconds), ..Self::default() },
            Some("Metadata") => Self { all: message.duration.and_then(seconds), ..Self::default() },
            Some("Error") => Self { is_error: true, ..Self::default() },
            _ => Self::default(),
        }
    }
}

/// The characters that a client's message has spoken. Where it can be read in several ways, the longest counts.
pub(super) fn characters(message: &[u8]) -> u64 {
    let Some(Fields(fields)) = Fields::of(message) else { return 0 };
    let texts = |name: &'static [u8]| {
        let values = fields.iter().filter(move |(key, _)| **key == *name).map(|(_, place)| &message[place.clone()]);
        values.filter(|value| value.first() == Some(&b'"')).map(|value| Quoted::at(value).text())
    };
    let is_other = fields.iter().any(|(key, _)| **key == *b"type") && !texts(b"type").any(|kind| *kind == *b"Speak");
    let lengths = texts(b"text").map(|text| String::from_utf8_lossy(&text).chars().count() as u64);
    if is_other { 0 } else { lengths.max().unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vendors_words_tell_how_much_was_heard() {
        let until = |text: &str| Heard::of(text.as_bytes()).until;
        assert_eq!(until(r#"{"type":"Results","start":1.5,"duration":2.25,"is_final":true}"#), Some(3.75));
        assert_eq!(until(r#"{"type":"TurnInfo","event":"Update","audio_window_end":0.64}"#), Some(0.64));
        assert_eq!(until(r#"{"type":"Results","start":-3,"duration":1}"#), None);
        assert_eq!(until(r#"{"type":"Results","start":1e300}"#), None);
        let metadata = Heard::of(br#"{"type":"Metadata","request_id":"a","duration":12.5,"channels":2}"#);
        assert_eq!((metadata.all, metadata.until), (Some(12.5), None));
        assert!(Heard::of(br#"{"type":"Error","code":"X"}"#).is_error);
        for junk in ["", "{", "[]", "12", "{\"type\":7}", "\u{0}"] {
            assert_eq!(Heard::of(junk.as_bytes()), Heard::default(), "{junk}");
        }
    }

    #[test]
    fn what_is_spoken_is_counted_in_characters() {
        for (text, characters_in) in [
            (r#"{"type":"Speak","text":"Grüße \u00e9"}"#, 7),
            (r#"{"text":"hi"}"#, 2),
            (r#"{"type":"Flush"}"#, 0),
            (r#"{"type":"Flush","text":"no"}"#, 0),
            (r#"{"type":"Speak","text":"long text","text":"x"}"#, 9),
            (r#"{"type":"Flush","type":"Speak","t\u0065xt":"abc"}"#, 3),
            ("nonsense", 0),
        ] {
            assert_eq!(characters(text.as_bytes()), characters_in, "{text}");
        }
    }
}
