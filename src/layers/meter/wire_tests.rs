//! Real bills and real streams of 2026: each comes out as the vendor's, or as close as its table.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use tower::{Layer, Service};

use super::MeterLayer;
use crate::body::Body;
use crate::call::{Ask, Call, Endpoint};
use crate::catalogue::{Catalogue, Task};
use crate::layers::Reply;
use crate::layers::testing::{Sealed, Vendor, call_read_by};
use crate::receipt::{Facts, Source};
use crate::usage::Usage;

fn cost_by_table(model: &str, usage: &Usage) -> f64 {
    Catalogue::default().get(model).unwrap().prices.cost(usage).as_f64()
}

/// The bill within a share of what was billed.
fn close(model: &str, usage: Usage, billed: f64, share: f64) {
    let cost = cost_by_table(model, &usage);
    assert!((cost / billed - 1.0).abs() < share, "{model}: {cost} for a bill of {billed}");
}

#[test]
fn the_table_alone_makes_the_bills() {
    let share = 0.001;
    close("@cf/google/gemma-4-26b-a4b-it", Usage::tokens(147, 0, 16), 1.772_727_251, share);
    close("@cf/google/gemma-4-26b-a4b-it", Usage::tokens(182, 64, 20), 1.909_091, share);
    close("@cf/zai-org/glm-5.3-flash", Usage::tokens(14, 0, 16), 0.918_181_87, share);
    close("@cf/zai-org/glm-5.3-flash", Usage::tokens(1893, 0, 12), 26.359_089_49, share);
    close("@cf/zai-org/glm-5.2", Usage::tokens(19, 0, 16), 8.818_181_99, share);
    close("@cf/cloudflare/clef", Usage::tokens(346, 0, 0), 7.55, share);
    close("@cf/cloudflare/clef", Usage::tokens(2445, 0, 0), 53.35, share);
}

fn picture(model: &str, body: &str) -> f64 {
    let ask = crate::layers::identify::measure(body.as_bytes(), "application/json", Endpoint::Run).unwrap();
    let catalogue = Catalogue::default();
    let model = catalogue.get(model).unwrap();
    model.prices.cost(&Usage { image: crate::estimate::image(&ask, &model), ..Usage::default() }).as_f64()
}

#[test]
fn pictures_cost_what_was_billed_for_them() {
    assert_eq!(picture("@cf/black-forest-labs/flux-1-schnell", "{}"), 172.8);
    assert_eq!(picture("@cf/leonardo/phoenix-1.0", r#"{"prompt":"x"}"#), 3120.0);
    assert_eq!(picture("@cf/black-forest-labs/flux-2-klein-4b", r#"{"width":1280,"height":720}"#), 104.2);
    assert_eq!(picture("@cf/black-forest-labs/flux-2-dev", "{}"), 7500.0);
}

/// Sends a reply through the meter in pieces of this size, and reads what is on the receipt.
async fn metered(model: &str, endpoint: Endpoint, head: &[(&str, &str)], body: &str, piece: usize) -> (Facts, Bytes) {
    let sealed = Sealed::default();
    let call = Call { endpoint, stream: true, ..call_read_by(sealed.readers(), model, r#"{"prompt":"some words"}"#) };
    let mut reply = http::Response::builder();
    for (name, value) in head {
        reply = reply.header(*name, *value);
    }
    let pieces: Vec<_> = body
        .as_bytes()
        .chunks(piece)
        .map(|piece| Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::copy_from_slice(piece))))
        .collect();
    let stream = Body::stream(http_body_util::StreamBody::new(futures_util::stream::iter(pieces)));
    let mut reply = Some(reply.body(stream).unwrap());
    let vendor = Vendor(move |_call: Call| std::future::ready(Ok::<Reply, crate::Error>(reply.take().unwrap())));
    let reply = MeterLayer::default().layer(vendor).call(call).await.unwrap();
    let bytes = reply.into_body().collect().await.unwrap().to_bytes();
    let facts = sealed.0.lock().pop().unwrap();
    (facts, bytes)
}

#[tokio::test]
async fn a_route_is_priced_by_the_model_that_ran() {
    const LLAMA: &str = "@cf/meta/llama-3.2-1b-instruct";
    let usage = r#""usage":{"prompt_tokens":26,"completion_tokens":18}"#;
    let chat = |model: &str| format!(r#"{{"model":"{model}","choices":[{{"message":{{"content":"Hi"}}}}],{usage}}}"#);
    let stream = format!("data: {}\n\ndata: [DONE]\n\n", chat(LLAMA));
    let json = &[("content-type", "application/json")][..];
    let routed = &[("content-type", "application/json"), ("cf-aig-routed-model", LLAMA)][..];
    for (asked, head, body, ran) in [
        ("cloudflare/auto", routed, chat("cloudflare/auto"), Some(LLAMA)),
        ("dynamic/support", routed, format!(r#"{{"result":{{"response":"Hi",{usage}}}}}"#), Some(LLAMA)),
        ("dynamic/support", json, chat(LLAMA), Some(LLAMA)),
        ("dynamic/support", json, chat("workers-ai/@cf/meta/llama-3.2-1b-instruct"), Some(LLAMA)),
        ("custom/pool", EVENTS, stream, Some(LLAMA)),
        ("dynamic/support", json, chat("gpt-4o"), None),
        // Only the envelope is believed, not what a model wrote.
        ("dynamic/support", json, format!(r#"{{"response":{{"model":"{LLAMA}"}},{usage}}}"#), None),
        // What is listed is what was asked, whatever the reply calls it.
        ("@cf/meta/llama-3.1-8b-instruct-fp8", routed, chat(LLAMA), Some("@cf/meta/llama-3.1-8b-instruct-fp8")),
    ] {
        for piece in [7, body.len()] {
            let (facts, bytes) = metered(asked, Endpoint::ChatCompletions, head, &body, piece).await;
            assert!(bytes == body, "{asked}: a byte was changed");
            let cost = ran.map_or(0.0, |ran| cost_by_table(ran, &Usage::tokens(26, 0, 18)));
            assert_eq!(
                (&*facts.model.id, facts.cost.neurons.as_f64()),
                (ran.unwrap_or(asked), cost),
                "{asked}: {body}"
            );
            let source = if ran.is_some() { Source::Computed } else { Source::None };
            assert_eq!((facts.cost.source, facts.usage.input_tokens), (source, 26), "{asked}: {body}");
        }
    }
}

const EVENTS: &[(&str, &str)] = &[("content-type", "text/event-stream")];

const INCREMENTS: &str = concat!(
    r#"data: {"choices":[{"delta":{"content":"","reasoning_content":null,"role":"assistant"},"finish_reason":null,"index":0}],"model":"@cf/google/gemma-4-26b-a4b-it-external","object":"chat.completion.chunk","p":"x","usage":{"prompt_tokens":147,"completion_tokens":0,"total_tokens":147,"prompt_tokens_details":{"cached_tokens":0},"neurons":1.3363635540008545}}"#,
    "\n\n",
    r#"data: {"choices":[{"delta":{"content":"a","reasoning_content":null}}],"usage":{"prompt_tokens":0,"completion_tokens":1,"total_tokens":1,"neurons":0.027272727340459824}}"#,
    "\n\n",
    r#"data: {"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":1,"total_tokens":1,"neurons":0.027272727340459824}}"#,
    "\n\n",
);
const CLOSE: &str = concat!(
    r#"data: {"response":"","usage":{"prompt_tokens":147,"completion_tokens":16,"total_tokens":163,"prompt_tokens_details":{"cached_tokens":0},"neurons":1.7727271914482117}}"#,
    "\n\ndata: [DONE]\n\n",
);

#[tokio::test]
async fn increments_and_a_native_close_come_out_right_at_every_split() {
    let stream = format!("{INCREMENTS}{CLOSE}");
    for piece in [1, 7, 64, 1000, stream.len()] {
        let (facts, bytes) =
            metered("@cf/google/gemma-4-26b-a4b-it", Endpoint::ChatCompletions, EVENTS, &stream, piece).await;
        assert_eq!((facts.usage.input_tokens, facts.usage.output_tokens), (147, 16));
        assert_eq!((facts.cost.neurons.micro(), facts.cost.source), (1_772_727, Source::Reported));
        assert_eq!(bytes, stream.as_bytes(), "in pieces of {piece}");
    }
}

#[tokio::test]
async fn a_stream_that_dies_among_increments_is_charged_for_what_flowed() {
    let (facts, _) = metered("@cf/google/gemma-4-26b-a4b-it", Endpoint::ChatCompletions, EVENTS, INCREMENTS, 50).await;
    assert_eq!((facts.usage.input_tokens, facts.usage.output_tokens), (147, 2));
    assert_eq!(facts.cost.neurons.micro(), 1_336_364 + 2 * 27_273 - 1, "1.33636… and twice 0.02727…");
}

const RUNNING: &str = concat!(
    r#"data: {"id":"x","status":"processing","usage":{"prompt_tokens":0,"completion_tokens":0,"neurons":0}}"#,
    "\n\n",
    r#"data: {"mode":"replace","name":"input_tokens","value":749,"usage":{"prompt_tokens":749,"completion_tokens":0,"neurons":20.42727279663086}}"#,
    "\n\n",
    r#"data: {"mode":"replace","name":"output_tokens","value":54,"usage":{"prompt_tokens":749,"completion_tokens":54,"neurons":25.33636474609375}}"#,
    "\n\n",
    r#"data: {"chunk":{"answer":"words"},"index":0,"usage":{"prompt_tokens":0,"completion_tokens":0,"neurons":0}}"#,
    "\n\n",
    r#"data: {"id":"x","status":"succeeded","metrics":{"input_tokens":749,"output_tokens":54},"output":["words"],"usage":{"prompt_tokens":0,"completion_tokens":0,"neurons":0}}"#,
    "\n\n",
    r#"data: {"response":"","usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0,"neurons":45.76363754272461}}"#,
    "\n\ndata: [DONE]\n\n",
);

#[tokio::test]
async fn a_running_stream_whose_close_disagrees_is_the_vendors_word_and_a_drift() {
    let (facts, _) = metered("@cf/moondream/moondream3.1-9B-A2B", Endpoint::Run, EVENTS, RUNNING, 33).await;
    assert_eq!((facts.usage.input_tokens, facts.usage.output_tokens), (749, 54));
    assert_eq!((facts.cost.neurons.micro(), facts.cost.source), (45_763_638, Source::Reported));
    assert!((facts.cost.drift().unwrap() - 1.806).abs() < 0.001, "{:?}", facts.cost);
}

#[tokio::test]
async fn a_stream_without_usage_is_estimated_and_says_so() {
    let stream = "data: {\"response\":\"twelve bytes\",\"p\":\"x\"}\n\ndata: [DONE]\n\n";
    let (facts, _) = metered("@cf/meta/llama-3.2-1b-instruct", Endpoint::Run, EVENTS, stream, 9).await;
    assert_eq!((facts.usage.output_tokens, facts.cost.source), (3, Source::Estimated));
    assert!(!facts.cost.neurons.is_zero());
}

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

#[tokio::test]
async fn usage_is_found_wherever_it_lies() {
    for (model, body, tokens) in [
        (
            "@cf/baai/bge-reranker-base",
            r#"{"result":{"response":[{"id":0,"score":0.744}],"usage":{"prompt_tokens":34,"completion_tokens":0,"total_tokens":34}},"success":true}"#,
            (34, 0),
        ),
        (
            "@cf/moondream/moondream3.1-9B-A2B",
            r#"{"result":{"answer":"x","metrics":{"input_tokens":1612,"output_tokens":9}}}"#,
            (1612, 9),
        ),
        (
            "@cf/cloudflare/clef",
            r#"{"result":{"answers":{"a":1},"usage":{"input_tokens":346,"output_tokens":0}}}"#,
            (346, 0),
        ),
        (
            "@cf/qwen/qwen3-embedding-0.6b",
            r#"{"result":{"data":[[0.1,0.2]],"shape":[1,2],"usage":{"prompt_tokens":3}}}"#,
            (3, 0),
        ),
    ] {
        let (facts, bytes) = metered(model, Endpoint::Run, JSON, body, 11).await;
        assert_eq!((facts.usage.input_tokens, facts.usage.output_tokens), tokens, "{model}");
        assert_eq!((facts.cost.source, &*bytes), (Source::Computed, body.as_bytes()), "{model}");
    }
}

#[tokio::test]
async fn sound_is_priced_by_the_duration_that_the_reply_tells() {
    let whisper = r#"{"result":{"text":"x","transcription_info":{"language":"en","duration":90.5}}}"#;
    let (facts, _) = metered("@cf/openai/whisper", Endpoint::Run, JSON, whisper, 100).await;
    assert_eq!(facts.cost.neurons.micro(), 62_052_833, "62,052,833.3 to the nearest");
}

#[tokio::test]
async fn the_head_ranks_between_the_body_and_the_table() {
    let reply = |neurons: &'static str| [("content-type", "application/json"), ("cf-ai-neurons", neurons)];
    let body = r#"{"result":{"response":"x","usage":{"prompt_tokens":26,"completion_tokens":18}}}"#;
    let llama = "@cf/meta/llama-3.2-1b-instruct";
    for (word, source, neurons) in [
        ("0.39", Source::Computed, 392_418),
        ("0.00", Source::Reported, 0),
        ("0.47", Source::Reported, 470_000),
        ("nonsense", Source::Computed, 392_418),
    ] {
        let (facts, _) = metered(llama, Endpoint::Run, &reply(word), body, 100).await;
        assert_eq!((facts.cost.source, facts.cost.neurons.micro()), (source, neurons), "{word}");
    }
    let with_own = r#"{"result":{"response":"x","usage":{"prompt_tokens":26,"completion_tokens":18,"neurons":0.4}}}"#;
    let (facts, _) = metered(llama, Endpoint::Run, &reply("0.47"), with_own, 100).await;
    assert_eq!(facts.cost.neurons.micro(), 400_000, "the body beats the head");
    let inpainting = "@cf/runwayml/stable-diffusion-v1-5-inpainting";
    let (facts, _) =
        metered(inpainting, Endpoint::Run, &[("content-type", "image/png"), ("cf-ai-neurons", "0.00")], "png", 9).await;
    assert_eq!((facts.cost.source, facts.cost.neurons.micro()), (Source::Reported, 0), "a model without a price");
}

#[tokio::test]
async fn a_gateways_cache_hit_costs_nothing() {
    let head = [("content-type", "application/json"), ("cf-aig-cache-status", "HIT"), ("cf-ai-neurons", "5.00")];
    let body = r#"{"result":{"response":"x","usage":{"prompt_tokens":26,"completion_tokens":18}}}"#;
    let (facts, _) = metered("@cf/meta/llama-3.2-1b-instruct", Endpoint::Run, &head, body, 100).await;
    assert_eq!((facts.cost.source, facts.cost.neurons.micro()), (Source::Reported, 0));
}

#[test]
fn an_unlisted_models_ask_has_no_price() {
    let catalogue = Catalogue::default();
    let model = catalogue.find("@cf/acme/x", Task::TextGeneration);
    assert_eq!(crate::receipt::Estimate::new(&Ask::default(), &model).upper, None);
    drop(Arc::new(model));
}
