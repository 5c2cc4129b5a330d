//! The counts of one `usage` object, in each dialect that the vendor writes.
//!
//! Two names of one count are one count, of which the larger is taken: they are never added. A count may be a number, a float or
//! a text of one; where a name comes twice, the last counts, as `JSON.parse` has it.

use std::fmt;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// What a reply says it used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    /// Tokens read; `None` where nothing is said of them, which is not the same as 0.
    pub(crate) input: Option<u64>,
    /// The part of them that the vendor had in its prefix cache.
    pub(crate) cached: u64,
    /// Tokens written.
    pub(crate) output: u64,
    /// The cost, in neurons.
    pub(crate) neurons: Option<f64>,
    /// `input_tokens` and `output_tokens`, whose sums run; not `prompt_tokens` and `completion_tokens`.
    pub(crate) is_running: bool,
    /// A figure is beyond all bounds, so that none of them is believed.
    pub(crate) is_absurd: bool,
}

/// More tokens than any window holds, a batch's thousand requests together: a mistake and no count.
const MOST_TOKENS: f64 = 4_294_967_296.0;
/// $11,000 for one call.
pub(crate) const MOST_NEURONS: f64 = 1e9;
/// Ten days of sound.
const MOST_SECONDS: f64 = 864_000.0;

impl Counts {
    /// Reads the JSON of a `usage` object; `None` where it is none.
    pub(crate) fn read(json: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Fields>(json).ok().map(Self::of)
    }

    fn of(fields: Fields) -> Self {
        let mut absurd = false;
        let mut count = |figure: Option<f64>| believed(figure, MOST_TOKENS, &mut absurd).map(|n| n.round() as u64);
        let (prompt, completion) = (count(fields.prompt_tokens), count(fields.completion_tokens));
        let (input, output) = (count(fields.input_tokens), count(fields.output_tokens));
        let (read, made) = (count(fields.cache_read), count(fields.cache_creation));
        let details = count(fields.prompt_details).max(count(fields.input_details));
        // Anthropic's form has what was cached beside `input_tokens`, the others have it within.
        let beside = if prompt.is_none() { read.unwrap_or(0) + made.unwrap_or(0) } else { 0 };
        let input = prompt.max(input.map(|input| input + beside));
        let neurons = believed(fields.neurons, MOST_NEURONS, &mut absurd);
        Self {
            input,
            cached: details.max(read).unwrap_or(0).min(input.unwrap_or(0)),
            output: completion.max(output).unwrap_or(0),
            neurons,
            is_running: prompt.is_none() && completion.is_none(),
            is_absurd: absurd,
        }
    }

    /// Whether it says anything at all.
    pub(crate) fn is_told(&self) -> bool {
        self.input.unwrap_or(0) > 0 || self.output > 0 || self.neurons.is_some_and(|neurons| neurons > 0.0)
    }

    /// Read and written together.
    pub(super) fn tokens(&self) -> u64 {
        self.input.unwrap_or(0).saturating_add(self.output)
    }

    /// Adds the counts of another item of the same batch.
    pub(crate) fn add(&mut self, other: &Self) {
        self.input = Some(self.input.unwrap_or(0).saturating_add(other.input.unwrap_or(0)));
        self.cached = self.cached.saturating_add(other.cached);
        self.output = self.output.saturating_add(other.output);
        self.neurons = self.neurons.zip(other.neurons).map(|(sum, more)| sum + more);
        self.is_absurd |= other.is_absurd;
    }
}

/// The milliseconds of an object with a `duration` in seconds.
pub(crate) fn duration_ms(json: &[u8]) -> Option<u64> {
    let fields: Fields = serde_json::from_slice(json).ok()?;
    let seconds = believed(fields.duration, MOST_SECONDS, &mut false)?;
    Some((seconds * 1000.0).round() as u64)
}

/// A figure that may be true; one that cannot be is told.
fn believed(figure: Option<f64>, most: f64, absurd: &mut bool) -> Option<f64> {
    let figure = figure.filter(|figure| *figure >= 0.0)?;
    if figure > most {
        *absurd = true;
        return None;
    }
    Some(figure)
}

/// The fields of such an object that are read; what is no number is none.
#[derive(Default)]
struct Fields {
    prompt_tokens: Option<f64>,
    completion_tokens: Option<f64>,
    input_tokens: Option<f64>,
    output_tokens: Option<f64>,
    prompt_details: Option<f64>,
    input_details: Option<f64>,
    cache_read: Option<f64>,
    cache_creation: Option<f64>,
    neurons: Option<f64>,
    duration: Option<f64>,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Fields::default();
                while let Some(name) = map.next_key::<Name>()? {
                    let figure = map.next_value_seed(Figure { of: name.within() })?;
                    if let Some(place) = fields.place(name) {
                        *place = figure;
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl Fields {
    fn place(&mut self, name: Name) -> Option<&mut Option<f64>> {
        Some(match name {
            Name::PromptTokens => &mut self.prompt_tokens,
            Name::CompletionTokens => &mut self.completion_tokens,
            Name::InputTokens => &mut self.input_tokens,
            Name::OutputTokens => &mut self.output_tokens,
            Name::PromptTokensDetails => &mut self.prompt_details,
            Name::InputTokensDetails => &mut self.input_details,
            Name::CacheReadInputTokens => &mut self.cache_read,
            Name::CacheCreationInputTokens => &mut self.cache_creation,
            Name::Neurons => &mut self.neurons,
            Name::Duration => &mut self.duration,
            Name::CachedTokens | Name::Other => return None,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Name {
    PromptTokens,
    CompletionTokens,
    InputTokens,
    OutputTokens,
    PromptTokensDetails,
    InputTokensDetails,
    CachedTokens,
    CacheReadInputTokens,
    CacheCreationInputTokens,
    Neurons,
    Duration,
    #[serde(other)]
    Other,
}

impl Name {
    /// The field of this one that has the figure, where it is an object.
    fn within(self) -> Option<Self> {
        matches!(self, Self::PromptTokensDetails | Self::InputTokensDetails).then_some(Self::CachedTokens)
    }
}

/// A number, or a text of one; or the field `of` an object. Anything else is none.
struct Figure {
    of: Option<Name>,
}

impl<'de> DeserializeSeed<'de> for Figure {
    type Value = Option<f64>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<f64>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Figure {
    type Value = Option<f64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a figure")
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Option<f64>, E> {
        Ok(Some(number).filter(|_| self.of.is_none()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Option<f64>, E> {
        self.visit_f64(number as f64)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Option<f64>, E> {
        self.visit_f64(number as f64)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Option<f64>, E> {
        match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => self.visit_f64(number),
            _ => Ok(None),
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<Option<f64>, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Option<f64>, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Option<f64>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<f64>, A::Error> {
        let mut figure = None;
        while let Some(name) = map.next_key::<Name>()? {
            if Some(name) == self.of {
                figure = map.next_value_seed(Figure { of: None })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(figure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(json: &str) -> (Option<u64>, u64, u64, Option<f64>) {
        let counts = Counts::read(json.as_bytes()).unwrap();
        assert!(!counts.is_absurd, "{json}");
        (counts.input, counts.cached, counts.output, counts.neurons)
    }

    #[test]
    fn two_dialects_of_one_count_are_one_count() {
        let both = r#"{"prompt_tokens":10,"completion_tokens":4,"input_tokens":10,"output_tokens":4,
            "prompt_tokens_details":{"cached_tokens":3},"input_tokens_details":{"cached_tokens":3},"neurons":1.5}"#;
        assert_eq!(counts(both), (Some(10), 3, 4, Some(1.5)));
        assert_eq!(
            counts(r#"{"prompt_tokens":10,"input_tokens":12,"completion_tokens":5,"output_tokens":1}"#).0,
            Some(12)
        );
    }

    #[test]
    fn counts_are_read_in_every_spelling() {
        for (json, wanted) in [
            (r#"{"prompt_tokens":"26","completion_tokens":" 18 ","neurons":"0.5"}"#, (Some(26), 0, 18, Some(0.5))),
            (r#"{"prompt_tokens":26.0,"completion_tokens":1.8e1}"#, (Some(26), 0, 18, None)),
            (r#"{"prompt_tokens":1,"prompt_tokens":26,"completion_tokens":18}"#, (Some(26), 0, 18, None)),
            (r#"{"prompt_\u0074okens":26,"completion_tokens":18}"#, (Some(26), 0, 18, None)),
            (r#"{"prompt_tokens":26,"completion_tokens":null,"neurons":null}"#, (Some(26), 0, 0, None)),
            (r#"{"prompt_tokens":26,"completion_tokens":[1],"prompt_tokens_details":"none"}"#, (Some(26), 0, 0, None)),
            (r#"{"prompt_tokens":26,"completion_tokens":-5,"neurons":-1}"#, (Some(26), 0, 0, None)),
            (r#"{"prompt_tokens":"many","completion_tokens":{"prompt_tokens":9}}"#, (None, 0, 0, None)),
            (r#"{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":"9"}}"#, (Some(5), 5, 0, None)),
            (r#"{"input_tokens":5,"cache_read_input_tokens":7,"output_tokens":2}"#, (Some(12), 7, 2, None)),
        ] {
            assert_eq!(counts(json), wanted, "{json}");
        }
        assert_eq!(Counts::read(b"null"), None);
        assert_eq!(duration_ms(br#"{"language":"en","duration":"90.5"}"#), Some(90_500));
        assert_eq!(duration_ms(br#"{"duration":1e300}"#), None);
    }

    #[test]
    fn an_absurd_figure_is_told_and_no_count() {
        for json in
            [r#"{"prompt_tokens":1e30}"#, r#"{"prompt_tokens":3,"neurons":1e300}"#, r#"{"output_tokens":"1e99"}"#]
        {
            assert!(Counts::read(json.as_bytes()).unwrap().is_absurd, "{json}");
        }
    }
}
