//! Embeddings, rankings and labels.

use serde_json::{Value, json};

use super::dice::{self, Dice};
use super::envelope::envelope;
use super::js::View;
use super::prompt::Prompt;
use super::route::Wants;
use super::usage::usage_json;
use crate::catalogue::Model;
use crate::usage::Usage;

/// What a text weighs beside each of its words.
const OWN_WEIGHT: f32 = 0.5;
/// More of a text are not looked at.
const MOST_WORDS: usize = 64;

/// Vectors of the request's texts, another one for each text, model and pooling. Texts with most of their words in common lie close
/// together.
pub(super) fn embed(prompt: &Prompt<'_>, model: &Model, wants: Wants) -> (Value, Usage) {
    let pooling = prompt.field("pooling").and_then(View::text).unwrap_or("mean");
    let data: Vec<Vec<f32>> = prompt.texts.iter().map(|text| vector(text, model, pooling)).collect();
    let usage = Usage::tokens(prompt.tokens(model), 0, 0);
    let told = json!({"prompt_tokens": usage.input_tokens, "total_tokens": usage.input_tokens});
    if wants == Wants::Embeddings {
        let items = data.iter().enumerate();
        let items: Vec<_> =
            items.map(|(index, v)| json!({"object": "embedding", "index": index, "embedding": v})).collect();
        let mut reply = json!({"object": "list", "data": items, "model": &*model.id});
        // qwen3-embedding says nothing of usage on this route.
        if !model.id.contains("qwen3") {
            reply["usage"] = told;
        }
        return (reply, usage);
    }
    let shape = [data.len(), data.first().map_or(0, Vec::len)];
    (envelope(json!({"shape": shape, "data": data, "pooling": pooling, "usage": told})), usage)
}

fn vector(text: &str, model: &Model, pooling: &str) -> Vec<f32> {
    let mut sum = vec![0.0; dimensions(&model.id)];
    let mut add = |word: &str, weight: f32| {
        let mut dice = Dice::new(dice::seed(&[word, &model.id, pooling]));
        sum.iter_mut().for_each(|figure| *figure += (dice.share() as f32 * 2.0 - 1.0) * weight);
    };
    // The text as it stands tells apart those with the same words.
    add(text, OWN_WEIGHT);
    let words = text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
    words.take(MOST_WORDS).for_each(|word| add(&word.to_lowercase(), 1.0));
    let length = sum.iter().map(|figure| figure * figure).sum::<f32>().sqrt();
    // Four decimals are enough to tell them apart, and short to write.
    sum.iter().map(|figure| (figure / length * 1e4).round() / 1e4).collect()
}

fn dimensions(model: &str) -> usize {
    match model {
        _ if model.contains("small") => 384,
        _ if model.contains("base") || model.contains("embeddinggemma") || model.contains("plamo") => 768,
        _ => 1024,
    }
}

/// Labels for a text, or a ranking of several.
pub(super) fn classify(prompt: &Prompt<'_>, model: &Model) -> (Value, Usage) {
    let usage = Usage::tokens(prompt.tokens(model), 0, 0);
    if model.id.contains("clef") {
        let told = json!({"input_tokens": usage.input_tokens, "output_tokens": 0});
        return (envelope(json!({"answers": {"0": {"answer": true, "score": 0.93}}, "usage": told})), usage);
    }
    if let Some(contexts) = prompt.field("contexts").and_then(View::items) {
        let wanted = prompt.limit(&["top_k"], None, contexts.len() as u64);
        let scores: Vec<_> = (0..wanted).map(|id| json!({"id": id, "score": 0.9 / (id as f64 + 1.0)})).collect();
        let neurons = model.prices.cost(&usage);
        return (envelope(json!({"response": scores, "usage": usage_json(&usage, Some(neurons))})), usage);
    }
    let labels = json!([{"label": "NEGATIVE", "score": 0.02}, {"label": "POSITIVE", "score": 0.98}]);
    (envelope(labels), usage)
}
