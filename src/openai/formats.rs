//! The formats of sounds and transcripts that OpenAI's routes can be asked for.

/// A sound's format, by OpenAI's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpeechFormat {
    /// MPEG layer 3: what is spoken where nothing is said.
    Mp3,
    /// Opus in Ogg.
    Opus,
    /// AAC.
    Aac,
    /// FLAC.
    Flac,
    /// 16-bit samples in a WAV file.
    Wav,
    /// The same at 24 kHz, without a head.
    Pcm,
}

/// A transcript's format, by OpenAI's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TranscriptFormat {
    /// `{"text": …}`.
    Json,
    /// The same as the events of a stream, for who asks for one. No model tells what it hears piece by piece: all comes at once.
    Events,
    /// The text alone.
    Text,
    /// With language, length and segments.
    VerboseJson,
    /// Subtitles.
    Srt,
    /// Subtitles of the web.
    Vtt,
}
