//! The same call with a lower `max_tokens`.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::call::{Ask, Call, Endpoint};
use crate::catalogue::Unit;
use crate::estimate::writes_tokens;
use crate::neurons::Neurons;
use crate::receipt::Estimate;

/// The call with as many tokens as `left` surely pays for, if that is fewer than it asks for and at least `min_tokens`.
/// Only a JSON body can be changed.
pub(super) fn clamp(call: &Call, left: Neurons, min_tokens: u32) -> Option<Call> {
    let tokens = affordable(call, left)?;
    if tokens < min_tokens || call.ask.max_tokens.is_some_and(|asked| asked <= tokens) {
        return None;
    }
    let edits = edits(&call.body, call.endpoint, tokens)?;
    let ask = Ask { max_tokens: Some(tokens), ..(*call.ask).clone() };
    let mut clamped = Call { ask: Arc::new(ask), ..call.clone() };
    clamped.model_in_body = call.model_in_body.as_ref().map(|place| moved(place, &edits));
    clamped.body = apply(&call.body, &edits);
    Some(clamped)
}

fn affordable(call: &Call, left: Neurons) -> Option<u32> {
    let each = call.model.prices.get(Unit::OutputToken).filter(|price| !price.is_zero())?;
    if !writes_tokens(call.model.task) || call.ask.batch {
        return None;
    }
    let silent = Ask { max_tokens: Some(0), ..(*call.ask).clone() };
    let input = Estimate::new(&silent, &call.model).upper;
    if input > left {
        return None;
    }
    let each = call.model.learned.upper(each).max(Neurons::from_micro(1));
    let answers = u64::from(call.ask.answers.unwrap_or(1)).max(1);
    u32::try_from(left.saturating_sub(input).micro() / each.micro() / answers).ok()
}

/// What to put in the place of a piece of the body.
type Edit = (Range<usize>, String);

/// In the order of their places.
fn edits(body: &Bytes, endpoint: Endpoint, tokens: u32) -> Option<Vec<Edit>> {
    let outer = fields(body, 0..body.len())?;
    // On the native route without a model in the path, the model's own inputs lie within `input`.
    let input =
        outer.iter().find(|(name, place)| endpoint == Endpoint::Run && name == "input" && body[place.start] == b'{');
    let (open, inner) = match input {
        Some((_, place)) => (place.start, fields(body, place.clone())?),
        None => (body.iter().position(|byte| *byte == b'{')?, outer),
    };
    let is_bound = |name: &str| matches!(name, "max_tokens" | "max_completion_tokens" | "max_output_tokens");
    let set = inner.iter().filter(|(name, _)| is_bound(name)).map(|(_, place)| (place.clone(), tokens.to_string()));
    let set: Vec<_> = set.collect();
    if !set.is_empty() {
        return Some(set);
    }
    let name = if endpoint == Endpoint::Responses { "max_output_tokens" } else { "max_tokens" };
    let comma = if inner.is_empty() { "" } else { "," };
    Some(vec![(open + 1..open + 1, format!("\"{name}\":{tokens}{comma}"))])
}

fn apply(body: &Bytes, edits: &[Edit]) -> Bytes {
    let mut changed = Vec::with_capacity(body.len() + 32);
    let mut copied = 0;
    for (place, text) in edits {
        changed.extend_from_slice(&body[copied..place.start]);
        changed.extend_from_slice(text.as_bytes());
        copied = place.end;
    }
    changed.extend_from_slice(&body[copied..]);
    changed.into()
}

fn moved(place: &Range<usize>, edits: &[Edit]) -> Range<usize> {
    let before = edits.iter().filter(|(edit, _)| edit.end <= place.start);
    let (added, gone) = before.fold((0, 0), |(added, gone), (edit, text)| (added + text.len(), gone + edit.len()));
    place.start + added - gone..place.end + added - gone
}

/// The fields of a JSON object, and where their values stand in the body.
fn fields(body: &[u8], object: Range<usize>) -> Option<Vec<(String, Range<usize>)>> {
    struct Places(usize);
    impl<'de> Visitor<'de> for Places {
        type Value = Vec<(String, Range<usize>)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut fields = Vec::new();
            while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                let start = (value.get().as_ptr() as usize).saturating_sub(self.0);
                fields.push((name, start..start + value.get().len()));
            }
            Ok(fields)
        }
    }
    serde_json::Deserializer::from_slice(body.get(object)?).deserialize_map(Places(body.as_ptr() as usize)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::testing::{LLAMA, call};

    fn edited(body: &str, endpoint: Endpoint) -> String {
        let body = Bytes::copy_from_slice(body.as_bytes());
        String::from_utf8(apply(&body, &edits(&body, endpoint, 7).unwrap()).to_vec()).unwrap()
    }

    #[test]
    fn the_bound_is_set_where_the_vendor_reads_it() {
        assert_eq!(edited(r#"{"prompt":"a"}"#, Endpoint::Run), r#"{"max_tokens":7,"prompt":"a"}"#);
        assert_eq!(edited("{}", Endpoint::ChatCompletions), r#"{"max_tokens":7}"#);
        assert_eq!(edited(r#"{"max_tokens": 90,"n":1}"#, Endpoint::ChatCompletions), r#"{"max_tokens": 7,"n":1}"#);
        assert_eq!(edited(r#"{"input":"a"}"#, Endpoint::Responses), r#"{"max_output_tokens":7,"input":"a"}"#);
        let nested = r#"{"model":"m","input":{"prompt":"a","max_tokens":90}}"#;
        assert_eq!(edited(nested, Endpoint::Run), r#"{"model":"m","input":{"prompt":"a","max_tokens":7}}"#);
    }

    #[test]
    fn a_clamped_call_fits_and_knows_where_its_model_stands() {
        let body = format!(r#"{{"prompt":"hello","max_tokens":5000,"model":"{LLAMA}"}}"#);
        let mut long = call(LLAMA, &body);
        let start = body.find("\"@cf").unwrap();
        long.model_in_body = Some(start..body.len() - 1);
        let ask = Ask { max_tokens: Some(5000), ..(*long.ask).clone() };
        long.ask = Arc::new(ask);
        let left = Neurons::from_whole(3);
        let short = clamp(&long, left, 16).unwrap();
        assert!(Estimate::of(&short).upper <= left);
        let place = short.model_in_body.clone().unwrap();
        assert_eq!(&short.body[place], format!("\"{LLAMA}\"").as_bytes());
        serde_json::from_slice::<serde_json::Value>(&short.body).unwrap();
        assert!(clamp(&long, Neurons::from_micro(10), 16).is_none());
    }
}
