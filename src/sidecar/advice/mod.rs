//! What the records show to be wasted, and what would mend it.
//!
//! Each rule says what it saves by the records' own figures, and what it costs in return; what is not on the records is not
//! advised. What two rules save of the same calls is told by both: they are no sum.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::catalogue::{Catalogue, Entry, Model, Unit};
use crate::neurons::Neurons;
use crate::readers::records::{BLOCK_TOKENS, Beginnings, Crowd, Evidence, Lost, Ran, Repeats, Roomy};
use crate::usage::Usage;

/// A change that would have saved something.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Advice {
    /// Its kind, the same for good.
    pub(crate) waste: &'static str,
    /// The model, or the key.
    pub(crate) of: String,
    /// The calls that show it.
    pub(crate) calls: u64,
    pub(crate) saved: Neurons,
    pub(crate) shown: String,
    pub(crate) change: String,
    pub(crate) in_return: String,
}

/// What is known besides the records.
pub(crate) struct Known<'a> {
    pub(crate) catalogue: &'a Catalogue,
    /// The keys of the config, by their names.
    pub(crate) keys: Vec<String>,
    /// The models that the config has prices for.
    pub(crate) priced: Vec<String>,
    pub(crate) now: SystemTime,
}

/// Less than this part of all that was spent is no advice: a client that closes its laptop is none.
const LEAST_PART: u64 = 500;
/// Fewer calls show no habit.
const LEAST_CALLS: u64 = 5;
/// A model that leaves later is no news.
const SOON: Duration = Duration::from_secs(60 * 24 * 3600);
/// A price that is as near to what the vendor says is the same: its dollars have few digits.
const SAME_PRICE: f64 = 0.04;
/// How weights are stored, and how they are served, at the end of a model's name.
const VARIANTS: [&str; 8] = ["-fp8", "-fast", "-awq", "-int8", "-fp16", "-bf16", "-lora", "-fp8-fast"];

/// The models whose prices a config has.
pub(crate) fn priced(models: &BTreeMap<String, Entry>) -> Vec<String> {
    models.iter().filter(|(_, entry)| entry.prices.is_some()).map(|(model, _)| model.clone()).collect()
}

/// The dearest first.
pub(crate) fn advice(evidence: &Evidence, known: &Known<'_>) -> Vec<Advice> {
    let least = Neurons::from_micro(evidence.spent.micro() / LEAST_PART);
    let weighs = |calls: u64, saved: Neurons| calls >= LEAST_CALLS && saved >= least && !saved.is_zero();
    let mut all = Vec::new();
    all.extend(evidence.models.iter().filter_map(|ran| twin(ran, known)));
    all.extend(repeats(evidence));
    all.extend(beginnings(evidence, known));
    all.extend(left(evidence));
    let (dear, free): (Vec<_>, Vec<_>) = retries(evidence).into_iter().partition(|advice| !advice.saved.is_zero());
    all.extend(dear);
    all.retain(|advice| weighs(advice.calls, advice.saved));
    all.extend(free);
    all.extend(evidence.reported.iter().filter_map(|ran| priced_wrong(ran, known)));
    all.extend(evidence.crowds.iter().map(crowded));
    all.extend(limits(evidence, known));
    all.extend(leaving(evidence, known));
    all.extend(unused(evidence, known));
    all.sort_by_key(|advice| std::cmp::Reverse((advice.saved, advice.calls)));
    all
}

// === a cheaper model of the same weights ===

fn twin(ran: &Ran, known: &Known<'_>) -> Option<Advice> {
    let model = known.catalogue.get(&ran.model)?;
    let usage = Usage::tokens(ran.input_tokens, ran.cached_input_tokens, ran.output_tokens);
    let is_twin = |other: &Arc<Model>| {
        let is_long_enough = other.context.is_none_or(|context| u64::from(context) >= ran.longest);
        let stays = other.deprecated.is_none() && other.replacement.is_none();
        other.id != model.id
            && other.task == model.task
            && weights(&other.id) == weights(&model.id)
            && is_long_enough
            && stays
    };
    let twins = known.catalogue.models().into_iter().filter(is_twin).filter(|other| !other.prices.is_empty());
    let cheapest = twins.map(|other| (other.prices.cost(&usage), other)).min_by_key(|(cost, _)| *cost)?;
    let (cost, other) = cheapest;
    let Ran { calls, neurons, .. } = ran;
    Some(Advice {
        waste: "cheaper_twin",
        of: ran.model.clone(),
        calls: *calls,
        saved: neurons.saturating_sub(cost),
        shown: format!(
            "{calls} calls read {} tokens and wrote {} for {neurons} neurons; on {} the same tokens cost {cost}",
            ran.input_tokens, ran.output_tokens, other.id
        ),
        change: format!("ask {}, or name it in [aliases]", other.id),
        in_return: format!(
            "the same weights, stored in another way: answers may differ, and their quality was not judged; its limit is {} calls a \
             minute",
            other.limit.requests
        ),
    })
}

/// A model's name without how its weights are stored.
fn weights(id: &str) -> &str {
    let mut name = id;
    while let Some(shorter) = VARIANTS.iter().find_map(|variant| name.strip_suffix(variant)) {
        name = shorter;
    }
    name
}

// === the cache ===

fn repeats(evidence: &Evidence) -> Vec<Advice> {
    let advice = |repeats: &Repeats| {
        let Repeats { model, calls, neurons, gap_ms, bypassed } = repeats;
        let ttl = Duration::from_secs(gap_ms.div_ceil(60_000).max(1) * 60);
        let ttl = humantime::format_duration(ttl);
        let sampled =
            if *bypassed > 0 { ", with sampled = true or a seed or temperature 0 in the requests" } else { "" };
        Advice {
            waste: "repeats",
            of: model.clone(),
            calls: *calls,
            saved: *neurons,
            shown: format!("{calls} calls had been answered within the day before and ran again for {neurons} neurons"),
            change: format!("ttl = \"{ttl}\" in [cache.models.\"{model}\"]{sampled}"),
            in_return: if *bypassed > 0 {
                format!("answers up to {ttl} old, and the same one again where another would have been drawn")
            } else {
                format!("answers up to {ttl} old")
            },
        }
    };
    evidence.repeats.iter().map(advice).collect()
}

// === the vendor's prefix cache ===

fn beginnings(evidence: &Evidence, known: &Known<'_>) -> Vec<Advice> {
    let advice = |shared: &Beginnings| {
        let Beginnings { model, calls, tokens, .. } = shared;
        let prices = &known.catalogue.get(model)?.prices;
        prices.get(Unit::CachedInputToken)?;
        let cost = |cached| prices.cost(&Usage::tokens(*tokens, cached, 0));
        Some(Advice {
            waste: "prefix_cache",
            of: model.clone(),
            calls: *calls,
            saved: cost(0).saturating_sub(cost(*tokens)),
            shown: format!(
                "{calls} calls began as one before them had; {tokens} tokens of that (at most {BLOCK_TOKENS} of each are known to be \
                 the same) were read at full price"
            ),
            change: "session_affinity = \"auto\" in [upstream]".into(),
            in_return: "calls of one beginning go to one place at the vendor's, and may wait for each other there"
                .into(),
        })
    };
    evidence.beginnings.iter().filter_map(advice).collect()
}

// === answers that nobody read, attempts that mended nothing ===

fn left(evidence: &Evidence) -> Vec<Advice> {
    let advice = |lost: &Lost| Advice {
        waste: "unread_answers",
        of: lost.model.clone(),
        calls: lost.calls,
        saved: lost.neurons,
        shown: format!(
            "the clients of {} calls left before their answers' end, which cost {} neurons",
            lost.calls, lost.neurons
        ),
        change: "give clients more time, or ask for streams or fewer tokens".into(),
        in_return: "clients wait longer, or get shorter answers".into(),
    };
    evidence.left.iter().map(advice).collect()
}

fn retries(evidence: &Evidence) -> Vec<Advice> {
    let advice = |lost: &Lost| Advice {
        waste: "vain_retries",
        of: lost.model.clone(),
        calls: lost.calls,
        saved: lost.neurons,
        shown: format!(
            "{} calls were tried {} times more, and not one was mended by it; they cost {} neurons",
            lost.calls, lost.again, lost.neurons
        ),
        change: "max_attempts = 1 in [retry], or a `fallback` for the model".into(),
        in_return: "a call that a retry would mend fails; of these none did".into(),
    };
    evidence.retried.iter().map(advice).collect()
}

// === what saves no neurons ===

/// The vendor says another cost than the price in force: budgets reserve, and estimates tell, the wrong figure.
fn priced_wrong(ran: &Ran, known: &Known<'_>) -> Option<Advice> {
    let Ran { model, calls, neurons, .. } = ran;
    let prices = &known.catalogue.get(model)?.prices;
    let usage = Usage::tokens(ran.input_tokens, ran.cached_input_tokens, ran.output_tokens);
    let table = prices.cost(&usage);
    let ratio = neurons.as_f64() / table.as_f64();
    let is_known = *calls >= LEAST_CALLS && ratio.is_finite();
    if !is_known || (ratio - 1.0).abs() <= SAME_PRICE {
        return None;
    }
    let change = match known.priced.contains(model) {
        true => format!("mend or take out `prices` in [models.{model:?}]"),
        false => "set [catalogue] refresh = \"24h\", or `prices` for the model".into(),
    };
    Some(Advice {
        waste: "wrong_price",
        of: model.clone(),
        calls: *calls,
        saved: Neurons::ZERO,
        shown: format!(
            "the vendor charged {neurons} neurons for {calls} calls, and by the prices in force their tokens come to {table}: \
             {ratio:.3} times that"
        ),
        change,
        in_return: "nothing: budgets hold what calls really cost".into(),
    })
}

/// Calls that come in crowds and whose answers nobody reads as they are written.
fn crowded(crowd: &Crowd) -> Advice {
    let Crowd { model, key, calls, refused, waited_ms } = crowd;
    let whose = if key.is_empty() { String::new() } else { format!(" of the key {key:?}") };
    Advice {
        waste: "batchable",
        of: model.clone(),
        calls: *calls,
        saved: Neurons::ZERO,
        shown: format!(
            "{calls} calls{whose} that asked for no stream came faster than the model's limit: {refused} were refused, the others \
             waited {} s together",
            waited_ms / 1000
        ),
        change: "send them as a batch (`requests`, with queueRequest=true) where the model takes one".into(),
        in_return: "answers come minutes later, and have to be fetched".into(),
    }
}

fn limits(evidence: &Evidence, known: &Known<'_>) -> Vec<Advice> {
    let advice = |roomy: &Roomy| {
        let Roomy { model, key, calls, asked, most, .. } = roomy;
        let enough = (most * 2).max(16);
        let freed = asked.saturating_sub(calls.saturating_mul(enough));
        let prices = known.catalogue.get(model).map(|model| model.prices.clone()).unwrap_or_default();
        let held = prices.cost(&Usage::tokens(0, 0, freed));
        let whose = if key.is_empty() { String::new() } else { format!(" of the key {key:?}") };
        Advice {
            waste: "roomy_max_tokens",
            of: model.clone(),
            calls: *calls,
            saved: Neurons::ZERO,
            shown: format!(
                "{calls} calls{whose} asked for up to {} tokens each, and none wrote more than {most}",
                asked / (*calls).max(1)
            ),
            change: format!("max_tokens = {enough}"),
            in_return: format!(
                "an answer longer than any of these is cut; budgets hold {held} neurons less for so many calls, and admit more at once"
            ),
        }
    };
    evidence.limits.iter().map(advice).collect()
}

fn leaving(evidence: &Evidence, known: &Known<'_>) -> Vec<Advice> {
    let advice = |ran: &Ran| {
        let model = known.catalogue.get(&ran.model)?;
        model.leaves_at().filter(|at| *at <= known.now + SOON)?;
        let instead = model.replacement.clone().unwrap_or_else(|| "another model".into());
        Some(Advice {
            waste: "leaving_model",
            of: ran.model.clone(),
            calls: ran.calls,
            saved: Neurons::ZERO,
            shown: format!(
                "{} calls ran on it, and it leaves on {}",
                ran.calls,
                model.deprecated.as_deref().unwrap_or("")
            ),
            change: format!("ask {instead}"),
            in_return: "answers of another model".into(),
        })
    };
    evidence.models.iter().filter_map(advice).collect()
}

fn unused(evidence: &Evidence, known: &Known<'_>) -> Vec<Advice> {
    let is_unused = |key: &&String| !evidence.keys.contains(key);
    let advice = |key: &String| Advice {
        waste: "unused_key",
        of: key.clone(),
        calls: 0,
        saved: Neurons::ZERO,
        shown: "no call had this key".into(),
        change: "revoke it: a key that nobody misses is one that nobody misses when it is stolen".into(),
        in_return: "nothing".into(),
    };
    known.keys.iter().filter(is_unused).map(advice).collect()
}
