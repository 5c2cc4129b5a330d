//! Sessions with the vendor's prefix cache, and what they save.

use serde_json::{Value, json};
use tollgate::catalogue::Catalogue;
use tollgate::neurons::Neurons;
use tollgate::upstream::SessionBy;
use tollgate::usage::Usage;

use crate::support::{GEMMA, Gate, vendor};

const CHAT: &str = "/v1/chat/completions";
const CONVERSATIONS: usize = 6;
const TURNS: usize = 5;

/// Some conversations of several turns, as they are sent: each with all that was said before. Half of them have a long system
/// prompt in common, the others a short one.
fn conversations() -> Vec<Value> {
    let mut sent = Vec::new();
    for turn in 0..TURNS {
        for n in 0..CONVERSATIONS {
            let rules =
                if n % 2 == 0 { "Answer by the rules of the house. ".repeat(120) } else { "Be brief.".to_owned() };
            let mut messages = vec![json!({"role": "system", "content": rules})];
            for past in 0..=turn {
                let asked =
                    format!("Question {past} of conversation {n}: {}", "what else is there to know? ".repeat(20));
                messages.push(json!({"role": "user", "content": asked}));
                if past < turn {
                    let answer = format!("Answer {past} of {n}. {}", "There is this to know. ".repeat(20));
                    messages.push(json!({"role": "assistant", "content": answer}));
                }
            }
            sent.push(json!({"model": GEMMA, "messages": messages, "max_tokens": 8}));
        }
    }
    sent
}

/// What one prefix cache that forgets nothing would have of each call: blocks of 64 tokens of five bytes, as the simulator has them.
fn bound(calls: &[Value]) -> u64 {
    let texts = |call: &Value| -> String {
        let said = call["messages"].as_array().unwrap().iter().map(|message| message["content"].as_str().unwrap());
        said.collect::<Vec<_>>().join("\n")
    };
    let texts: Vec<_> = calls.iter().map(texts).collect();
    let same = |a: &str, b: &str| a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count() as u64;
    let known = |n: usize| texts[..n].iter().map(|before| same(before, &texts[n])).max().unwrap_or(0);
    (0..texts.len()).map(|n| known(n) / 5 / 64 * 64).sum()
}

/// Tokens read, those of them that were cached, and what reading cost.
async fn read(by: SessionBy) -> (u64, u64, Neurons, Gate) {
    let gate = Gate::with(vendor(), |config| config.upstream.session_affinity = by);
    let calls = conversations();
    for call in &calls {
        let reply = gate.post(CHAT, call).send().await.unwrap();
        assert_eq!(reply.status(), 200);
        reply.bytes().await.unwrap();
    }
    let receipts = gate.receipts.after(calls.len()).await;
    let prices = Catalogue::default().get(GEMMA).unwrap().prices.clone();
    let sum = |figure: fn(&Usage) -> u64| receipts.iter().map(|facts| figure(&facts.usage)).sum();
    let (input, cached) = (sum(|usage| usage.input_tokens), sum(|usage| usage.cached_input_tokens));
    let cost = |usage: &Usage| prices.cost(&Usage::tokens(usage.input_tokens, usage.cached_input_tokens, 0));
    let cost = receipts.iter().map(|facts| cost(&facts.usage)).sum();
    (input, cached, cost, gate)
}

#[tokio::test]
async fn conversations_are_read_from_the_prefix_cache_as_far_as_it_goes() {
    let (input, none, plain, _) = read(SessionBy::Off).await;
    let (_, cached, cost, gate) = read(SessionBy::Auto).await;
    let bound = bound(&conversations());
    let least = {
        let prices = Catalogue::default().get(GEMMA).unwrap().prices.clone();
        prices.cost(&Usage::tokens(input, bound, 0))
    };
    println!(
        "{input} tokens read: {cached} cached of at most {bound} ({:.1} %); they cost {cost} neurons instead of {plain}, at least {least}",
        100.0 * cached as f64 / bound as f64
    );
    assert_eq!(none, 0);
    assert!(cached <= bound && cached * 100 >= bound * 95, "{cached} of {bound}");
    assert!(cost < plain);
    // The saving is on the receipts, in the metrics and on the page.
    let saved: Neurons = gate.receipts.all().iter().map(|facts| facts.saved_by_prefix()).sum();
    assert_eq!(saved, plain.saturating_sub(cost));
    let metric = format!("tollgate_prefix_saved_neurons_total{{model=\"{GEMMA}\"}} ");
    let metrics = gate.metrics().await;
    let line = metrics.lines().find_map(|line| line.strip_prefix(&metric)).unwrap();
    assert!((line.parse::<f64>().unwrap() - saved.as_f64()).abs() < 1e-6, "{line} {saved}");
    let page = gate.client.get(format!("http://{}/", gate.sidecar.admin())).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("prefix-saved"), "{page}");
    // No text left by it: a session is 32 hexadecimal digits.
    for seen in gate.vendor.seen() {
        let session = seen.headers["x-session-affinity"].to_str().unwrap();
        assert!(session.len() == 32 && session.bytes().all(|byte| byte.is_ascii_hexdigit()), "{session}");
    }
}

#[tokio::test]
async fn a_client_s_own_session_wins_and_without_the_setting_none_is_sent() {
    let call = &conversations()[0];
    let auto = Gate::with(vendor(), |config| config.upstream.session_affinity = SessionBy::Auto);
    auto.post(CHAT, call).header("x-session-affinity", "mine").send().await.unwrap().bytes().await.unwrap();
    assert_eq!(auto.vendor.seen()[0].headers["x-session-affinity"], "mine");
    let off = Gate::start();
    off.post(CHAT, call).send().await.unwrap().bytes().await.unwrap();
    assert!(!off.vendor.seen()[0].headers.contains_key("x-session-affinity"));
}
