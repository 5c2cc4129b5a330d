//! Server-sent events, and the ways in which they may lie on the wire.

use std::str::FromStr;

use bytes::Bytes;
use serde_json::Value;

/// One event of a stream.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    Data(Value),
    /// With a name, as `/v1/responses` has them.
    Named(&'static str, Value),
    Done,
}

/// How the lines of a stream are written. All of these say the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Framing {
    /// `data: …`, and a line feed.
    #[default]
    Usual,
    /// Lines end with a carriage return and a line feed.
    Crlf,
    /// Lines end with a carriage return alone.
    Cr,
    /// With comments, ids and `retry` between.
    Comments,
    /// No space after the colon.
    Terse,
    /// A byte order mark comes first.
    Bom,
    /// The JSON is spread over many `data` lines.
    Lines,
}

impl FromStr for Framing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "usual" => Self::Usual,
            "crlf" => Self::Crlf,
            "cr" => Self::Cr,
            "comments" => Self::Comments,
            "terse" => Self::Terse,
            "bom" => Self::Bom,
            "lines" => Self::Lines,
            _ => return Err(format!("{text:?} is no way to write a stream")),
        })
    }
}

impl Framing {
    /// The events as bytes, one piece each.
    pub(super) fn write(self, events: &[Event]) -> Vec<Bytes> {
        let bom = if self == Self::Bom { "\u{feff}" } else { "" };
        let texts = events.iter().enumerate().map(|(number, event)| {
            let text = self.event(number, event);
            if number == 0 { format!("{bom}{text}") } else { text }
        });
        texts.map(Bytes::from).collect()
    }

    fn event(self, number: usize, event: &Event) -> String {
        let (name, data) = match event {
            Event::Data(data) => (None, self.data(data)),
            Event::Named(name, data) => (Some(*name), self.data(data)),
            Event::Done => (None, "[DONE]".to_owned()),
        };
        let space = if self == Self::Terse { "" } else { " " };
        let mut text = String::new();
        if self == Self::Comments {
            text = format!(": keepalive {{\"usage\":{{}}}}\n\nid: {number}\nretry: 3000\n");
        }
        if let Some(name) = name {
            text += &format!("event:{space}{name}\n");
        }
        for line in data.split('\n') {
            text += &format!("data:{space}{line}\n");
        }
        text.push('\n');
        match self {
            Self::Crlf => text.replace('\n', "\r\n"),
            Self::Cr => text.replace('\n', "\r"),
            _ => text,
        }
    }

    fn data(self, data: &Value) -> String {
        if self == Self::Lines { format!("{data:#}") } else { data.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_of_writing_ends_each_event() {
        let events = [Event::Named("a", json!({"x": 1})), Event::Done];
        let of = |framing: Framing| String::from_utf8(framing.write(&events).concat()).unwrap();
        assert_eq!(of(Framing::Usual), "event: a\ndata: {\"x\":1}\n\ndata: [DONE]\n\n");
        assert_eq!(of(Framing::Crlf), "event: a\r\ndata: {\"x\":1}\r\n\r\ndata: [DONE]\r\n\r\n");
        assert_eq!(of(Framing::Cr), "event: a\rdata: {\"x\":1}\r\rdata: [DONE]\r\r");
        assert_eq!(of(Framing::Terse), "event:a\ndata:{\"x\":1}\n\ndata:[DONE]\n\n");
        assert_eq!(of(Framing::Lines), "event: a\ndata: {\ndata:   \"x\": 1\ndata: }\n\ndata: [DONE]\n\n");
    }
}
