//! How long the packets of a track sound, by its codec.

use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_AAC, CODEC_ID_FLAC, CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3, CODEC_ID_OPUS, CODEC_ID_VORBIS,
};

use super::packet_time::{flac_samples, opus_micros};

/// What packets of a track are.
pub(super) enum Kind {
    /// Each tells.
    Opus,
    /// Each tells, at this rate.
    Flac(u64),
    /// Each is as long as the others: so many samples, at this rate.
    Even(u64, u64),
    /// Each is at most so many samples long, at this rate.
    AtMost(u64, u64),
    /// Only its container tells.
    Told,
}

/// The length of a packet, in nanoseconds.
pub(super) enum Sound {
    Exactly(u64),
    AtMost(u64),
    Unknown,
}

impl Kind {
    pub(super) fn of(parameters: &AudioCodecParameters) -> Self {
        let rate = u64::from(parameters.sample_rate.unwrap_or(0));
        match parameters.codec {
            CODEC_ID_OPUS => Self::Opus,
            _ if rate == 0 => Self::Told,
            CODEC_ID_FLAC => Self::Flac(rate),
            CODEC_ID_AAC => Self::Even(1024, rate),
            CODEC_ID_MP1 => Self::Even(384, rate),
            CODEC_ID_MP2 => Self::Even(1152, rate),
            CODEC_ID_MP3 => Self::Even(if rate >= 32_000 { 1152 } else { 576 }, rate),
            CODEC_ID_VORBIS => {
                // The identification header has the longer block's size; a block overlaps the ones beside it by half.
                let sizes = parameters.extra_data.as_deref().and_then(|data| data.get(28).copied());
                Self::AtMost((1 << u64::from(sizes.map_or(13, |sizes| sizes >> 4)).min(13)) / 2, rate)
            }
            _ => Self::Told,
        }
    }

    pub(super) fn sound(&self, packet: &[u8]) -> Sound {
        match *self {
            Self::Opus => Sound::Exactly(opus_micros(packet) * 1000),
            Self::Flac(rate) => {
                flac_samples(packet).map_or(Sound::Unknown, |samples| Sound::Exactly(nanos(samples, rate)))
            }
            Self::Even(samples, rate) => Sound::Exactly(nanos(samples, rate)),
            Self::AtMost(samples, rate) => Sound::AtMost(nanos(samples, rate)),
            Self::Told => Sound::Unknown,
        }
    }
}

fn nanos(samples: u64, rate: u64) -> u64 {
    samples * 1_000_000_000 / rate.max(1)
}
