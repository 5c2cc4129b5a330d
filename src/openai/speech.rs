//! `/v1/audio/speech`: a text spoken by aura or melotts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::face::Answer;
use super::formats::SpeechFormat;
use super::native::{Native, cannot, required};
use super::object::{Object, quoted};
use super::reply::{Converted, NativeReply};
use crate::Error;

/// OpenAI's voices, and the voice of aura-1, of aura-2-en and of aura-2-es that speaks for each.
const VOICES: [(&str, [&str; 3]); 13] = [
    ("alloy", ["athena", "athena", "diana"]),
    ("ash", ["orion", "orion", "alvaro"]),
    ("ballad", ["arcas", "arcas", "javier"]),
    ("cedar", ["angus", "atlas", "sirio"]),
    ("coral", ["luna", "luna", "celeste"]),
    ("echo", ["orpheus", "orpheus", "nestor"]),
    ("fable", ["helios", "apollo", "aquila"]),
    ("marin", ["stella", "thalia", "estrella"]),
    ("nova", ["asteria", "asteria", "carina"]),
    ("onyx", ["zeus", "zeus", "nestor"]),
    ("sage", ["hera", "hera", "selena"]),
    ("shimmer", ["stella", "aurora", "estrella"]),
    ("verse", ["perseus", "hermes", "javier"]),
];

/// The request as the model takes it.
pub(super) fn native(fields: &Object<'_>, model: String) -> Result<Native, Error> {
    let input = required(fields, "input")?;
    let format = SpeechFormat::read(fields)?;
    if fields.get("speed").is_some_and(|speed| speed.parse() != Ok(1.0)) {
        return Err(cannot(format!("{model} speaks at its own speed: leave \"speed\" out")));
    }
    if fields.get("instructions").is_some_and(|words| words != "\"\"") {
        return Err(cannot(format!("{model} takes no \"instructions\": leave them out, and choose a voice")));
    }
    if fields.get("stream_format").is_some_and(|format| format != "\"audio\"") {
        return Err(cannot("\"stream_format\" is \"audio\" alone here: the sound comes as its bytes"));
    }
    let voice = fields.text("voice").or_else(|| fields.object("voice")?.text("id"));
    let answer = Answer::Speech { format };
    let mut own = Object::default();
    if model.contains("melotts") {
        if format != SpeechFormat::Mp3 {
            return Err(cannot(format!("{model} speaks in mp3 alone: leave \"response_format\" out")));
        }
        own.set("prompt", input);
        if let Some(language) = voice.filter(|voice| voice.len() == 2) {
            own.set_text("lang", &language);
        }
    } else if model.contains("aura") {
        own.set("text", input);
        if let Some(voice) = voice {
            own.set_text("speaker", speaker(&voice, &model));
        }
        format.set(&mut own);
    } else {
        return Err(cannot(format!(
            "{model} is none that /v1/audio/speech knows how to ask: take @cf/deepgram/aura-1, @cf/deepgram/aura-2-en, \
             @cf/deepgram/aura-2-es or @cf/myshell-ai/melotts, or ask it by /run/{model}"
        )));
    }
    Ok(Native::json(&own, model, answer))
}

/// The model's own voice for one of OpenAI's; any other name is the model's own already.
fn speaker<'a>(voice: &'a str, model: &str) -> &'a str {
    let column = match model {
        _ if model.contains("aura-2-es") => 2,
        _ if model.contains("aura-2") => 1,
        _ => 0,
    };
    VOICES.iter().find(|(name, _)| *name == voice).map_or(voice, |(_, own)| own[column])
}

/// The bytes of the sound, from a reply that has them in base64.
pub(super) fn converted(reply: &NativeReply<'_>, format: SpeechFormat) -> Option<Converted> {
    let result = reply.result()?;
    let sound = STANDARD.decode(Object::read(&result)?.text("audio")?).ok()?;
    Some(Converted { content_type: format.content_type(), body: sound.into() })
}

// === impl SpeechFormat ===

impl SpeechFormat {
    fn read(fields: &Object<'_>) -> Result<Self, Error> {
        Ok(match fields.text("response_format").as_deref() {
            None | Some("mp3") => Self::Mp3,
            Some("opus") => Self::Opus,
            Some("aac") => Self::Aac,
            Some("flac") => Self::Flac,
            Some("wav") => Self::Wav,
            Some("pcm") => Self::Pcm,
            Some(other) => {
                let other = quoted(other);
                return Err(cannot(format!(
                    "\"response_format\": {other} is none of mp3, opus, aac, flac, wav and pcm"
                )));
            }
        })
    }

    /// Deepgram's parameters for it.
    fn set(self, own: &mut Object<'_>) {
        let (encoding, container, sample_rate) = match self {
            Self::Mp3 => ("mp3", None, None),
            Self::Opus => ("opus", Some("ogg"), None),
            Self::Aac => ("aac", None, None),
            Self::Flac => ("flac", None, None),
            Self::Wav => ("linear16", Some("wav"), None),
            // OpenAI's raw samples are 24 kHz.
            Self::Pcm => ("linear16", Some("none"), Some("24000")),
        };
        own.set_text("encoding", encoding);
        if let Some(container) = container {
            own.set_text("container", container);
        }
        if let Some(sample_rate) = sample_rate {
            own.set("sample_rate", sample_rate);
        }
    }

    /// The reply's content type.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Mp3 => "audio/mpeg",
            Self::Opus => "audio/ogg",
            Self::Aac => "audio/aac",
            Self::Flac => "audio/flac",
            Self::Wav => "audio/wav",
            Self::Pcm => "audio/pcm",
        }
    }
}
