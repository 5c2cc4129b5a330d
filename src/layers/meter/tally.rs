//! What a reply has used so far, from what it says and from what flowed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Deserializer};

use super::scan::Found;
use crate::audio;

/// The sum of a reply's own words.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tally {
    /// The reply told its tokens.
    pub(super) has_tokens: bool,
    pub(super) input_tokens: u64,
    pub(super) cached_tokens: u64,
    pub(super) output_tokens: u64,
    /// The vendor's word on the cost, in neurons.
    pub(super) neurons: Option<f64>,
    /// Milliseconds of sound, where the reply told or held it.
    pub(super) audio_ms: Option<u64>,
    /// Bytes of generated text.
    pub(super) text_bytes: u64,
}

/// `usage` in all its dialects; what is absent is none.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct UsageBody {
    #[serde(deserialize_with = "count")]
    prompt_tokens: u64,
    #[serde(deserialize_with = "count")]
    completion_tokens: u64,
    #[serde(deserialize_with = "count")]
    input_tokens: u64,
    #[serde(deserialize_with = "count")]
    output_tokens: u64,
    prompt_tokens_details: Option<Details>,
    input_tokens_details: Option<Details>,
    neurons: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    #[serde(deserialize_with = "count")]
    cached_tokens: u64,
}

#[derive(Debug, Deserialize)]
struct SoundBody {
    /// In seconds.
    duration: Option<f64>,
}

/// A count that may be written as a float, or be null.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(0.0).round() as u64)
}

impl Tally {
    /// Takes in what one JSON document said: a whole reply, or one event of a stream.
    ///
    /// Usage in a stream comes at its end, as a running total, or as increments, and sometimes as two of these
    /// (`wire.md`): a usage whose prompt is 0 after one that was not is an increment, any other replaces. A usage without
    /// tokens whose neurons are not 0 is the vendor's last word on the cost alone.
    pub(super) fn add(&mut self, found: Found) {
        self.text_bytes += found.text_bytes;
        if let Some(usage) = found.usage.and_then(|json| serde_json::from_slice(&json).ok()) {
            self.add_usage(&usage);
        }
        if let Some(metrics) = found.metrics.and_then(|json| serde_json::from_slice::<UsageBody>(&json).ok())
            && !self.has_tokens
        {
            self.add_usage(&metrics);
        }
        if let Some(sound) = found.sound.and_then(|json| serde_json::from_slice::<SoundBody>(&json).ok()) {
            self.audio_ms = sound.duration.map(|seconds| (seconds * 1000.0).round() as u64).or(self.audio_ms);
        }
        if let Some((base64, length)) = found.speech {
            self.audio_ms = self.audio_ms.or_else(|| Some(speech_ms(&base64, length)));
        }
    }

    fn add_usage(&mut self, usage: &UsageBody) {
        let input = usage.prompt_tokens.saturating_add(usage.input_tokens);
        let output = usage.completion_tokens.saturating_add(usage.output_tokens);
        let details = usage.prompt_tokens_details.as_ref().or(usage.input_tokens_details.as_ref());
        let cached = details.map_or(0, |details| details.cached_tokens);
        let neurons = usage.neurons.filter(|neurons| neurons.is_finite() && *neurons >= 0.0);
        if input == 0 && output == 0 {
            // Neither a total nor an increment.
            self.neurons = neurons.filter(|n| *n > 0.0 || self.neurons.is_none() && !self.has_tokens).or(self.neurons);
            return;
        }
        if input == 0 && self.input_tokens > 0 {
            self.output_tokens = self.output_tokens.saturating_add(output);
            self.neurons = match (self.neurons, neurons) {
                (Some(sum), Some(more)) => Some(sum + more),
                (sum, _) => sum,
            };
        } else {
            (self.input_tokens, self.cached_tokens, self.output_tokens) = (input, cached.min(input), output);
            self.neurons = neurons;
        }
        self.has_tokens = true;
    }
}

/// The length of a base64 sound of which the beginning is here, its opening quote included.
fn speech_ms(base64: &[u8], length: u64) -> u64 {
    let text = base64.strip_prefix(b"\"").unwrap_or(base64);
    let text = &text[..text.iter().position(|byte| matches!(byte, b'=' | b'"')).unwrap_or(text.len())];
    let head = STANDARD_NO_PAD.decode(&text[..text.len() / 4 * 4]).unwrap_or_default();
    audio::measure_head(&head, length.saturating_sub(2) * 3 / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_counts_are_as_many_as_there_are() {
        let mut tally = Tally::default();
        let say = |tally: &mut Tally, usage: &str| {
            tally.add(Found { usage: Some(usage.into()), ..Found::default() });
        };
        say(&mut tally, r#"{"prompt_tokens":1e30,"input_tokens":1,"completion_tokens":1e30,"output_tokens":1}"#);
        say(&mut tally, r#"{"prompt_tokens":0,"completion_tokens":1}"#);
        assert_eq!((tally.input_tokens, tally.output_tokens), (u64::MAX, u64::MAX));
    }
}
