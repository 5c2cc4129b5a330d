//! What a call will cost, from its body alone.

use crate::call::{Ask, Call};
use crate::catalogue::{Model, Task};
use crate::receipt::Estimate;
use crate::usage::{ImageUsage, Size, Usage};

/// What the vendor assumes where `max_tokens` is absent (API reference, 2026-09).
pub const DEFAULT_MAX_TOKENS: u32 = 256;
/// No chat template is known to put more around a message, or around the whole.
const TEMPLATE_TOKENS: u64 = 64;
/// What a vision model makes of a picture, at most: 1,601 a tile, four tiles (llama-3.2-11b-vision's processor).
const PICTURE_TOKENS: u64 = 6_404;
/// A picture whose request and model name no size.
const PICTURE: ImageUsage = ImageUsage { size: Size { width: 1024, height: 1024 }, steps: 4 };
/// The slowest speech, in characters a second, and a usual one.
const SPEECH: (u64, u64) = (4, 15);

impl Estimate {
    /// Of a call on its model.
    pub fn of(call: &Call) -> Self {
        Self::new(&call.ask, &call.model)
    }

    /// Of what a body asks, on this model.
    pub fn new(ask: &Ask, model: &Model) -> Self {
        let likely = likely(ask, model);
        Self {
            likely: model.learned.likely(model.prices.cost(&likely)),
            upper: model.learned.upper(model.prices.cost(&upper(ask, model))),
            input_tokens: likely.input_tokens,
        }
    }
}

/// The tokens that a call will likely read and write.
pub fn tokens(call: &Call) -> u64 {
    let usage = likely(&call.ask, &call.model);
    usage.input_tokens + usage.output_tokens
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
    let default = model.image.unwrap_or(PICTURE);
    Some(ImageUsage {
        size: Size {
            width: ask.image.width.unwrap_or(default.size.width),
            height: ask.image.height.unwrap_or(default.size.height),
        },
        steps: ask.image.steps.unwrap_or(default.steps),
    })
}

/// True where the model's replies are text that was made token by token.
pub fn writes_tokens(task: Task) -> bool {
    matches!(task, Task::TextGeneration | Task::ImageToText | Task::Translation | Task::Summarization | Task::Unknown)
}

fn likely(ask: &Ask, model: &Model) -> Usage {
    let input_tokens = if ask.text.parts == 0 { 0 } else { model.tokens.input_tokens(&ask.text) };
    let output_tokens = match model.task {
        Task::Translation => input_tokens,
        _ => max_output(ask, model),
    };
    Usage { input_tokens, output_tokens, audio_ms: audio(ask, model, SPEECH.1), ..beyond_text(ask, model) }
}

fn upper(ask: &Ask, model: &Model) -> Usage {
    // A tokenizer that falls back to bytes makes no more tokens than there are bytes.
    let text = ask.text.bytes() + TEMPLATE_TOKENS * (1 + u64::from(ask.text.parts));
    let pictures = PICTURE_TOKENS * ask.input_images.len() as u64;
    let requests = u64::from(ask.answers.unwrap_or(1).max(1));
    let context = model.context.map_or(u64::MAX, |context| u64::from(context) * requests);
    Usage {
        input_tokens: (text + pictures).min(context),
        output_tokens: max_output(ask, model),
        audio_ms: audio(ask, model, SPEECH.0).max(ask.audio_upper_ms),
        ..beyond_text(ask, model)
    }
}

fn max_output(ask: &Ask, model: &Model) -> u64 {
    if !writes_tokens(model.task) || ask.is_poll() {
        return 0;
    }
    u64::from(ask.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS)) * u64::from(ask.answers.unwrap_or(1))
}

fn audio(ask: &Ask, model: &Model, characters_a_second: u64) -> u64 {
    match model.task {
        Task::TextToSpeech => ask.characters * 1000 / characters_a_second,
        _ => ask.audio_ms,
    }
}

fn beyond_text(ask: &Ask, model: &Model) -> Usage {
    Usage {
        image: image(ask, model),
        input_images: ask.input_images.clone(),
        characters: if model.task == Task::TextToSpeech { ask.characters } else { 0 },
        ..Usage::default()
    }
}
