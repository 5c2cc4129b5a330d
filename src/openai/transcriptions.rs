//! `/v1/audio/transcriptions` and `/v1/audio/translations`: what was said in a recording, by whisper or nova-3.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::face::Answer;
use super::form::{self, Part};
use super::formats::TranscriptFormat;
use super::native::{Native, cannot};
use super::object::{Object, array, items, quoted};
use super::reply::{Converted, NativeReply};
use crate::Error;

/// The form that OpenAI's clients send.
pub(super) struct Form<'a> {
    parts: Vec<Part<'a>>,
    body: &'a Bytes,
}

/// A piece of what was said, with its place in seconds.
#[derive(Debug, PartialEq)]
struct Segment {
    start: f64,
    end: f64,
    /// As JSON.
    text: String,
}

impl<'a> Form<'a> {
    pub(super) fn read(body: &'a Bytes, content_type: &'a str) -> Result<Self, Error> {
        let parts = form::parts(body, content_type);
        let parts = parts.ok_or_else(|| cannot("the body is not the multipart form that this route takes"))?;
        Ok(Self { parts, body })
    }

    /// A field's text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let part = self.parts.iter().find(|part| part.name == name)?;
        Some(String::from_utf8_lossy(part.content).into_owned()).filter(|text| !text.is_empty())
    }

    fn file(&self) -> Result<&Part<'a>, Error> {
        let file = self.parts.iter().find(|part| part.name == "file");
        let file = file.ok_or_else(|| cannot("\"file\" is missing: give the recording as a part of the form"))?;
        if file.content.is_empty() { Err(cannot("\"file\" is empty: give a recording")) } else { Ok(file) }
    }

    /// The recording, which shares the body's memory.
    fn recording(&self) -> Result<Bytes, Error> {
        Ok(self.body.slice_ref(self.file()?.content))
    }
}

/// The request as the model takes it.
pub(super) fn native(form: &Form<'_>, model: String, is_translation: bool) -> Result<Native, Error> {
    let format = match form.text("response_format").as_deref() {
        None | Some("json") => TranscriptFormat::Json,
        Some("text") => TranscriptFormat::Text,
        Some("verbose_json") => TranscriptFormat::VerboseJson,
        Some("srt") => TranscriptFormat::Srt,
        Some("vtt") => TranscriptFormat::Vtt,
        Some(other) => {
            let other = quoted(other);
            return Err(cannot(format!(
                "\"response_format\": {other} is none of json, text, verbose_json, srt and vtt"
            )));
        }
    };
    let is_stream = form.text("stream").is_some_and(|stream| stream.eq_ignore_ascii_case("true") || stream == "1");
    let format = match format {
        TranscriptFormat::Json if is_stream => TranscriptFormat::Events,
        _ if is_stream => {
            return Err(cannot(
                "a stream of events is told in \"json\" alone: leave \"response_format\" or \"stream\" out",
            ));
        }
        _ => format,
    };
    let granularities = form.parts.iter().filter(|part| part.name.starts_with("timestamp_granularities"));
    let words = granularities.into_iter().any(|part| part.content == b"word");
    let answer = Answer::Transcript { format, words, is_translation };
    let (language, prompt) = (form.text("language"), form.text("prompt"));
    if form.text("temperature").is_some_and(|temperature| temperature.trim().parse() != Ok(0.0)) {
        return Err(cannot(format!("{model} takes no \"temperature\": leave it out")));
    }
    let recording = form.recording()?;
    if model.contains("whisper-large-v3-turbo") {
        let mut fields = Object::default();
        fields.set_text("audio", &STANDARD.encode(&recording));
        fields.set_text("task", if is_translation { "translate" } else { "transcribe" });
        if let Some(language) = language {
            fields.set_text("language", &language);
        }
        if let Some(prompt) = prompt {
            fields.set_text("initial_prompt", &prompt);
        }
        return Ok(Native::json(&fields, model, answer));
    }
    if !model.contains("whisper") && !model.contains("nova-3") {
        return Err(cannot(format!(
            "{model} is none that this route knows how to ask: take @cf/openai/whisper-large-v3-turbo, @cf/openai/whisper or \
             @cf/deepgram/nova-3, or ask it by /run/{model}"
        )));
    }
    let missing =
        [("translation", is_translation), ("\"language\"", language.is_some()), ("\"prompt\"", prompt.is_some())];
    if let Some((what, _)) = missing.into_iter().find(|(_, is_asked)| *is_asked) {
        return Err(cannot(format!(
            "{model} knows no {what}: take @cf/openai/whisper-large-v3-turbo, or leave it out"
        )));
    }
    let content_type = content_type(form.file()?).into();
    Ok(Native { body: recording, content_type, model: Some(model), asked: None, answer })
}

/// A recording's own type, by its name where the form does not say.
fn content_type(file: &Part<'_>) -> String {
    let told = file.content_type.filter(|kind| kind.starts_with("audio/") || kind.starts_with("video/"));
    let end = file.file_name.and_then(|name| name.rsplit_once('.')).map_or("", |(_, end)| end);
    let by_name = match end.to_ascii_lowercase().as_str() {
        "mp3" | "mpeg" | "mpga" => "audio/mpeg",
        "m4a" | "mp4" => "audio/mp4",
        "ogg" | "oga" | "opus" => "audio/ogg",
        "flac" => "audio/flac",
        "webm" => "audio/webm",
        _ => "audio/wav",
    };
    told.unwrap_or(by_name).to_owned()
}

/// The transcript in the wanted format; `None` where there is none in the reply.
pub(super) fn converted(
    reply: &NativeReply<'_>,
    format: TranscriptFormat,
    words: bool,
    is_translation: bool,
) -> Option<Converted> {
    let result = reply.result()?;
    let heard = Transcript::read(&Object::read(&result)?)?;
    Some(match format {
        TranscriptFormat::Json => Converted::json(heard.json()),
        TranscriptFormat::Events => Converted::events(heard.events()),
        TranscriptFormat::VerboseJson => Converted::json(heard.verbose_json(words, is_translation)),
        TranscriptFormat::Text => Converted::text(heard.plain() + "\n"),
        TranscriptFormat::Srt => Converted::text(heard.subtitles(",", true)),
        TranscriptFormat::Vtt => Converted::text(format!("WEBVTT\n\n{}", heard.subtitles(".", false))),
    })
}

/// What was heard, by whichever model.
struct Transcript {
    /// As JSON.
    text: String,
    language: Option<String>,
    seconds: f64,
    segments: Vec<Segment>,
    words: Vec<Segment>,
}

impl Transcript {
    fn read(result: &Object<'_>) -> Option<Self> {
        let number = |object: &Object<'_>, name: &str| object.get(name).and_then(|number| number.parse::<f64>().ok());
        if let Some(results) = result.object("results") {
            return Self::deepgram(result, &results);
        }
        let info = result.object("transcription_info").unwrap_or_default();
        let text = result.get("text")?.to_owned();
        let segments = pieces(result.get("segments"), "text");
        let words = result.get("words").or_else(|| info.get("words")).map_or_else(
            || {
                let segments = result.get("segments").and_then(items).unwrap_or_default();
                let words = segments.into_iter().filter_map(|segment| Object::read(segment.as_bytes()));
                words.flat_map(|segment| pieces(segment.get("words"), "word")).collect()
            },
            |words| pieces(Some(words), "word"),
        );
        let end = segments.iter().chain(&words).map(|said| said.end).fold(0.0, f64::max);
        let seconds = number(&info, "duration").or_else(|| number(result, "duration")).unwrap_or(end);
        Some(Self { text, language: info.text("language"), seconds, segments, words }.with_segments())
    }

    /// nova-3's form.
    fn deepgram(result: &Object<'_>, results: &Object<'_>) -> Option<Self> {
        let first = |json: &str| items(json)?.first().map(|first| (*first).to_owned());
        let channel = first(results.get("channels")?)?;
        let channel = Object::read(channel.as_bytes())?;
        let alternative = first(channel.get("alternatives")?)?;
        let alternative = Object::read(alternative.as_bytes())?;
        let words = pieces(alternative.get("words"), "word");
        let metadata = result.object("metadata").unwrap_or_default();
        let told = metadata.get("duration").and_then(|seconds| seconds.parse().ok());
        let seconds = told.unwrap_or_else(|| words.last().map_or(0.0, |word| word.end));
        let language = channel.text("detected_language");
        let text = alternative.get("transcript")?.to_owned();
        Some(Self { text, language, seconds, segments: Vec::new(), words }.with_segments())
    }

    /// Where the model tells no segments, all that was said is one.
    fn with_segments(mut self) -> Self {
        if self.segments.is_empty() && !self.plain().is_empty() {
            self.segments.push(Segment { start: 0.0, end: self.seconds, text: self.text.clone() });
        }
        self
    }

    fn plain(&self) -> String {
        super::object::text(&self.text).unwrap_or_default().trim().to_owned()
    }

    fn usage(&self) -> String {
        format!(r#"{{"type":"duration","seconds":{}}}"#, self.seconds.ceil())
    }

    fn json(&self) -> String {
        format!(r#"{{"text":{},"usage":{}}}"#, self.text, self.usage())
    }

    fn events(&self) -> String {
        let text = &self.text;
        format!(
            "data: {{\"type\":\"transcript.text.delta\",\"delta\":{text}}}\n\n\
             data: {{\"type\":\"transcript.text.done\",\"text\":{text}}}\n\ndata: [DONE]\n\n"
        )
    }

    fn verbose_json(&self, words: bool, is_translation: bool) -> String {
        let task = if is_translation { "translate" } else { "transcribe" };
        // A translation is English.
        let language = if is_translation { Some("english") } else { self.language.as_deref() };
        let language = quoted(language.unwrap_or(""));
        let segments = self.segments.iter().enumerate().map(|(id, said)| {
            let Segment { start, end, text } = said;
            format!(
                r#"{{"id":{id},"seek":0,"start":{start},"end":{end},"text":{text},"tokens":[],"temperature":0,"avg_logprob":0,"compression_ratio":1,"no_speech_prob":0}}"#
            )
        });
        let mut json = format!(
            r#"{{"task":"{task}","language":{language},"duration":{},"text":{},"segments":{}"#,
            self.seconds,
            self.text,
            array(segments.collect::<Vec<_>>())
        );
        if words {
            let words = self
                .words
                .iter()
                .map(|Segment { start, end, text }| format!(r#"{{"word":{text},"start":{start},"end":{end}}}"#));
            // Writing to a string does not fail.
            let _ = write!(json, r#","words":{}"#, array(words.collect::<Vec<_>>()));
        }
        let _ = write!(json, r#","usage":{}}}"#, self.usage());
        json
    }

    fn subtitles(&self, point: &str, is_numbered: bool) -> String {
        let mut subtitles = String::new();
        for (index, said) in self.segments.iter().enumerate() {
            if is_numbered {
                let _ = writeln!(subtitles, "{}", index + 1);
            }
            let (start, end) = (clock(said.start, point), clock(said.end, point));
            let text = super::object::text(&said.text).unwrap_or_default();
            let _ = write!(subtitles, "{start} --> {end}\n{}\n\n", text.trim());
        }
        subtitles
    }
}

/// `00:01:02,345`.
fn clock(seconds: f64, point: &str) -> String {
    let millis = (seconds.max(0.0) * 1000.0).round() as u64;
    let (hours, minutes, rest) = (millis / 3_600_000, millis / 60_000 % 60, millis % 60_000);
    format!("{hours:02}:{minutes:02}:{:02}{point}{:03}", rest / 1000, rest % 1000)
}

fn pieces(json: Option<&str>, text: &str) -> Vec<Segment> {
    let pieces = json.and_then(items).unwrap_or_default();
    let pieces = pieces.into_iter().filter_map(|piece| {
        let piece = Object::read(piece.as_bytes())?;
        let second = |name| piece.get(name)?.parse().ok();
        Some(Segment { start: second("start")?, end: second("end")?, text: piece.get(text)?.to_owned() })
    });
    pieces.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const WHISPER: &str = r#"{"result":{"text":"Hello there. Bye.","word_count":3,"segments":[{"start":0.0,"end":1.5,"text":"Hello there.","words":[{"word":"Hello","start":0,"end":0.5},{"word":"there.","start":0.5,"end":1.5}]},{"start":1.5,"end":62.25,"text":" Bye."}],"transcription_info":{"language":"en","duration":62.25}},"success":true}"#;
    const NOVA: &str = r#"{"result":{"metadata":{"duration":2.0},"results":{"channels":[{"alternatives":[{"transcript":"hi you","words":[{"word":"hi","start":0.1,"end":0.4}]}]}]}}}"#;

    fn told(body: &str, format: TranscriptFormat) -> (String, &'static str) {
        let made = converted(&NativeReply::of_json(body.as_bytes()), format, true, false).unwrap();
        (String::from_utf8(made.body.to_vec()).unwrap(), made.content_type)
    }

    #[test]
    fn a_transcript_has_the_wanted_format() {
        assert_eq!(told(WHISPER, TranscriptFormat::Text).0, "Hello there. Bye.\n");
        let srt = "1\n00:00:00,000 --> 00:00:01,500\nHello there.\n\n2\n00:00:01,500 --> 00:01:02,250\nBye.\n\n";
        assert_eq!(told(WHISPER, TranscriptFormat::Srt).0, srt);
        let vtt = "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\nhi you\n\n";
        assert_eq!(told(NOVA, TranscriptFormat::Vtt), (vtt.to_owned(), "text/plain; charset=utf-8"));
        let json: Value = serde_json::from_str(&told(WHISPER, TranscriptFormat::Json).0).unwrap();
        assert_eq!(json, json!({"text": "Hello there. Bye.", "usage": {"type": "duration", "seconds": 63}}));
        let verbose: Value = serde_json::from_str(&told(WHISPER, TranscriptFormat::VerboseJson).0).unwrap();
        assert_eq!((&verbose["language"], &verbose["segments"][1]["end"]), (&json!("en"), &json!(62.25)));
        assert_eq!(verbose["words"].as_array().unwrap().len(), 2);
    }

    fn asked(model: &str, fields: &[(&str, &str)]) -> Result<Native, Error> {
        let mut form =
            String::from("--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.MP3\"\r\n\r\nsound\r\n");
        for (name, value) in fields {
            form += &format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        }
        let form = Bytes::from(form + "--b--\r\n");
        native(&Form::read(&form, "multipart/form-data; boundary=b").unwrap(), model.into(), false)
    }

    #[test]
    fn each_model_gets_the_recording_as_it_takes_it() {
        let turbo =
            asked("@cf/openai/whisper-large-v3-turbo", &[("language", "de"), ("response_format", "srt")]).unwrap();
        let body: Value = serde_json::from_slice(&turbo.body).unwrap();
        assert_eq!(body, json!({"audio": "c291bmQ=", "task": "transcribe", "language": "de"}));
        let nova = asked("@cf/deepgram/nova-3", &[]).unwrap();
        assert_eq!((&nova.body[..], &*nova.content_type), (&b"sound"[..], "audio/mpeg"));
        for (model, fields) in [
            ("@cf/openai/whisper", [("language", "de")]),
            ("@cf/deepgram/nova-3", [("temperature", "0.5")]),
            ("@cf/openai/whisper", [("response_format", "pdf")]),
            ("@cf/meta/llama-3.2-1b-instruct", [("x", "y")]),
        ] {
            assert!(asked(model, &fields).is_err(), "{model} {fields:?}");
        }
    }
}
