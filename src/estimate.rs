//! What a call will cost, from its body alone: likely, and at most.
//!
//! The bound is that of the dearest reading of the body (see [`Reach`](crate::call::Reach)) on its model. Where neither the
//! request nor the catalogue bounds what is priced, there is none: a translation's or a made-up voice's length, the picture
//! behind a link on a model whose window is not known, a model without prices.

use crate::call::{Ask, Call, Side};
use crate::catalogue::{Model, StepsField, Task, Unit};
use crate::neurons::Neurons;
use crate::receipt::Estimate;
use crate::socket::Opening;
use crate::usage::{ImageUsage, Size, Usage};

/// The answer's tokens that are likely where neither the request nor the model sets a limit.
const LIKELY_TOKENS: u64 = 256;
/// No chat template is known to put more around a message, or around the whole.
const TEMPLATE_TOKENS: u64 = 64;
/// What a vision model makes of a small picture, at most: 1,601 a tile, four tiles (llama-3.2-11b-vision's processor).
const PICTURE_TOKENS: u64 = 6_404;
/// Of a large one: no encoder in use has smaller patches than 14 x 14 pixels.
const PIXELS_A_TOKEN: u64 = 196;
/// A picture whose request and model name no size.
const PICTURE: ImageUsage = ImageUsage { size: Size { width: 1024, height: 1024 }, steps: 4 };
/// A usual speech, in characters a second.
const SPEECH: u64 = 15;

/// What nothing bounds of a call's cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unbounded {
    /// The model has no prices.
    Prices,
    /// How many tokens it answers with: the request sets no limit, and the model's window is not known.
    Answer,
    /// How many tokens it answers with, whatever the request says: a translation, a summary.
    Translation,
    /// How long the sound is that it makes or that a link leads to.
    Sound,
    /// How much is read of a picture, sound, video or file, and the model's window is not known.
    Media,
}

impl Estimate {
    /// Of a call on its model.
    pub fn of(call: &Call) -> Self {
        if let Some(opening) = &call.socket {
            return Self::opening(opening, &call.model);
        }
        let estimate = Self::new(&call.ask, &call.model);
        if let Some(models) = &call.routed_to {
            // The router runs one of them, and nobody knows which.
            let each = || models.iter().map(|model| Self::new(&call.ask, model));
            let upper = each().try_fold(Neurons::ZERO, |dearest, one| Some(dearest.max(one.upper?)));
            let likely = each().map(|one| one.likely).max().unwrap_or(estimate.likely);
            return Self { likely, upper, ..estimate };
        }
        match &call.named_beside {
            None => estimate,
            // The vendor may run either.
            Some(beside) => {
                let beside = upper(&call.ask, beside).ok();
                Self { upper: estimate.upper.zip(beside).map(|(one, other)| one.max(other)), ..estimate }
            }
        }
    }

    /// Of a socket's first stretch: what comes after that is reserved as it comes.
    fn opening(opening: &Opening, model: &Model) -> Self {
        let (prices, usage) = (model.prices.over_socket(), opening.usage(opening.settings.stretch));
        let cost = prices.cost(&usage);
        Self { likely: cost, upper: Some(cost).filter(|_| !prices.is_empty()), input_tokens: 0 }
    }

    /// Of what a body asks, on this model.
    pub fn new(ask: &Ask, model: &Model) -> Self {
        let likely = likely(ask, model);
        Self {
            likely: model.learned.likely(model.prices.cost(&likely)),
            upper: upper(ask, model).ok(),
            input_tokens: likely.input_tokens,
        }
    }
}

/// The tokens that a call will likely read and write.
pub fn tokens(call: &Call) -> u64 {
    let usage = likely(&call.ask, &call.model);
    usage.input_tokens + usage.output_tokens
}

/// What leaves a call without a bound.
pub fn unbounded(call: &Call) -> Option<Unbounded> {
    if let Some(models) = &call.routed_to {
        return models.iter().find_map(|model| upper(&call.ask, model).err());
    }
    let beside = call.named_beside.as_deref();
    std::iter::once(&*call.model).chain(beside).find_map(|model| upper(&call.ask, model).err())
}

/// Nothing but the model's window limits the call's answers.
pub fn is_unlimited(call: &Call) -> bool {
    !call.ask.is_poll() && writes_tokens(call.model.task) && open_answers(&call.ask, &call.model).0 > 0
}

/// What a batch that was queued will use, as far as its body tells.
pub(crate) fn queued(ask: &Ask, model: &Model) -> Usage {
    likely(ask, model)
}

/// The picture that a request will get from a model.
pub fn image(ask: &Ask, model: &Model) -> Option<ImageUsage> {
    if model.task != Task::TextToImage {
        return None;
    }
    let (wish, default) = (&ask.image, model.image.unwrap_or(PICTURE));
    let (width, height) = if model.image_limits.fixed_size { (None, None) } else { (wish.width, wish.height) };
    let steps = match model.image_limits.steps_field {
        StepsField::Either => wish.steps.max(wish.num_steps),
        StepsField::Steps => wish.steps,
        StepsField::NumSteps => wish.num_steps,
    };
    Some(ImageUsage {
        size: Size { width: width.unwrap_or(default.size.width), height: height.unwrap_or(default.size.height) },
        steps: steps.unwrap_or(default.steps),
    })
}

/// True where the model's replies are text that was made token by token.
pub fn writes_tokens(task: Task) -> bool {
    matches!(task, Task::TextGeneration | Task::ImageToText | Task::Translation | Task::Summarization | Task::Unknown)
}

// === likely ===

fn likely(ask: &Ask, model: &Model) -> Usage {
    let input_tokens = if ask.text.parts == 0 { 0 } else { model.tokens.input_tokens(&ask.text) };
    let output_tokens = match model.task {
        Task::Translation => input_tokens,
        task if !writes_tokens(task) || ask.is_poll() => 0,
        _ => {
            let output = &ask.reach.output;
            let by_default = u64::from(model.max_tokens_default.unwrap_or(0)).max(LIKELY_TOKENS);
            output.limited_tokens.saturating_add((output.by_default + output.open).saturating_mul(by_default))
        }
    };
    Usage {
        input_tokens,
        output_tokens,
        image: image(ask, model),
        input_images: ask.input_images.clone(),
        audio_ms: if model.task == Task::TextToSpeech { ask.characters * 1000 / SPEECH } else { ask.audio_ms },
        characters: if model.task == Task::TextToSpeech { ask.characters } else { 0 },
        ..Usage::default()
    }
}

// === at most ===

/// What a call costs at most, as far as anything bounds that.
fn upper(ask: &Ask, model: &Model) -> Result<Neurons, Unbounded> {
    let prices = &model.prices;
    if ask.is_poll() {
        return Ok(Neurons::ZERO);
    }
    if prices.is_empty() {
        return Err(Unbounded::Prices);
    }
    let is_priced = |unit| prices.get(unit).is_some_and(|price| !price.is_zero());
    let mut usage = Usage::default();
    if is_priced(Unit::InputToken) {
        let times = if model.bills_input_twice { 2 } else { 1 };
        usage.input_tokens = input_tokens(ask, model).ok_or(Unbounded::Media)?.saturating_mul(times);
    }
    if is_priced(Unit::OutputToken) {
        let is_limited_by_itself = matches!(model.task, Task::Translation | Task::Summarization);
        let unbounded = if is_limited_by_itself { Unbounded::Translation } else { Unbounded::Answer };
        usage.output_tokens = output_tokens(ask, model).ok_or(unbounded)?;
    }
    if is_priced(Unit::AudioMinute) {
        usage.audio_ms = audio_ms(ask, model).ok_or(Unbounded::Sound)?;
    }
    // Whether the vendor counts characters, UTF-16 units or bytes is not known; it was seen to count one more, and may put one
    // between the parts of a list.
    let characters = text_bytes(ask).saturating_add(1 + u64::from(ask.text.parts));
    usage.characters = if is_priced(Unit::KiloCharacters) { characters } else { 0 };
    let cost = prices.cost(&usage) + pictures(ask, model).ok_or(Unbounded::Media)?;
    Ok(model.learned.upper(cost))
}

/// A tokenizer that falls back to bytes makes no more tokens than there are bytes.
fn text_bytes(ask: &Ask) -> u64 {
    ask.text.bytes().saturating_add(ask.reach.other_text_bytes)
}

fn requests(ask: &Ask) -> u64 {
    u64::from(ask.reach.requests.max(1))
}

fn input_tokens(ask: &Ask, model: &Model) -> Option<u64> {
    let parts = u64::from(ask.text.parts);
    let repeated = match model.task {
        Task::TextClassification | Task::TextEmbeddings => ask.reach.repeated_text_bytes.saturating_mul(parts),
        _ => 0,
    };
    let text = text_bytes(ask).saturating_add(repeated).saturating_add(TEMPLATE_TOKENS * (requests(ask) + parts));
    let tokens = picture_tokens(ask, model).map(|pictures| text.saturating_add(pictures));
    // Other models read each text by itself, in a window of its own.
    let shares_window = matches!(model.task, Task::TextGeneration | Task::ImageToText | Task::Unknown);
    let window =
        model.context.filter(|_| shares_window).map(|context| u64::from(context).saturating_mul(requests(ask)));
    match (tokens, window) {
        (Some(tokens), Some(window)) => Some(tokens.min(window)),
        (tokens, window) => tokens.or(window),
    }
}

/// What pictures and other media are read as; `None` where only the model's window bounds it.
fn picture_tokens(ask: &Ask, model: &Model) -> Option<u64> {
    let reach = &ask.reach;
    let reads_media = writes_tokens(model.task);
    if reads_media && (reach.unsized_media > 0 || ask.audio_upper_ms.max(ask.audio_ms) > 0) {
        return None;
    }
    match model.picture_tokens.map(u64::from) {
        Some(most) => Some(most.saturating_mul((ask.input_images.len() as u64).max(u64::from(reach.unsized_pictures)))),
        None if reads_media && reach.unsized_pictures > 0 => None,
        None => {
            Some(ask.input_images.iter().map(|size| PICTURE_TOKENS.max(size.area().div_ceil(PIXELS_A_TOKEN))).sum())
        }
    }
}

fn output_tokens(ask: &Ask, model: &Model) -> Option<u64> {
    let output = &ask.reach.output;
    let longest = model.max_output_tokens.map(u64::from);
    if matches!(model.task, Task::Translation | Task::Summarization) {
        // They read none of the limits that a request may set.
        return Some(longest?.saturating_mul(requests(ask).max(ask.text.parts.into())).max(output.limited_tokens));
    }
    let window = model.context.map(u64::from);
    let most = longest.into_iter().chain(window).min();
    let (open, by_default) = open_answers(ask, model);
    let open = if open == 0 { 0 } else { most?.saturating_mul(open) };
    let tokens = output.limited_tokens.saturating_add(by_default).saturating_add(open);
    // Where the window is known, a limit that may not be read is not relied on.
    let doubted = most.filter(|_| ask.reach.is_doubted).unwrap_or(0).saturating_mul(requests(ask));
    Some(tokens.max(doubted))
}

/// Answers that the window alone bounds, and the tokens of those that the model's default does.
fn open_answers(ask: &Ask, model: &Model) -> (u64, u64) {
    let output = &ask.reach.output;
    let has_default = !(model.default_on_run_only && ask.reach.is_chat);
    // An answer in doubt stands in several, and is counted as the dearest.
    let bounded = output.answers.saturating_sub(output.open);
    match model.max_tokens_default.filter(|_| has_default) {
        Some(default) => {
            let answers = output.by_default.saturating_add(output.by_completion_limit).min(bounded);
            (output.open, answers.saturating_mul(default.into()))
        }
        None => (output.open.saturating_add(output.by_default.min(bounded)), 0),
    }
}

fn audio_ms(ask: &Ask, model: &Model) -> Option<u64> {
    let longest = model.max_audio_seconds.map(|seconds| u64::from(seconds) * 1000 * requests(ask));
    match model.task {
        Task::TextToSpeech => longest,
        _ if ask.reach.unsized_media > 0 => longest,
        _ => Some(ask.audio_upper_ms.max(ask.audio_ms)),
    }
}

/// The pictures that are made and read, those of a batch as large as the largest.
fn pictures(ask: &Ask, model: &Model) -> Option<Neurons> {
    let prices = &model.prices;
    let is_priced = |units: &[Unit]| units.iter().any(|unit| prices.get(*unit).is_some_and(|price| !price.is_zero()));
    let reads = is_priced(&[Unit::InputTile, Unit::InputTileStep, Unit::InputMegapixel]);
    let makes = is_priced(&[Unit::Tile, Unit::TileStep, Unit::FirstMegapixel, Unit::NextMegapixel]);
    let counts = is_priced(&[Unit::Image]);
    if !reads && !makes && !counts {
        return Some(Neurons::ZERO);
    }
    let image = match model.task {
        Task::TextToImage => Some(largest_image(ask, model)?),
        _ => None,
    };
    let mut input_images = ask.input_images.clone();
    let largest = model.image_limits.max_side.map(|side| Size { width: side, height: side });
    let smallest = Size { width: 0, height: 0 };
    let unsized_pictures = ask.reach.unsized_pictures.min(MAX_UNSIZED) as usize;
    let each = if reads && unsized_pictures > 0 { largest? } else { smallest };
    input_images.extend(std::iter::repeat_n(each, unsized_pictures));
    if counts && input_images.is_empty() {
        input_images.push(smallest);
    }
    let one = prices.cost(&Usage { image, input_images, ..Usage::default() });
    let count = requests(ask).max(u64::from(ask.reach.unsized_pictures / MAX_UNSIZED));
    Some(Neurons::from_micro(one.micro().saturating_mul(count)))
}

/// More pictures without a size are counted as so many requests.
const MAX_UNSIZED: u32 = 1024;

/// `None` where the request sets no limit to its steps, nor does the model.
fn largest_image(ask: &Ask, model: &Model) -> Option<ImageUsage> {
    let (reach, limits, default) = (&ask.reach.image, &model.image_limits, model.image.unwrap_or(PICTURE));
    let side = |side: Side, default| {
        let fixed = if limits.fixed_size { default } else { 0 };
        side.at_most(default, limits.max_side).max(fixed)
    };
    let steps = |side: Side| side.at_most(default.steps, limits.max_steps);
    let prices_steps = [Unit::TileStep, Unit::InputTileStep].iter().any(|unit| model.prices.get(*unit).is_some());
    if prices_steps && limits.max_steps.is_none() && (reach.steps.or_most || reach.num_steps.or_most) {
        return None;
    }
    // What the field that is not read says may be read after all, but sets no limit.
    let beside = |side: Side| if side.or_most { steps(side) } else { side.given };
    let steps = match limits.steps_field {
        StepsField::Steps => steps(reach.steps).max(beside(reach.num_steps)),
        StepsField::NumSteps => steps(reach.num_steps).max(beside(reach.steps)),
        StepsField::Either if reach.num_steps.given == 0 && !reach.num_steps.or_default => steps(reach.steps),
        StepsField::Either if reach.steps.given == 0 && !reach.steps.or_default => steps(reach.num_steps),
        StepsField::Either => steps(reach.steps).max(steps(reach.num_steps)),
    };
    Some(ImageUsage {
        size: Size { width: side(reach.width, default.size.width), height: side(reach.height, default.size.height) },
        steps,
    })
}
