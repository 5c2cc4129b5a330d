//! What is written on a call's receipt when its reply has told all that it will.

use super::batch;
use super::bill::{HeadWord, charge, learn, learn_price};
use crate::call::Call;
use crate::receipt::Ending;
use crate::reply::Reader;

/// Writes how the reply ended, what the call used and what it cost on its receipt, and learns from it.
///
/// A call whose name was only a route is priced by the model that ran.
pub(super) fn settle(call: &Call, reader: &Reader, head: &HeadWord) {
    if let (Some((batches, catalogue)), Some(id)) = (&head.polled, &call.ask.poll_of) {
        return batch::settle(call, id, reader, head, batches, catalogue);
    }
    match head.routed.as_ref().and_then(|routed| routed.model(reader)) {
        None => settle_as_asked(call, reader, head),
        Some(model) => {
            call.receipt.note(|facts| facts.model = model.clone());
            settle_as_asked(&Call { model, ..call.clone() }, reader, head);
        }
    }
}

fn settle_as_asked(call: &Call, reader: &Reader, head: &HeadWord) {
    let (tally, ending) = (reader.tally(), reader.ending());
    let is_known = tally.is_told() || head.neurons.is_some();
    if tally.is_absurd {
        tracing::warn!(model = %call.model.id, "the reply tells a count or a cost beyond all bounds, which is not believed");
    }
    let costs = match ending {
        Ending::CUT_OFF => true,
        // An error alone costs nothing.
        Ending::Failed(_) => is_known || reader.has_run(),
        _ => true,
    };
    if !costs {
        call.receipt.note(|facts| (facts.ending, facts.told_absurdly) = (ending, tally.is_absurd));
        return;
    }
    let (usage, mut cost) = charge(call, tally, head);
    cost.is_partial |= match ending {
        Ending::Answer | Ending::Empty => false,
        // The head tells the cost of the whole.
        Ending::Open | Ending::CUT_OFF => reader.is_readable() && head.neurons.is_none(),
        Ending::Failed(_) => !is_known,
    };
    learn(call, tally, ending == Ending::Answer);
    learn_price(call, tally, head, &usage, &cost);
    call.receipt.note(|facts| {
        facts.usage = usage;
        facts.cost = cost;
        (facts.ending, facts.told_absurdly) = (ending, tally.is_absurd);
    });
}
