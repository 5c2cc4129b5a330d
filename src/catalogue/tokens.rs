//! How much text makes a token: a sane start, then learned from the replies of each model.

use std::sync::Arc;

use parking_lot::Mutex;

/// The text of a request, measured for an estimate of its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// Bytes of ASCII.
    pub ascii_bytes: u64,
    /// Bytes of everything else, in UTF-8: scripts with shorter tokens than Latin ones.
    pub other_bytes: u64,
    /// Messages or separate texts: each is wrapped in the model's template.
    pub parts: u32,
}

/// Learned, for one model, from every reply that tells its tokens. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct TokenRatio(Arc<Mutex<Learned>>);

#[derive(Debug, Default)]
struct Learned {
    input: Filter,
    output: OutputRatio,
}

/// A call costs some tokens for itself, some a message, and some a byte of either script.
const FEATURES: usize = 4;
/// Where learning starts: a common chat template and English text.
const START: [f64; FEATURES] = [3.0, 5.0, 0.25, 0.4];
/// How far from the start the truth may well be.
const START_VARIANCE: [f64; FEATURES] = [100.0, 100.0, 0.02, 0.1];
/// How far it wanders from one call to the next, as a share of that: recent prompts count for more.
const DRIFT: f64 = 1e-4;
/// How much prompts of the same size differ in tokens, squared, relative to their size.
const NOISE: f64 = 0.01;

/// A Kalman filter over the features' weights: a running least-squares fit that follows slow change.
/// Errors are weighed relative to the size of the call, so that a long prompt does not drown the short ones.
#[derive(Debug)]
struct Filter {
    weights: [f64; FEATURES],
    covariance: [[f64; FEATURES]; FEATURES],
}

#[derive(Debug)]
struct OutputRatio {
    tokens_a_byte: f64,
}

impl Text {
    /// The text of one part.
    pub fn of(text: &str) -> Self {
        let mut measured = Self { parts: 1, ..Self::default() };
        measured.add(text);
        measured
    }

    /// Adds text to the part at hand.
    pub fn add(&mut self, text: &str) {
        // Most texts are all ASCII, and that is told many bytes at a time.
        let other = if text.is_ascii() { 0 } else { text.bytes().filter(|byte| !byte.is_ascii()).count() };
        self.other_bytes += other as u64;
        self.ascii_bytes += (text.len() - other) as u64;
    }

    /// All of it.
    pub fn bytes(&self) -> u64 {
        self.ascii_bytes + self.other_bytes
    }

    fn features(&self) -> [f64; FEATURES] {
        [1.0, f64::from(self.parts), self.ascii_bytes as f64, self.other_bytes as f64]
    }
}

impl TokenRatio {
    /// The likely number of input tokens.
    pub fn input_tokens(&self, text: &Text) -> u64 {
        let likely = self.0.lock().input.predict(&text.features());
        (likely.round() as u64).clamp(1, text.bytes() + TEMPLATE_TOKENS * (1 + u64::from(text.parts)))
    }

    /// The likely number of output tokens in so many bytes of text.
    pub fn output_tokens(&self, bytes: u64) -> u64 {
        (bytes as f64 * self.0.lock().output.tokens_a_byte).ceil() as u64
    }

    /// Learns from a reply that told how many tokens the text was.
    pub fn learn_input(&self, text: &Text, tokens: u64) {
        if tokens > 0 && text.parts > 0 {
            self.0.lock().input.learn(&text.features(), tokens as f64);
        }
    }

    /// Learns from a reply that told how many tokens its text was.
    pub fn learn_output(&self, bytes: u64, tokens: u64) {
        if bytes > 0 && tokens > 0 {
            let ratio = &mut self.0.lock().output.tokens_a_byte;
            *ratio += (tokens as f64 / bytes as f64 - *ratio) * 0.05;
        }
    }
}

/// More tokens than any known chat template puts around a message.
const TEMPLATE_TOKENS: u64 = 64;

impl Default for Filter {
    fn default() -> Self {
        let mut covariance = [[0.0; FEATURES]; FEATURES];
        for i in 0..FEATURES {
            covariance[i][i] = START_VARIANCE[i];
        }
        Self { weights: START, covariance }
    }
}

impl Default for OutputRatio {
    fn default() -> Self {
        Self { tokens_a_byte: 0.25 }
    }
}

impl Filter {
    fn predict(&self, features: &[f64; FEATURES]) -> f64 {
        dot(&self.weights, features)
    }

    fn learn(&mut self, features: &[f64; FEATURES], tokens: f64) {
        let x = features.map(|feature| feature / tokens);
        for (i, start) in START_VARIANCE.iter().enumerate() {
            self.covariance[i][i] = (self.covariance[i][i] + start * DRIFT).min(*start);
        }
        let px: [f64; FEATURES] = std::array::from_fn(|i| dot(&self.covariance[i], &x));
        let spread = dot(&px, &x) + NOISE;
        let surprise = 1.0 - dot(&self.weights, &x);
        for i in 0..FEATURES {
            self.weights[i] += px[i] / spread * surprise;
            for j in 0..FEATURES {
                self.covariance[i][j] -= px[i] * px[j] / spread;
            }
        }
    }
}

fn dot(a: &[f64; FEATURES], b: &[f64; FEATURES]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learns_a_template_and_two_scripts() {
        let ratio = TokenRatio::default();
        let truth = |t: &Text| 11 + 4 * u64::from(t.parts) + t.ascii_bytes / 5 + t.other_bytes * 6 / 10;
        let prompt =
            |n: u64| Text { ascii_bytes: 20 + n * 37 % 4000, other_bytes: n * 53 % 900, parts: 1 + (n % 5) as u32 };
        for n in 0..200 {
            ratio.learn_input(&prompt(n), truth(&prompt(n)));
        }
        for n in 200..300 {
            let (guess, real) = (ratio.input_tokens(&prompt(n)) as f64, truth(&prompt(n)) as f64);
            assert!((guess / real - 1.0).abs() < 0.05, "{guess} for {real}");
        }
    }

    #[test]
    fn absurd_replies_do_not_break_it() {
        let ratio = TokenRatio::default();
        for n in 0..10_000u64 {
            ratio.learn_input(&Text { ascii_bytes: n % 7, other_bytes: 0, parts: 1 }, 1 + n * 7919 % 1_000_000);
        }
        let text = Text::of("hello");
        assert!((1..=text.bytes() + 2 * TEMPLATE_TOKENS).contains(&ratio.input_tokens(&text)));
    }
}
