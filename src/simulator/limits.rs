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

/// The windows that the schema files name, in tokens.
const WINDOWS: [(&str, u64); 35] = [
    ("@cf/aisingapore/gemma-sea-lion-v4-27b-it", 128_000),
    ("@cf/cloudflare/clef", 65_536),
    ("@cf/cloudflare/clef-flash", 24_576),
    ("@cf/cloudflare/clef-omni", 65_536),
    ("@cf/deepseek-ai/deepseek-r1-distill-qwen-32b", 80_000),
    ("@cf/deepseek-ai/deepseek-v4-flash-0731", 1_048_576),
    ("@cf/deepseek-ai/deepseek-v4-pro-0813", 1_048_576),
    ("@cf/google/gemma-3-12b-it", 80_000),
    ("@cf/google/gemma-4-26b-a4b-it", 256_000),
    ("@cf/ibm-granite/granite-4.0-h-micro", 131_000),
    ("@cf/meta/llama-2-7b-chat-fp16", 4_096),
    ("@cf/meta/llama-3.1-8b-instruct-fp8", 32_000),
    ("@cf/meta/llama-3.3-70b-instruct-fp8-fast", 24_000),
    ("@cf/meta/llama-4-scout-17b-16e-instruct", 131_000),
    ("@cf/mistralai/mistral-small-3.1-24b-instruct", 128_000),
    ("@cf/moonshotai/kimi-k2.5", 262_144),
    ("@cf/moonshotai/kimi-k2.6", 262_144),
    ("@cf/moonshotai/kimi-k2.7-code", 262_144),
    ("@cf/nvidia/nemotron-3-120b-a12b", 256_000),
    ("@cf/openai/gpt-oss-120b", 128_000),
    ("@cf/openai/gpt-oss-20b", 128_000),
    ("@cf/qwen/qwen1.5-14b-chat-awq", 7_500),
    ("@cf/qwen/qwen2.5-coder-32b-instruct", 32_768),
    ("@cf/qwen/qwen3-30b-a3b-fp8", 32_768),
    ("@cf/qwen/qwen3.8-27b", 262_144),
    ("@cf/qwen/qwq-32b", 24_000),
    ("@cf/swiss-ai/apertus-v1.5-8b", 262_144),
    ("@cf/utter-project/eurollm-9b-it", 32_768),
    ("@cf/zai-org/glm-4.7-flash", 131_072),
    ("@cf/zai-org/glm-5.2", 262_144),
    ("@cf/zai-org/glm-5.3", 1_310_720),
    ("@cf/zai-org/glm-5.3-flash", 1_310_720),
    ("@hf/thebloke/mistral-7b-instruct-v0.1-awq", 4_096),
    ("@cf/baai/bge-m3", 60_000),
    ("@cf/qwen/qwen3-embedding-0.6b", 8_192),
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

/// The most tokens that a model reads and writes, where that is known.
pub(super) fn window(model: &Model) -> Option<u64> {
    let listed = WINDOWS.iter().find(|(name, _)| *name == &*model.id).map(|(_, window)| *window);
    listed.or(model.context.map(u64::from))
}

/// The longest output beside so long an input.
pub(super) fn most_output(model: &Model, input_tokens: u64) -> u64 {
    let window = window(model).unwrap_or(NO_WINDOW).saturating_sub(input_tokens);
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
        // flux-2 names neither: four megapixels, and more steps than anyone asks for.
        () => (Some(2_048), 100),
    };
    PictureLimits { max_side, max_steps }
}
