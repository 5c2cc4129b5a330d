//! From what a reply told to what the call cost.

use std::sync::Arc;

use crate::batches::Batches;
use crate::call::{Call, CustomCost};
use crate::catalogue::{Catalogue, Model, Unit};
use crate::estimate;
use crate::neurons::Neurons;
use crate::receipt::{Cost, Source};
use crate::reply::{Reader, Tally};
use crate::usage::Usage;

/// What the vendor says on the reply's head.
#[derive(Clone, Debug, Default)]
pub(super) struct HeadWord {
    /// `cf-ai-neurons`, two decimals.
    pub(super) neurons: Option<Neurons>,
    /// An AI Gateway on the way answered from its cache: nothing was run, nothing is billed.
    pub(super) cached: bool,
    /// Where no model that is listed was asked, the vendor may tell which one answered.
    pub(super) routed: Option<Routed>,
    /// Where the answers of a batch are asked for: which batches there are, and what models cost.
    pub(super) polled: Option<(Batches, Arc<Catalogue>)>,
}

/// A name that stands for more models than one, or for none that is known: `cloudflare/auto`, `dynamic/…`, `custom/…`.
#[derive(Clone, Debug)]
pub(super) struct Routed {
    pub(super) catalogue: Arc<Catalogue>,
    /// The model that the reply's head names.
    pub(super) by_head: Option<Arc<Model>>,
}

/// One unit in the last place of `cf-ai-neurons`.
const HEAD_PRECISION: u64 = 10_000;

/// The most that one call counts for at its caller's own price, in US dollars.
const MOST_USD: f64 = 1e6;

/// What was used, and what that costs.
pub(super) fn charge(call: &Call, tally: &Tally, head: &HeadWord) -> (Usage, Cost) {
    let (usage, guessed) = usage(call, tally);
    let cost = cost(call, tally, head, &usage, guessed);
    (usage, cost)
}

impl Routed {
    /// The model that answered, as far as the reply tells it and the catalogue knows it.
    pub(super) fn model(&self, reader: &Reader) -> Option<Arc<Model>> {
        self.by_head.clone().or_else(|| self.listed(reader.model()?))
    }

    /// The model that the vendor names so, with its provider or without.
    pub(super) fn listed(&self, name: &str) -> Option<Arc<Model>> {
        let name = name.strip_prefix("workers-ai/").unwrap_or(name);
        // Some models answer under a longer name (`wire.md`).
        self.catalogue.get(name).or_else(|| self.catalogue.get(name.strip_suffix("-external")?))
    }
}

/// What was used, and whether its tokens are only a guess.
fn usage(call: &Call, tally: &Tally) -> (Usage, bool) {
    let (ask, model) = (&*call.ask, &*call.model);
    if is_queued(call, tally) {
        return (estimate::queued(ask, model), true);
    }
    let mut usage = if tally.has_tokens {
        // Of a message that broke off only its opening has told, and more was written since.
        let flowed = if tally.is_opening { model.tokens.output_tokens(tally.text_bytes) } else { 0 };
        Usage::tokens(tally.input_tokens, tally.cached_tokens, tally.output_tokens.max(flowed))
    } else if prices_tokens(model) {
        let input = if ask.text.parts == 0 { 0 } else { model.tokens.input_tokens(&ask.text) };
        Usage::tokens(input, 0, model.tokens.output_tokens(tally.text_bytes))
    } else {
        Usage::default()
    };
    usage.image = estimate::image(ask, model);
    usage.input_images.clone_from(&ask.input_images);
    usage.audio_ms = tally.audio_ms.unwrap_or(ask.audio_ms);
    usage.characters = if model.prices.get(Unit::KiloCharacters).is_some() { ask.characters } else { 0 };
    (usage, !tally.has_tokens && prices_tokens(model))
}

/// A batch whose answers are to come, and will not be counted again.
fn is_queued(call: &Call, tally: &Tally) -> bool {
    call.ask.batch && !call.ask.is_poll() && !tally.has_tokens
}

fn prices_tokens(model: &Model) -> bool {
    model.prices.get(Unit::InputToken).is_some() || model.prices.get(Unit::OutputToken).is_some()
}

/// The better source wins: the body's own figure, then the head's, then the table's, then a guess. Where the vendor gives no
/// figure, the table's counts as what its figures were found to be.
fn cost(call: &Call, tally: &Tally, head: &HeadWord, usage: &Usage, guessed: bool) -> Cost {
    let (prices, learned) = (&call.model.prices, &call.model.learned);
    let from_table = (!prices.is_empty()).then(|| prices.cost(usage));
    let computed = from_table.filter(|_| !guessed);
    let reported = match tally.neurons {
        _ if head.cached => Some(Neurons::ZERO),
        Some(neurons) => Some(Neurons::from_f64(neurons)),
        None => head.neurons.filter(|word| computed.is_none_or(|table| !rounds_to(table, *word))),
    };
    let (neurons, source) = match (reported, computed, from_table) {
        (Some(neurons), _, _) => (neurons, Source::Reported),
        (None, Some(neurons), _) => (learned.likely(neurons), Source::Computed),
        (None, None, Some(neurons)) => (learned.likely(neurons), Source::Estimated),
        (None, None, None) => match call.assumed {
            Some(assumed) => (assumed, Source::Estimated),
            None => (Neurons::ZERO, Source::None),
        },
    };
    let custom = call.options.custom_cost.map(|price| custom(price, usage));
    let is_partial = is_queued(call, tally) && source == Source::Estimated;
    Cost { neurons, source, reported: reported.or(head.neurons), computed, custom_usd: custom, is_partial }
}

/// The head's two decimals are this figure's, rounded or cut off: then the table's is the finer one.
fn rounds_to(table: Neurons, word: Neurons) -> bool {
    table.micro().abs_diff(word.micro()) < HEAD_PRECISION
}

/// At most [`MOST_USD`], whatever the price and the reply say: what is summed up has to stay finite.
fn custom(price: CustomCost, usage: &Usage) -> f64 {
    let usd = match price {
        CustomCost::Total(usd) => usd,
        CustomCost::PerToken { usd_per_token_in, usd_per_cached_token_in, usd_per_token_out } => {
            let cached = usage.cached_input_tokens.min(usage.input_tokens);
            usd_per_token_in * (usage.input_tokens - cached) as f64
                + usd_per_cached_token_in * cached as f64
                + usd_per_token_out * usage.output_tokens as f64
        }
    };
    usd.min(MOST_USD)
}

/// A figure of the vendor's beside the table's for the same usage teaches how they differ.
pub(super) fn learn_price(call: &Call, tally: &Tally, head: &HeadWord, usage: &Usage, cost: &Cost) {
    let (prices, learned) = (&call.model.prices, &call.model.learned);
    // What the vendor had in its prefix cache is cheaper, also where no page says so.
    let is_like_others = usage.cached_input_tokens == 0 || prices.get(Unit::CachedInputToken).is_some();
    let Some(table) = cost.computed.filter(|_| is_like_others && !head.cached && !call.ask.batch) else { return };
    match (tally.neurons, head.neurons) {
        (Some(body), _) => learned.observe(table, Neurons::from_f64(body), Neurons::ZERO),
        (None, Some(word)) => learned.observe(table, word, Neurons::from_micro(HEAD_PRECISION)),
        (None, None) => {}
    }
}

/// Tokens a byte, from what the reply told.
pub(super) fn learn(call: &Call, tally: &Tally, whole: bool) {
    // A picture's tokens would be learned as text.
    if tally.has_tokens && call.ask.input_images.is_empty() && !call.ask.batch {
        call.model.tokens.learn_input(&call.ask.text, tally.input_tokens);
    }
    if tally.has_tokens && whole {
        call.model.tokens.learn_output(tally.text_bytes, tally.output_tokens);
    }
}
