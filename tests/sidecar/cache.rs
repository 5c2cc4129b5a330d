//! Never pay twice: over real sockets.

use serde_json::{Value, json};
use tollgate::receipt::CacheStatus;
use tollgate::simulator::{Fault, FaultRule, Settings, Trouble};

use crate::support::{Gate, LLAMA, config, start, vendor};

/// A simulator slow enough that calls are in flight together.
fn slow() -> Gate {
    let mut settings = Settings::default();
    (settings.latency, settings.rate_limits) = (1.0, false);
    Gate::with(tollgate::simulator::start(settings).unwrap(), |_| {})
}

#[tokio::test]
async fn a_thousand_identical_calls_are_one() {
    let gate = slow();
    let body = json!({"prompt": "the same for all", "temperature": 0});
    let calls: Vec<_> = (0..1000)
        .map(|_| {
            let request = gate.post(&format!("/run/{LLAMA}"), &body);
            tokio::spawn(async move { request.send().await.unwrap().text().await.unwrap() })
        })
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    assert_eq!(gate.vendor.counts().attempts, 1);
    assert!(answers.iter().all(|answer| *answer == answers[0] && answer.contains("response")));
    let receipts = gate.receipts.after(1000).await;
    let cost: u64 = receipts.iter().map(|facts| facts.cost.neurons.micro()).sum();
    assert_eq!(cost, gate.vendor.counts().neurons().micro(), "one pays");
    let free = receipts.iter().filter(|facts| facts.saved.micro() == cost).count();
    assert_eq!(free, 999);
}

#[tokio::test]
async fn a_thousand_identical_streams_are_one_though_half_leave() {
    let gate = slow();
    let body = json!({"prompt": "a long tale for all", "stream": true, "max_tokens": 40, "seed": 7});
    let calls: Vec<_> = (0..1000)
        .map(|n| {
            let request = gate.post(&format!("/run/{LLAMA}"), &body);
            tokio::spawn(async move {
                let mut reply = request.send().await.unwrap();
                let mut text = reply.chunk().await.unwrap().unwrap().to_vec();
                // The first to come is among those who leave.
                if n % 2 == 0 {
                    return None;
                }
                while let Some(chunk) = reply.chunk().await.unwrap() {
                    text.extend_from_slice(&chunk);
                }
                Some(text)
            })
        })
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.extend(call.await.unwrap());
    }
    assert_eq!((gate.vendor.counts().attempts, answers.len()), (1, 500));
    assert!(answers.iter().all(|answer| *answer == answers[0] && answer.ends_with(b"data: [DONE]\n\n")));
    let again = gate.run(LLAMA, &body).await;
    assert_eq!(again.headers()["cf-aig-cache-status"], "HIT");
    assert!(again.headers().contains_key("age") && again.bytes().await.unwrap() == answers[0]);
}

#[tokio::test]
async fn a_stream_and_an_answer_are_not_mixed_up() {
    let gate = Gate::start();
    let messages = json!([{"role": "user", "content": "hi"}]);
    for stream in [false, true, false, true] {
        let body = json!({"model": LLAMA, "messages": messages, "stream": stream, "temperature": 0});
        let reply = gate.post("/v1/chat/completions", &body).send().await.unwrap();
        let kind = reply.headers()["content-type"].to_str().unwrap().to_owned();
        assert_eq!(kind.starts_with("text/event-stream"), stream);
        reply.bytes().await.unwrap();
    }
    assert_eq!(gate.vendor.counts().attempts, 2);
}

#[tokio::test]
async fn of_a_thousand_texts_the_hundred_unknown_go_upstream() {
    let gate = Gate::start();
    let text = |n: usize| format!("document number {n}");
    let vector_of = |reply: &Value, place: usize| reply["data"][place]["embedding"].clone();
    let embed = |texts: Vec<String>| {
        let request = gate.post("/v1/embeddings", &json!({"model": "@cf/baai/bge-m3", "input": texts}));
        async move {
            let reply = request.send().await.unwrap();
            let status = reply.headers()["cf-aig-cache-status"].to_str().unwrap().to_owned();
            (status, reply.json::<Value>().await.unwrap())
        }
    };
    let (status, known) = embed((0..900).map(text).collect()).await;
    assert_eq!(status, "MISS");
    // Every tenth is new, and the rest come in another order.
    let order: Vec<usize> =
        (0..1000).map(|place| if place % 10 == 0 { 900 + place / 10 } else { (place * 7) % 900 }).collect();
    let (status, reply) = embed(order.iter().copied().map(text).collect()).await;
    assert_eq!(status, "PARTIAL");
    let asked: Value = serde_json::from_slice(&gate.vendor.seen().pop().unwrap().body).unwrap();
    assert_eq!(asked["input"].as_array().unwrap().len(), 100);
    for (place, n) in order.iter().enumerate() {
        assert_eq!(reply["data"][place]["index"], place);
        if *n < 900 {
            assert_eq!(vector_of(&reply, place), vector_of(&known, *n), "place {place}");
        }
    }
    // The new ones too: asked for directly, they are the same.
    let (_, alone) = embed(vec![text(950)]).await;
    assert_eq!(vector_of(&alone, 0), vector_of(&reply, 500));
    let sent: u64 = asked["input"].as_array().unwrap().len() as u64;
    assert!(reply["usage"]["prompt_tokens"].as_u64().unwrap() < sent * 12, "usage is that of what went upstream");
    let last = gate.receipts.after(3).await.pop().unwrap();
    assert_eq!(last.cache, CacheStatus::Hit);
}

#[tokio::test]
async fn trouble_is_never_served_again() {
    let gate = Gate::start();
    let body = |stream: bool| json!({"prompt": "trouble", "stream": stream, "temperature": 0});
    for trouble in
        [Trouble::Error(3040), Trouble::Error(500), Trouble::Reset, Trouble::DieMid, Trouble::StreamError(3007)]
    {
        for stream in [false, true] {
            gate.vendor.fault(FaultRule::always(Fault::new(trouble)));
            if let Ok(reply) = gate.post(&format!("/run/{LLAMA}"), &body(stream)).send().await {
                assert_ne!(reply.headers().get("cf-aig-cache-status").map(|v| v.as_bytes()), Some(b"HIT".as_slice()));
                let _ = reply.bytes().await;
            }
            gate.vendor.clear_faults();
            let skip = gate.post(&format!("/run/{LLAMA}"), &body(stream)).header("cf-aig-cache-ttl", "0");
            skip.send().await.unwrap().bytes().await.unwrap();
        }
    }
    let reply = gate.run(LLAMA, &body(false)).await;
    assert_eq!(reply.headers()["cf-aig-cache-status"], "MISS");
}

#[tokio::test]
async fn the_admin_port_purges_and_a_restart_keeps_what_is_warm() {
    let vendor = vendor();
    let folder = tempfile::tempdir().unwrap();
    let begin = || {
        let mut config = config(&vendor.base_url());
        config.cache.path = Some(folder.path().join("tollgate.cache"));
        start(config).0
    };
    let client = crate::support::client();
    let status = async |sidecar: &tollgate::sidecar::Sidecar| {
        let url = format!("http://{}/run/{LLAMA}", sidecar.listen());
        let reply =
            crate::support::ask(&client, &url, &json!({"prompt": "warm", "temperature": 0})).send().await.unwrap();
        reply.headers()["cf-aig-cache-status"].to_str().unwrap().to_owned()
    };
    let first = begin();
    assert_eq!(status(&first).await, "MISS");
    tokio::task::spawn_blocking(move || first.join().unwrap()).await.unwrap();
    let second = begin();
    assert_eq!(status(&second).await, "HIT");
    let cache = format!("http://{}/cache", second.admin());
    let size: Value = client.get(&cache).send().await.unwrap().json().await.unwrap();
    assert_eq!(size["entries"], 1);
    assert_eq!(client.delete(format!("{cache}?modle=x")).send().await.unwrap().status(), 400);
    client.delete(format!("{cache}?model={LLAMA}")).send().await.unwrap();
    assert_eq!(status(&second).await, "MISS");
    client.delete(&cache).send().await.unwrap();
    assert_eq!(status(&second).await, "MISS");
}

#[tokio::test]
async fn regenerate_regenerates_and_four_pictures_are_four() {
    const FLUX: &str = "@cf/black-forest-labs/flux-1-schnell";
    let gate = Gate::start();
    for (model, body) in [(LLAMA, json!({"prompt": "a tale"})), (FLUX, json!({"prompt": "a cat"}))] {
        let before = gate.vendor.counts().attempts;
        let four: Vec<_> = (0..4).map(|_| tokio::spawn(gate.post(&format!("/run/{model}"), &body).send())).collect();
        for reply in four {
            let reply = reply.await.unwrap().unwrap();
            assert_eq!(reply.headers()["cf-aig-cache-status"], "BYPASS");
            reply.bytes().await.unwrap();
        }
        assert_eq!(gate.vendor.counts().attempts - before, 4, "{model}");
        // Who asks for it gets the same again.
        for status in ["MISS", "HIT"] {
            let request = gate.post(&format!("/run/{model}"), &body).header("cf-aig-cache-ttl", "60");
            let reply = request.send().await.unwrap();
            assert_eq!(reply.headers()["cf-aig-cache-status"], status, "{model}");
            reply.bytes().await.unwrap();
        }
    }
}
