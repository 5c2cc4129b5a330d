//! What bounds a model's output, by the vendor's schema files: the stand-in's own table, beside the catalogue's.

use crate::catalogue::Model;

/// Where nothing names a window, the longest output that a request can ask for.
const NO_WINDOW: u64 = u32::MAX as u64;
/// The maximum of `n`.
pub(super) const MAX_ANSWERS: u64 = 128;

/// Models made by OpenAI's template: no default for `max_tokens`, and `n` answers.
const TEMPLATE: [&str; 7] = ["deepseek-v4", "gemma-4", "kimi-k2", "nemotron-3", "qwen3.8", "glm-4.7", "glm-5"];
/// Models that read pictures beside text.
const SEEING: [&str; 11] = [
    "kimi-k2",
    "gemma-4",
    "gemma-3",
    "qwen3.8",
    "glm-5.3-flash",
    "apertus",
    "llama-4",
    "mistral-small",
    "qwq",
    "llama-3.2-11b",
    "moondream",
];

fn is_one_of(model: &Model, names: &[&str]) -> bool {
    names.iter().any(|name| model.id.contains(name))
}

pub(super) fn is_template(model: &Model) -> bool {
    is_one_of(model, &TEMPLATE)
}

pub(super) fn sees(model: &Model) -> bool {
    is_one_of(model, &SEEING) || model.id.contains("/clef")
}

/// Tokens written where the request names no limit; `None` where that is as much as fits. `is_responses` tells the form
/// that has no default at all.
pub(super) fn default_output(model: &Model, is_responses: bool) -> Option<u64> {
    let named = |part: &str| model.id.contains(part);
    match () {
        () if is_template(model) || named("apertus") || named("eurollm") => None,
        () if named("gpt-oss") && is_responses => None,
        () if named("qwen3-30b") || named("granite") || named("sea-lion") => Some(2_000),
        () if named("moondream") => Some(768),
        () if named("bart-large") => Some(1_024),
        () => Some(256),
    }
}

/// The longest output beside so long an input.
pub(super) fn most_output(model: &Model, input_tokens: u64) -> u64 {
    let window = model.context.map_or(NO_WINDOW, u64::from).saturating_sub(input_tokens);
    if model.id.contains("moondream") { window.min(2_048) } else { window }
}

/// What a picture may be at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct PictureLimits {
    /// Pixels of a side; `None` where the model takes no size.
    pub(super) max_side: Option<u64>,
    pub(super) max_steps: u64,
}

pub(super) fn picture(model: &Model) -> PictureLimits {
    let named = |part: &str| model.id.contains(part);
    let (max_side, max_steps) = match () {
        () if named("flux-1-schnell") => (None, 8),
        () if named("lucid-origin") => (Some(2_500), 40),
        () if named("phoenix") => (Some(2_048), 50),
        () if named("stable-diffusion") => (Some(2_048), 20),
        // flux-2 names neither; this is as large as the stand-in draws.
        () => (Some(4_096), 100),
    };
    PictureLimits { max_side, max_steps }
}
