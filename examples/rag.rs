//! Answers from documents: embeds them, finds the nearest to a question, and asks a model with it. `cargo run --example rag`
//!
//! Embeddings are kept text by text, so that the second run over the same documents costs nothing for those that stayed.

mod common;

use std::io::Write;

use futures_util::StreamExt;
use serde_json::json;
use tollgate::client::WorkersAi;

const EMBEDDER: &str = "@cf/baai/bge-m3";
const WRITER: &str = "@cf/meta/llama-3.1-8b-instruct-fp8-fast";

const DOCUMENTS: [&str; 4] = [
    "Annual plans are refunded in full within thirty days of their purchase.",
    "The service is maintained on the first Tuesday of a month, between 02:00 and 03:00 UTC.",
    "A workspace may have up to fifty members on the team plan.",
    "Data is kept in the region that was chosen when the workspace was made.",
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (builder, _vendor) = common::builder()?;
    let ai = WorkersAi::new(builder.build()?);

    let known = ai.embed(EMBEDDER, &DOCUMENTS).await?;
    println!("{} documents embedded for {} neurons", known.vectors.len(), known.receipt.cost.neurons);
    let again = ai.embed(EMBEDDER, &[&DOCUMENTS[..], &["One more."]].concat()).await?;
    println!("with one more: {} neurons, cache {:?}", again.receipt.cost.neurons, again.receipt.cache.label());

    let question = "Can I have my money back?";
    let asked = ai.embed(EMBEDDER, &[question]).await?;
    let score = |vector: &Vec<f32>| cosine(vector, &asked.vectors[0]);
    let nearest = known.vectors.iter().zip(DOCUMENTS).max_by(|a, b| score(a.0).total_cmp(&score(b.0)));
    let document = nearest.map_or("", |(_, document)| document);
    println!("{question}\n  from: {document}");

    let prompt = format!("Answer from this alone: {document}\nQuestion: {question}");
    let mut chunks = ai.run_stream(WRITER, &json!({"prompt": prompt, "max_tokens": 80})).await?;
    print!("  ");
    while let Some(chunk) = chunks.next().await {
        print!("{}", chunk?.text);
        std::io::stdout().flush()?;
    }
    if let Some(receipt) = chunks.receipt() {
        println!(
            "\n  {} tokens read, {} written, {} neurons",
            receipt.usage.input_tokens, receipt.usage.output_tokens, receipt.cost.neurons
        );
    }
    Ok(())
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())
}
