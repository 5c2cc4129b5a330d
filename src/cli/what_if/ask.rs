//! What a call of the past asked for, as far as its record tells: enough for its bound to be the one that was reserved.

use crate::call::{Ask, OutputReach};
use crate::catalogue::Model;
use crate::neurons::Neurons;
use crate::readers::records::Past;
use crate::receipt::Estimate;

/// More than any window has.
const MOST: u64 = 1 << 33;
/// Bytes a token: for records that do not tell what was reserved.
const USUAL_BYTES: u64 = 4;

/// An [`Ask`] whose bound on `model`, the one that was asked, is the one on the record.
pub(super) fn of(past: &Past, model: &Model) -> Ask {
    let mut ask = Ask { max_tokens: past.max_tokens, ..Ask::default() };
    ask.reach.output = match past.max_tokens {
        Some(most) => limited(most.into()),
        None => OutputReach::default(),
    };
    let Some(upper) = past.upper else {
        ask.reach.other_text_bytes = past.input_tokens.saturating_mul(USUAL_BYTES);
        ask.audio_upper_ms = 0;
        return ask;
    };
    let bound = |ask: &Ask| Estimate::new(ask, model).upper.unwrap_or(Neurons::MAX);
    if bound(&ask) > upper {
        // What is read is nothing beside what may be written.
        let at = least(|tokens| bound(&Ask { reach: with_output(&ask, tokens), ..ask.clone() }) >= upper);
        ask.reach = with_output(&ask, at);
        return ask;
    }
    type Knob = fn(&mut Ask, u64);
    let knobs: [Knob; 3] = [
        |ask, bytes| ask.reach.other_text_bytes = bytes,
        |ask, ms| ask.audio_upper_ms = ms,
        |ask, tokens| ask.reach.output = limited(tokens),
    ];
    for turn in knobs {
        let with = |value| {
            let mut ask = ask.clone();
            turn(&mut ask, value);
            ask
        };
        if bound(&with(MOST)) >= upper && bound(&with(MOST)) > bound(&ask) {
            return with(least(|value| bound(&with(value)) >= upper));
        }
    }
    ask
}

fn limited(tokens: u64) -> OutputReach {
    let mut reach = OutputReach::NONE;
    (reach.answers, reach.limited_tokens) = (1, tokens);
    reach
}

fn with_output(ask: &Ask, tokens: u64) -> crate::call::Reach {
    crate::call::Reach { output: limited(tokens), ..ask.reach.clone() }
}

/// The least value for which it holds; it holds for all that are greater.
fn least(holds: impl Fn(u64) -> bool) -> u64 {
    let (mut below, mut from) = (0, MOST);
    while below < from {
        let middle = below + (from - below) / 2;
        match holds(middle) {
            true => from = middle,
            false => below = middle + 1,
        }
    }
    from
}
