//! What a batch costs: nothing when it is queued, all of it when its answers come.

use std::sync::Arc;
use std::time::SystemTime;

use super::bill::{self, HeadWord};
use crate::batches::{Batches, Note, Queued, Settling};
use crate::call::Call;
use crate::catalogue::{Catalogue, Unit};
use crate::estimate;
use crate::json::Fields;
use crate::receipt::{Ending, Source};
use crate::reply::{Reader, Tally};

/// What the vendor named a batch that it has taken in.
pub(super) fn acknowledged(reply: &[u8]) -> Option<String> {
    let fields = Fields::of(reply)?;
    let result = fields.last("result").and_then(|place| Fields::at(reply, place.start));
    let place = result.and_then(|result| result.last("request_id")).or(fields.last("request_id"))?;
    serde_json::from_slice(&reply[place]).ok().filter(|id: &String| !id.is_empty())
}

/// Holds what a batch may cost until its answers come. False where that cannot be: then it is paid at once.
pub(super) async fn queue(call: &Call, id: &str, batches: &Batches) -> bool {
    let usage = estimate::queued(&call.ask, &call.model);
    let held = call.allowance.clone().and_then(|allowance| allowance.hold());
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let queued = Queued {
        account: call.account.clone(),
        id: id.into(),
        model: call.model.id.clone(),
        key: call.key.clone(),
        submitted_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        likely: call.model.learned.likely(call.model.prices.cost(&usage)),
        input_tokens: usage.input_tokens,
        output_tokens: usage.output_tokens,
        held: held.as_ref().map(|held| held.neurons()).unwrap_or_default(),
        holdings: held.as_ref().map(|held| held.holdings()).unwrap_or_default(),
    };
    if !batches.queue(&queued, held.clone()) {
        if let Some(held) = held {
            held.settle(held.neurons());
        }
        return false;
    }
    batches.kept(&queued).await;
    call.receipt.note(|facts| {
        facts.ending = Ending::Answer;
        facts.batch = Some(Note::Queued(Box::new(queued)));
    });
    true
}

/// Whether a reply to a poll has a batch's answers.
fn brings_answers(tally: &Tally, ending: Ending) -> bool {
    matches!(ending, Ending::Answer | Ending::Empty) && !tally.is_pending && (tally.batch_items > 0 || tally.has_tokens)
}

/// Charges a batch whose answers a poll brings, if they are the first.
pub(super) fn settle(
    call: &Call,
    id: &str,
    reader: &Reader,
    head: &HeadWord,
    batches: &Batches,
    catalogue: &Catalogue,
) {
    let (tally, ending) = (reader.tally(), reader.ending());
    call.receipt.note(|facts| (facts.ending, facts.told_absurdly) = (ending, tally.is_absurd));
    if !brings_answers(tally, ending) {
        return;
    }
    let (queued, held, is_charged) = match batches.settle(&call.account, id) {
        Settling::Again => return,
        Settling::Waited(queued, held) => (Some(queued), held, true),
        Settling::Unheld(queued) => (queued, None, false),
    };
    // What was asked is priced, whatever path its answers are fetched by.
    let asked =
        queued.as_ref().and_then(|queued| catalogue.get(&queued.model)).filter(|asked| asked.id != call.model.id);
    let priced = asked.map(|model| Call { model, ..call.clone() });
    let call = priced.as_ref().unwrap_or(call);
    // Fetching has no price of its own.
    let head = HeadWord { neurons: head.neurons.filter(|neurons| !neurons.is_zero()), ..head.clone() };
    let (mut usage, mut cost) = bill::charge(call, tally, &head);
    if let Some(queued) = &queued {
        let is_all_told = tally.has_tokens && prices_tokens_alone(call);
        if !is_all_told && cost.source < Source::Reported && queued.likely > cost.neurons {
            (cost.neurons, cost.source) = (queued.likely, Source::Estimated);
            if !tally.has_tokens {
                (usage.input_tokens, usage.output_tokens) = (queued.input_tokens, queued.output_tokens);
            }
        }
    }
    if let Some(held) = held {
        // What the gate reckons by itself is at most what was held.
        held.settle(if cost.source == Source::Estimated { cost.neurons.min(held.neurons()) } else { cost.neurons });
    }
    call.receipt.note(|facts| {
        facts.model = call.model.clone();
        if let Some(queued) = queued {
            facts.key = queued.key;
        }
        (facts.usage, facts.cost) = (usage, cost);
        facts.batch = Some(Note::Settled { id: Arc::from(id), is_charged });
    });
}

fn prices_tokens_alone(call: &Call) -> bool {
    let tokens = [Unit::InputToken, Unit::CachedInputToken, Unit::OutputToken];
    Unit::ALL.into_iter().all(|unit| tokens.contains(&unit) || call.model.prices.get(unit).is_none())
}
