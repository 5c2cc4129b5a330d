//! Bodies of calls: JSON in every spelling, sounds and pictures, and what is none of these.
//!
//! The first byte picks route and content type. Nothing breaks, and a body that is measured twice is measured alike.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::call::Endpoint;
use tollgate::catalogue::Catalogue;
use tollgate::layers::identify::measure;
use tollgate::receipt::Estimate;

const ENDPOINTS: [Endpoint; 4] = [Endpoint::Run, Endpoint::ChatCompletions, Endpoint::Embeddings, Endpoint::Responses];
const TYPES: [&str; 6] = ["application/json", "", "audio/wav", "image/png", "application/octet-stream", "text/plain"];
const MODELS: [&str; 7] = [
    "@cf/meta/llama-3.2-1b-instruct",
    "@cf/google/gemma-4-26b-a4b-it",
    "@cf/baai/bge-m3",
    "@cf/leonardo/lucid-origin",
    "@cf/openai/whisper",
    "@cf/deepgram/aura-1",
    "@cf/meta/m2m100-1.2b",
];

fuzz_target!(|input: &[u8]| {
    let Some((pick, body)) = input.split_first() else { return };
    let pick = usize::from(*pick);
    let (endpoint, kind) = (ENDPOINTS[pick % ENDPOINTS.len()], TYPES[pick / ENDPOINTS.len() % TYPES.len()]);
    let Ok(ask) = measure(body, kind, endpoint) else { return };
    assert_eq!(measure(body, kind, endpoint).ok().as_ref(), Some(&ask));
    let catalogue = Catalogue::default();
    for model in MODELS.iter().filter_map(|name| catalogue.get(name)) {
        let _ = Estimate::new(&ask, &model);
    }
});
