//! The same call with a lower `max_tokens`, or with one where it had none.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::call::{Ask, Call, Endpoint, OutputReach};
use crate::catalogue::Unit;
use crate::estimate::writes_tokens;
use crate::json::Fields;
use crate::layers::identify;
use crate::neurons::Neurons;
use crate::receipt::Estimate;

/// The call with as many tokens as `left` surely pays for, where that is at least `min_tokens` and bounds it. Only a JSON body
/// can be changed.
pub(super) fn clamp(call: &Call, left: Neurons, min_tokens: u32) -> Option<Call> {
    let tokens = affordable(call, left).filter(|tokens| *tokens >= min_tokens)?;
    // What stands beside an `input` is changed only where it counts.
    [false, true].into_iter().find_map(|outside_too| {
        let body = call.plain_body();
        let edits = edits(body, call, outside_too, tokens)?;
        let mut clamped = call.clone();
        clamped.model_in_body = call.model_in_body.as_ref().map(|place| moved(place, &edits));
        clamped.replace_body(apply(body, &edits));
        let ask = identify::measure(&clamped.body, "application/json", call.endpoint).ok()?;
        clamped.ask = Arc::new(Ask { batch: call.ask.batch, ..ask });
        Estimate::of(&clamped).upper.is_some_and(|upper| upper <= left).then_some(clamped)
    })
}

fn affordable(call: &Call, left: Neurons) -> Option<u32> {
    let each = call.model.prices.get(Unit::OutputToken).filter(|price| !price.is_zero())?;
    if !writes_tokens(call.model.task) || call.ask.batch {
        return None;
    }
    let answers = call.ask.reach.output.answers.max(1);
    let mut silent = Ask::clone(&call.ask);
    silent.reach.output = OutputReach::NONE;
    let input = Estimate::new(&silent, &call.model).upper.filter(|input| *input <= left)?;
    let each = call.model.learned.upper(each).max(Neurons::from_micro(1));
    u32::try_from(left.saturating_sub(input).micro() / each.micro() / answers).ok()
}

/// What to put in the place of a piece of the body.
type Edit = (Range<usize>, String);

const LIMITS: [&str; 3] = ["max_tokens", "max_completion_tokens", "max_output_tokens"];

/// In the order of their places.
fn edits(body: &Bytes, call: &Call, outside_too: bool, tokens: u32) -> Option<Vec<Edit>> {
    let outer = Fields::of(body)?;
    // On the native route the model's own inputs may lie within `input`.
    let is_input = |name: &[u8], place: &Range<usize>| name == b"input" && body[place.start] == b'{';
    let inner = outer.0.iter().filter(|(name, place)| call.endpoint == Endpoint::Run && is_input(name, place));
    let inner: Vec<_> = inner.map(|(_, place)| place.start).collect();
    let mut edits = Vec::new();
    if inner.is_empty() || outside_too {
        set_limit(body, body.iter().position(|byte| *byte == b'{')?, call, tokens, &mut edits)?;
    }
    for start in inner {
        set_limit(body, start, call, tokens, &mut edits)?;
    }
    edits.sort_by_key(|(place, _)| place.start);
    Some(edits)
}

/// Of the object that begins at a place: every limit that it names, and the one that its model is sure to read.
fn set_limit(body: &Bytes, start: usize, call: &Call, tokens: u32, edits: &mut Vec<Edit>) -> Option<()> {
    let fields = Fields::at(body, start)?;
    let named = |name: &str| fields.0.iter().any(|(key, _)| **key == *name.as_bytes());
    let has_text_as_input = fields.last("input").is_some_and(|place| body[place.start] != b'{');
    let is_responses = call.endpoint == Endpoint::Responses || call.endpoint == Endpoint::Run && has_text_as_input;
    let sure = match () {
        () if is_responses => "max_output_tokens",
        // Models that have no default read this name as well.
        () if named("max_completion_tokens") && call.model.max_tokens_default.is_none() => "max_completion_tokens",
        () => "max_tokens",
    };
    let limits = fields.0.iter().filter(|(name, _)| LIMITS.iter().any(|limit| **name == *limit.as_bytes()));
    edits.extend(limits.map(|(_, place)| (place.clone(), tokens.to_string())));
    if !named(sure) {
        let comma = if fields.0.is_empty() { "" } else { "," };
        edits.push((start + 1..start + 1, format!("\"{sure}\":{tokens}{comma}")));
    }
    Some(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::testing::{LLAMA, call};

    fn edited(body: &str, endpoint: Endpoint) -> String {
        let call = Call { endpoint, ..call(LLAMA, body) };
        String::from_utf8(apply(&call.body, &edits(&call.body, &call, false, 7).unwrap()).to_vec()).unwrap()
    }

    #[test]
    fn the_bound_is_set_where_the_vendor_reads_it() {
        assert_eq!(edited(r#"{"prompt":"a"}"#, Endpoint::Run), r#"{"max_tokens":7,"prompt":"a"}"#);
        assert_eq!(edited("{}", Endpoint::ChatCompletions), r#"{"max_tokens":7}"#);
        assert_eq!(edited(r#"{"max_tokens": 90,"n":1}"#, Endpoint::ChatCompletions), r#"{"max_tokens": 7,"n":1}"#);
        assert_eq!(edited(r#"{"input":"a"}"#, Endpoint::Responses), r#"{"max_output_tokens":7,"input":"a"}"#);
        let nested = r#"{"model":"m","input":{"prompt":"a","max_tokens":90}}"#;
        assert_eq!(edited(nested, Endpoint::Run), r#"{"model":"m","input":{"prompt":"a","max_tokens":7}}"#);
        let twice = r#"{"max_tokens":null,"m\u0061x_tokens":"9","prompt":"\ud83d"}"#;
        assert_eq!(edited(twice, Endpoint::Run), r#"{"max_tokens":7,"m\u0061x_tokens":7,"prompt":"\ud83d"}"#);
    }

    #[test]
    fn a_clamped_call_fits_and_knows_where_its_model_stands() {
        let body = format!(r#"{{"prompt":"hello","max_tokens":5000,"model":"{LLAMA}"}}"#);
        let mut long = call(LLAMA, &body);
        let start = body.find("\"@cf").unwrap();
        long.model_in_body = Some(start..body.len() - 1);
        let left = Neurons::from_whole(3);
        let short = clamp(&long, left, 16).unwrap();
        assert!(Estimate::of(&short).upper.unwrap() <= left);
        let place = short.model_in_body.clone().unwrap();
        assert_eq!(&short.body[place], format!("\"{LLAMA}\"").as_bytes());
        serde_json::from_slice::<serde_json::Value>(&short.body).unwrap();
        assert!(clamp(&long, Neurons::from_micro(10), 16).is_none());
    }
}
