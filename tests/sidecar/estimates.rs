//! Estimates that get good by themselves.

use std::time::Duration;

use serde_json::json;

use crate::support::{GEMMA, Gate, LLAMA, vendor};

const SUBJECTS: [&str; 6] = [
    "internationalization of administrative procedures",
    "the cat sat on the mat and it was all in the sun",
    "SELECT id, total_cents FROM invoices WHERE paid_at IS NULL AND due < '2026-11-24';",
    "Grüße aus München, schöne Größe über Straßen",
    "東京の橋と静かな川について教えてください",
    "12,345.67 + 89 = ? Then 2026-01-31T23:59:59Z.",
];

/// Prompts of all lengths, scripts and numbers of messages.
fn body(model: &str, n: usize) -> serde_json::Value {
    let turns = 1 + n % 5;
    let message = |turn: usize| {
        let text = format!("{} ", SUBJECTS[(n * 7 + turn) % SUBJECTS.len()]).repeat(1 + (n * 31 + turn * 13) % 24);
        json!({"role": if turn.is_multiple_of(2) { "user" } else { "assistant" }, "content": text})
    };
    json!({"model": model, "messages": (0..turns).map(message).collect::<Vec<_>>(), "max_tokens": 8})
}

#[tokio::test]
async fn after_two_hundred_calls_the_median_is_off_by_less_than_a_tenth() {
    for model in [LLAMA, GEMMA, "@cf/mistralai/mistral-small-3.1-24b-instruct"] {
        let gate = Gate::with(vendor(), |config| config.cache.ttl = Duration::ZERO);
        for n in 0..300 {
            gate.post("/v1/chat/completions", &body(model, n)).send().await.unwrap().bytes().await.unwrap();
        }
        let receipts = gate.receipts.after(300).await;
        let off = |facts: &tollgate::receipt::Facts| {
            (facts.estimate.unwrap().input_tokens as f64 / facts.usage.input_tokens as f64 - 1.0).abs()
        };
        let mut late: Vec<f64> = receipts[200..].iter().map(off).collect();
        late.sort_by(f64::total_cmp);
        println!("{model}: median |estimated / real - 1| = {:.3}, worst {:.3}", late[50], late[99]);
        assert!(late[50] < 0.10, "{model}: {}", late[50]);
        // The bound that budgets reserve is never passed.
        assert!(receipts.iter().all(|facts| facts.estimate.unwrap().upper.unwrap() >= facts.cost.neurons), "{model}");
    }
}
