//! How long the audio is that a client sends, by its bytes.

use percent_encoding::percent_decode_str;

use super::Dialect;

/// How a client's audio is counted, as its query tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Audio {
    /// Bytes of a second, all channels; `None` where only the vendor can tell how long a piece lasts.
    pub bytes_a_second: Option<u64>,
    /// How often a second counts: channels that are heard one by one.
    pub channels: u32,
}

/// What is declared without a rate is counted at telephones', which makes most seconds of it.
const LEAST_RATE: u64 = 8_000;
/// What models are documented to take whose query tells nothing (smart-turn).
const USUAL_RATE: u64 = 16_000;
/// More channels than any vendor takes.
const MAX_CHANNELS: u64 = 64;

impl Audio {
    /// From a query. Of a name that is there twice the last value counts.
    pub fn of(dialect: Dialect, query: &str) -> Self {
        let last = |name: &str| {
            let is_it = |key: &str| percent_decode_str(key).decode_utf8_lossy() == name;
            let value = pairs(query).filter(|(key, _)| is_it(key)).map(|(_, value)| value).last();
            value.map(|value| percent_decode_str(value).decode_utf8_lossy().trim().to_ascii_lowercase())
        };
        let number = |name: &str| last(name)?.parse::<u64>().ok().filter(|number| *number > 0);
        let channels = number("channels").unwrap_or(1).min(MAX_CHANNELS);
        let rate = number("sample_rate");
        let samples = |bytes: u64| Some(rate.unwrap_or(LEAST_RATE).saturating_mul(channels * bytes));
        let bytes_a_second = match last("encoding").as_deref() {
            Some("linear16") => samples(2),
            Some("linear32") => samples(4),
            Some("mulaw" | "ulaw" | "alaw") => samples(1),
            // 8 kbit/s, whatever else is said.
            Some("g729") => Some(1000 * channels),
            None if dialect == Dialect::Audio => Some(rate.unwrap_or(USUAL_RATE).saturating_mul(channels * 2)),
            _ => None,
        };
        let is_split = last("multichannel").is_some_and(|value| value == "true" || value == "1");
        // One by one or mixed into one: a second counts once for each that is heard by itself.
        let heard = if is_split { channels as u32 } else { 1 };
        Self { bytes_a_second, channels: heard }
    }

    #[cfg(feature = "sockets")]
    /// Of a sound with a header: what a WAV's tells.
    pub(super) fn told_by(begin: &[u8]) -> Option<u64> {
        let is_wav = begin.starts_with(b"RIFF") && begin.get(8..16) == Some(b"WAVEfmt ");
        let rate = begin.get(28..32).filter(|_| is_wav)?.try_into().ok().map(u32::from_le_bytes)?;
        Some(u64::from(rate)).filter(|rate| *rate >= 1000)
    }
}

/// The names and values of a query, as they stand.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_the_bytes_of_its_encoding_rate_and_channels() {
        let of = |query| Audio::of(Dialect::Listen, query);
        for (query, bytes_a_second, channels) in [
            ("encoding=linear16&sample_rate=16000", Some(32_000), 1),
            ("encoding=linear16&sample_rate=44100&channels=2", Some(176_400), 1),
            ("encoding=linear16&sample_rate=16000&channels=2&multichannel=true", Some(64_000), 2),
            ("encoding=linear16&sample%5Frate=16000&ch%61nnels=2&multi%63hannel=%74rue", Some(64_000), 2),
            ("encoding=mulaw&sample_rate=8000", Some(8_000), 1),
            ("encoding=alaw", Some(8_000), 1),
            ("encoding=Linear16&sample_rate=8000&sample_rate=48000", Some(96_000), 1),
            ("encoding=linear16&sample_rate=0", Some(16_000), 1),
            ("encoding=opus&sample_rate=48000", None, 1),
            ("", None, 1),
            ("encoding=linear32&sample_rate=16000&channels=x", Some(64_000), 1),
            ("encoding=g729", Some(1_000), 1),
            ("encoding=linear16&sample_rate=16000&channels=999999999999", Some(2_048_000), 1),
        ] {
            assert_eq!(of(query), Audio { bytes_a_second, channels }, "{query}");
        }
        assert_eq!(Audio::of(Dialect::Audio, "").bytes_a_second, Some(32_000));
    }

    #[cfg(feature = "sockets")]
    #[test]
    fn a_wav_tells_its_rate() {
        let mut wav = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
        wav.extend(16_000u32.to_le_bytes());
        wav.extend(32_000u32.to_le_bytes());
        assert_eq!(Audio::told_by(&wav), Some(32_000));
        assert_eq!(Audio::told_by(&wav[..30]), None);
        assert_eq!(Audio::told_by(b"OggS"), None);
    }
}
