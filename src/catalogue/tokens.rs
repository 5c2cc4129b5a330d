//! How much text makes a token: a sane start, then learned from the replies of each model.
//!
//! No single reply moves what is learned by much: one that is far from the median of the latest counts for as much as is near it.

use std::sync::Arc;

use parking_lot::Mutex;

/// The text of a request, measured for an estimate of its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Text {
    /// ASCII letters: what words are made of.
    pub letters: u64,
    /// Spaces: about as many as there are words.
    pub spaces: u64,
    /// Digits, punctuation and the rest of ASCII: short tokens.
    pub marks: u64,
    /// Bytes of everything else, in UTF-8: scripts with shorter tokens than Latin ones.
    pub other_bytes: u64,
    /// Messages or separate texts: each is wrapped in the model's template.
    pub parts: u32,
}

/// Learned, for one model, from every reply that tells its tokens. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct TokenRatio(Arc<Mutex<Learned>>);

#[derive(Debug)]
struct Learned {
    input: Filter,
    /// What was told of late over what was expected.
    surprises: Median,
    /// Tokens a byte of what was written of late.
    output: Median,
}

/// The median of the latest figures.
#[derive(Debug)]
struct Median {
    latest: [f64; LATEST],
    next: usize,
}

/// Of so many.
const LATEST: usize = 9;
/// How far from the median a figure may count for what it is, either way.
const NEAR: f64 = 1.5;

/// A call costs some tokens for itself, some a message, and some a byte of each kind.
const FEATURES: usize = 6;
/// Where learning starts: a common chat template and English text.
const START: [f64; FEATURES] = [3.0, 5.0, 0.12, 0.7, 0.6, 0.4];
/// How far from the start the truth may well be.
const START_VARIANCE: [f64; FEATURES] = [100.0, 100.0, 0.02, 0.3, 0.3, 0.1];
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

/// Tokens a byte of English.
const START_OUTPUT: f64 = 0.25;
/// No token is longer than this part of a byte says, on the average of a reply.
const LONGEST_TOKENS: f64 = 1.0 / 16.0;

impl Text {
    /// The text of one part.
    pub fn of(text: &str) -> Self {
        let mut measured = Self { parts: 1, ..Self::default() };
        measured.add(text);
        measured
    }

    /// Adds text to the part at hand.
    pub fn add(&mut self, text: &str) {
        self.add_bytes(text.as_bytes());
    }

    /// Adds text that need not be UTF-8.
    pub(crate) fn add_bytes(&mut self, text: &[u8]) {
        // So many that a byte can count them, which lets the compiler count sixteen at a time.
        for bytes in text.chunks(u8::MAX.into()) {
            let (mut letters, mut spaces, mut other) = (0u8, 0u8, 0u8);
            for byte in bytes {
                letters += u8::from((byte | 0x20).wrapping_sub(b'a') < 26);
                spaces += u8::from(*byte == b' ');
                other += u8::from(*byte >= 0x80);
            }
            self.letters += u64::from(letters);
            self.spaces += u64::from(spaces);
            self.other_bytes += u64::from(other);
            self.marks += bytes.len() as u64 - u64::from(letters) - u64::from(spaces) - u64::from(other);
        }
    }

    /// Adds a text measured elsewhere as a part of its own.
    pub fn join(&mut self, text: &Self) {
        self.letters += text.letters;
        self.spaces += text.spaces;
        self.marks += text.marks;
        self.other_bytes += text.other_bytes;
        self.parts += text.parts;
    }

    /// All of it.
    pub fn bytes(&self) -> u64 {
        self.letters + self.spaces + self.marks + self.other_bytes
    }

    fn features(&self) -> [f64; FEATURES] {
        let counts = [self.letters, self.spaces, self.marks, self.other_bytes].map(|count| count as f64);
        [1.0, f64::from(self.parts), counts[0], counts[1], counts[2], counts[3]]
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
        (bytes as f64 * self.0.lock().output.value()).ceil() as u64
    }

    /// Learns from a reply that told how many tokens the text was.
    pub fn learn_input(&self, text: &Text, tokens: u64) {
        if tokens > 0 && text.parts > 0 {
            self.0.lock().learn_input(&text.features(), tokens as f64);
        }
    }

    /// Learns from a reply that told how many tokens its text was. More tokens than bytes were not all written: a model that
    /// thinks unseen says nothing of how long its tokens are.
    pub fn learn_output(&self, bytes: u64, tokens: u64) {
        if (1..=bytes).contains(&tokens) {
            self.0.lock().output.push((tokens as f64 / bytes as f64).max(LONGEST_TOKENS));
        }
    }
}

impl Learned {
    fn learn_input(&mut self, features: &[f64; FEATURES], tokens: f64) {
        let expected = self.input.predict(features).max(1.0);
        self.surprises.push(tokens / expected);
        let usual = self.surprises.value();
        let near = (tokens / expected).clamp(usual / NEAR, usual * NEAR) * expected;
        self.input.learn(features, near.max(1.0));
    }
}

impl Default for Learned {
    fn default() -> Self {
        Self { input: Filter::default(), surprises: Median::of(1.0), output: Median::of(START_OUTPUT) }
    }
}

impl Median {
    /// As if each of the latest had been this.
    fn of(figure: f64) -> Self {
        Self { latest: [figure; LATEST], next: 0 }
    }

    fn push(&mut self, figure: f64) {
        self.latest[self.next] = figure;
        self.next = (self.next + 1) % LATEST;
    }

    fn value(&self) -> f64 {
        let mut sorted = self.latest;
        sorted.sort_unstable_by(f64::total_cmp);
        sorted[LATEST / 2]
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
        let truth =
            |t: &Text| 11 + 4 * u64::from(t.parts) + t.letters / 6 + t.spaces / 3 + t.marks + t.other_bytes * 6 / 10;
        let prompt = |n: u64| Text {
            letters: 20 + n * 37 % 4000,
            spaces: n * 41 % 800,
            marks: n * 17 % 300,
            other_bytes: n * 53 % 900,
            parts: 1 + (n % 5) as u32,
        };
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
            ratio.learn_input(&Text { letters: n % 7, parts: 1, ..Text::default() }, 1 + n * 7919 % 1_000_000);
        }
        let text = Text::of("hello");
        assert!((1..=text.bytes() + 2 * TEMPLATE_TOKENS).contains(&ratio.input_tokens(&text)));
    }

    fn usual(n: u64) -> Text {
        Text {
            letters: 200 + n * 37 % 400,
            spaces: 40 + n * 11 % 80,
            marks: 9,
            other_bytes: 0,
            parts: 1 + (n % 3) as u32,
        }
    }

    fn truth(text: &Text) -> u64 {
        20 + 5 * u64::from(text.parts) + text.letters / 5 + text.spaces / 2 + text.marks
    }

    proptest::proptest! {
        #[test]
        fn no_single_reply_moves_what_is_learned(before in 0u64..60, absurd in 1u64..u64::MAX, bytes in 1u64..100_000) {
            let ratio = TokenRatio::default();
            for n in 0..before {
                ratio.learn_input(&usual(n), truth(&usual(n)));
                ratio.learn_output(400, 100);
            }
            let (input, output) = (ratio.input_tokens(&usual(7)) as f64, ratio.output_tokens(1000));
            ratio.learn_input(&usual(7), absurd);
            ratio.learn_output(bytes, absurd % bytes + 1);
            let moved = ratio.input_tokens(&usual(7)) as f64 / input;
            proptest::prop_assert!((0.6..1.6).contains(&moved), "{moved}");
            proptest::prop_assert_eq!(ratio.output_tokens(1000), output);
        }
    }

    #[test]
    fn a_model_that_thinks_unseen_teaches_nothing_of_its_text() {
        let ratio = TokenRatio::default();
        (0..1000).for_each(|_| ratio.learn_output(40, 5_000));
        assert_eq!(ratio.output_tokens(1000), 250);
        (0..1000).for_each(|_| ratio.learn_output(40, 39));
        assert!(ratio.output_tokens(1000) <= 1000, "a token has a byte at least");
    }
}
