//! What a reply has used so far, from what it says and from what flowed.

use super::usage::Counts;

/// The sum of a reply's own words.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    /// The reply told its tokens.
    pub(crate) has_tokens: bool,
    pub(crate) input_tokens: u64,
    pub(crate) cached_tokens: u64,
    pub(crate) output_tokens: u64,
    /// What was written was told when it had only begun.
    pub(crate) is_opening: bool,
    /// The vendor's word on the cost, in neurons.
    pub(crate) neurons: Option<f64>,
    /// Items of a batch that have an answer.
    pub(crate) batch_items: u64,
    /// The answer is still to come.
    pub(crate) is_pending: bool,
    /// Milliseconds of sound, where the reply told or held it.
    pub(crate) audio_ms: Option<u64>,
    /// Bytes of generated text.
    pub(crate) text_bytes: u64,
    /// A figure was beyond all bounds, and was not believed.
    pub(crate) is_absurd: bool,
}

impl Tally {
    /// Whether the vendor told what it charges, or for what.
    pub(crate) fn is_told(&self) -> bool {
        self.has_tokens || self.neurons.is_some()
    }

    /// Takes in the usage that one JSON document told: a whole reply, or one event of a stream.
    ///
    /// Usage in a stream comes at its end, as a running total, or as increments, and sometimes as two of these
    /// (`wire.md`): a usage whose prompt is 0 after one that was not is an increment, any other replaces. A usage without
    /// tokens whose neurons are not 0 is the vendor's last word on the cost alone. Where only the output is named at all, in
    /// the dialect whose sums run, it is the sum so far.
    pub(super) fn add(&mut self, counts: &Counts) {
        if counts.is_absurd {
            self.is_absurd = true;
            return;
        }
        let (input, output, neurons) = (counts.input.unwrap_or(0), counts.output, counts.neurons);
        if input == 0 && output == 0 {
            // Neither a total nor an increment.
            self.neurons = neurons.filter(|n| *n > 0.0 || self.neurons.is_none() && !self.has_tokens).or(self.neurons);
            return;
        }
        if input > 0 || self.input_tokens == 0 {
            (self.input_tokens, self.cached_tokens, self.output_tokens) = (input, counts.cached, output);
            self.neurons = neurons;
        } else if counts.input.is_none() && counts.is_running {
            self.output_tokens = self.output_tokens.max(output);
            self.neurons = neurons.or(self.neurons);
        } else {
            self.output_tokens = self.output_tokens.saturating_add(output);
            self.neurons = match (self.neurons, neurons) {
                (Some(sum), Some(more)) => Some(sum + more),
                (sum, _) => sum,
            };
        }
        self.has_tokens = true;
    }
}
