//! What a stream or a reply says it used, told once and in OpenAI's form.

use std::borrow::Cow;
use std::fmt::Write;

use crate::openai::object::{Object, count};

/// Stands behind a usage that the gate has reckoned, because the vendor told none.
pub(super) const ESTIMATED: &str = r#","x_tollgate":{"usage":"estimated"}"#;

const PLAIN: [&[u8]; 3] = [br#""prompt_tokens":"#, br#""completion_tokens":"#, br#""total_tokens":"#];

/// The usage that is known so far.
///
/// The vendor tells it at a stream's end, as a running total, or as increments, and sometimes as two of these: a usage whose
/// prompt is 0 after one that was not is an increment, any other replaces.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Usage {
    pub(super) is_known: bool,
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
    cached_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
    /// The vendor's word on the cost, which is none of OpenAI's fields: it stays where the vendor said it.
    neurons: Option<f64>,
}

impl Usage {
    /// From the gate's own reckoning.
    pub(super) fn estimated(prompt_tokens: u64, completion_tokens: u64) -> Self {
        Self { is_known: true, prompt_tokens, completion_tokens, ..Self::default() }
    }

    /// Takes in a `usage` of either dialect; what is no JSON object changes nothing.
    pub(super) fn add(&mut self, json: &[u8]) {
        if let Some(told) = Self::read(json) {
            self.take_in(told);
        }
    }

    pub(super) fn take_in(&mut self, told: Self) {
        if told.prompt_tokens == 0 && told.completion_tokens == 0 {
            // Neither a total nor an increment: at most a last word on the cost.
            self.neurons = told.neurons.filter(|neurons| *neurons > 0.0).or(self.neurons);
            self.is_known |= told.is_known;
            return;
        }
        if told.prompt_tokens == 0 && self.prompt_tokens > 0 {
            self.completion_tokens = self.completion_tokens.saturating_add(told.completion_tokens);
            self.neurons = self.neurons.zip(told.neurons).map(|(sum, more)| sum + more).or(self.neurons);
        } else {
            *self = told;
        }
        self.is_known = true;
    }

    /// The short way for what most streams say with each chunk: OpenAI's three counts and nothing else, without a space. Gives
    /// the object's length, too; `None` for any other, which [`read`](Self::read) reads.
    pub(super) fn plain(json: &[u8]) -> Option<(Self, usize)> {
        let mut told = Self { is_known: true, ..Self::default() };
        let mut rest = json.strip_prefix(b"{")?;
        let mut has = [false; 3];
        loop {
            let field = PLAIN.iter().position(|name| rest.starts_with(name))?;
            rest = &rest[PLAIN[field].len()..];
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            // A longer figure may be no count, and a leading zero is no JSON.
            if digits == 0 || digits > 15 || (digits > 1 && rest[0] == b'0') || std::mem::replace(&mut has[field], true)
            {
                return None;
            }
            let figure = rest[..digits].iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
            match field {
                0 => told.prompt_tokens = figure,
                1 => told.completion_tokens = figure,
                _ => {}
            }
            rest = match rest[digits..].split_first()? {
                (b',', more) => more,
                (b'}', behind) => return (has[0] || has[1]).then_some((told, json.len() - behind.len())),
                _ => return None,
            };
        }
    }

    pub(super) fn read(json: &[u8]) -> Option<Self> {
        let usage = Object::read(json)?;
        let tokens = |names: [&str; 2]| names.iter().filter_map(|name| count(usage.get(name)?)).max();
        let (prompt, completion) =
            (tokens(["prompt_tokens", "input_tokens"]), tokens(["completion_tokens", "output_tokens"]));
        let detail =
            |objects: [&str; 2], name| objects.iter().find_map(|object| count(usage.object(object)?.get(name)?));
        Some(Self {
            is_known: prompt.is_some() || completion.is_some(),
            prompt_tokens: prompt.unwrap_or(0),
            completion_tokens: completion.unwrap_or(0),
            cached_tokens: detail(["prompt_tokens_details", "input_tokens_details"], "cached_tokens"),
            reasoning_tokens: detail(["completion_tokens_details", "output_tokens_details"], "reasoning_tokens"),
            neurons: usage.get("neurons").and_then(|neurons| neurons.parse().ok()),
        })
    }

    /// As OpenAI writes it.
    pub(super) fn json(&self) -> String {
        let (prompt, completion) = (self.prompt_tokens, self.completion_tokens);
        let mut json = format!(
            r#"{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{}"#,
            prompt.saturating_add(completion)
        );
        // Writing to a string does not fail.
        if let Some(cached) = self.cached_tokens {
            let _ = write!(json, r#","prompt_tokens_details":{{"cached_tokens":{cached}}}"#);
        }
        if let Some(reasoning) = self.reasoning_tokens {
            let _ = write!(json, r#","completion_tokens_details":{{"reasoning_tokens":{reasoning}}}"#);
        }
        if let Some(neurons) = self.neurons.filter(|neurons| neurons.is_finite()) {
            let _ = write!(json, r#","neurons":{neurons}"#);
        }
        json.push('}');
        json
    }
}

/// A whole reply's usage with the three counts that OpenAI promises; as it is where it has them. `None` where it tells none.
pub(super) fn whole(json: &str) -> Option<Cow<'_, str>> {
    let object = Object::read(json.as_bytes())?;
    let is_count = |name: &str| object.get(name).is_some_and(|count| count.bytes().all(|byte| byte.is_ascii_digit()));
    if ["prompt_tokens", "completion_tokens", "total_tokens"].into_iter().all(is_count) {
        return Some(json.into());
    }
    Usage::read(json.as_bytes()).filter(|usage| usage.is_known).map(|usage| usage.json().into())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn sum(told: &[&str]) -> String {
        let mut usage = Usage::default();
        told.iter().for_each(|json| usage.add(json.as_bytes()));
        usage.json()
    }

    #[test]
    fn totals_running_totals_and_increments_come_to_the_same() {
        let total = r#"{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}"#;
        assert_eq!(sum(&[total]), total);
        let running = |n: u64| format!(r#"{{"prompt_tokens":9,"completion_tokens":{n},"total_tokens":{}}}"#, 9 + n);
        assert_eq!(sum(&[&running(1), &running(2), &running(3)]), total);
        let more = r#"{"prompt_tokens":0,"completion_tokens":1,"total_tokens":1}"#;
        assert_eq!(sum(&[r#"{"prompt_tokens":9,"completion_tokens":0}"#, more, more, more]), total);
        assert_eq!(sum(&[r#"{"prompt_tokens":9,"completion_tokens":0}"#, more, more, total]), total);
        assert_eq!(sum(&[r#"{"input_tokens":"9","output_tokens":3.0}"#, r#"{"prompt_tokens":0}"#]), total);
    }

    #[test]
    fn a_last_word_on_the_cost_changes_no_tokens() {
        let told = [
            r#"{"prompt_tokens":9,"completion_tokens":3,"neurons":1}"#,
            r#"{"prompt_tokens":0,"completion_tokens":0,"neurons":2.5}"#,
        ];
        assert_eq!(sum(&told), r#"{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12,"neurons":2.5}"#);
    }

    proptest! {
        /// The short way says what the long one says, or nothing.
        #[test]
        fn plain_counts_are_read_as_any_usage_is(
            fields in vec((select(vec!["prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "neurons"]),
                select(vec!["0", "7", "07", "1234", "999999999999999", "9999999999999999999", "\"3\"", "1.5", "-1", "null", ""])), 0..5),
            space in select(vec!["", " "]),
            behind in ".{0,4}",
        ) {
            let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":{space}{value}")).collect();
            let json = format!("{{{}}}", fields.join(","));
            let text = format!("{json}{behind}");
            if let Some((usage, length)) = Usage::plain(text.as_bytes()) {
                prop_assert_eq!(length, json.len());
                prop_assert_eq!(Some(usage), Usage::read(json.as_bytes()));
            }
        }
    }

    #[test]
    fn three_plain_counts_go_the_short_way() {
        let json = br#"{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12},"z""#;
        assert_eq!(
            Usage::plain(json).map(|(usage, length)| (usage.json(), length)),
            Some((r#"{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}"#.into(), json.len() - 4))
        );
    }
}
