use serde_json::{Value, json};

use super::{Fault, FaultRule, Running, Settings, Trouble, start};

fn quick() -> Running {
    start(Settings { latency: 0.0, ..Settings::default() }).unwrap()
}

async fn post(running: &Running, path: &str, headers: &[(&str, &str)], body: Value) -> (u16, http::HeaderMap, String) {
    let client = reqwest::Client::builder().tls_backend_preconfigured(crate::upstream::client::tls()).build().unwrap();
    let url = format!("{}/client/v4/accounts/acc/ai/{path}", running.base_url());
    let mut request = client.post(url).header("authorization", "Bearer t").header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let reply = request.body(body.to_string()).send().await.unwrap();
    (reply.status().as_u16(), reply.headers().clone(), reply.text().await.unwrap())
}

#[tokio::test]
async fn the_same_question_gets_the_same_answer_and_bill() {
    let running = quick();
    let ask = || post(&running, "run/@cf/meta/llama-3.2-1b-instruct", &[], json!({"prompt": "Why is the sky blue?"}));
    let ((status, headers, first), (_, _, second)) = (ask().await, ask().await);
    assert_eq!((status, &first), (200, &second));
    let usage: Value = serde_json::from_str::<Value>(&first).unwrap()["result"]["usage"].clone();
    let (read, written) = (usage["prompt_tokens"].as_u64().unwrap(), usage["completion_tokens"].as_u64().unwrap());
    let micro = read * 2457 + written * 18252;
    assert_eq!(headers["cf-ai-neurons"], format!("{:.2}", micro as f64 / 1e6).as_str());
    assert_eq!(running.counts().neurons().micro(), 2 * micro);
}

#[tokio::test]
async fn trouble_comes_when_it_is_asked_for() {
    let running = quick();
    let body = || json!({"prompt": "x"});
    let path = "run/@cf/meta/llama-3.2-1b-instruct";
    let (status, _, text) = post(&running, path, &[("x-simulate", "3040;form=head")], body()).await;
    assert_eq!(status, 429);
    assert!(text.contains("\"3040: Capacity"), "{text}");
    running.fault(FaultRule::times(Fault::new(Trouble::Error(3021)), 1));
    assert_eq!(post(&running, path, &[], body()).await.0, 429);
    assert_eq!(post(&running, path, &[], body()).await.0, 200);
    let (status, _, text) =
        post(&running, path, &[("x-simulate", "stream-error")], json!({"prompt": "x", "stream": true})).await;
    assert_eq!(status, 200);
    assert!(text.starts_with("data: {\"errors\""), "{text}");
}

#[tokio::test]
async fn increments_sum_to_the_closing_total() {
    let running = quick();
    let body = json!({"model": "@cf/google/gemma-4-26b-a4b-it", "messages": [{"role": "user", "content": "hi"}], "stream": true});
    let (_, _, text) = post(&running, "v1/chat/completions", &[], body).await;
    let chunks: Vec<Value> =
        text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
    let (last, rest) = chunks.split_last().unwrap();
    let sum: u64 = rest.iter().filter_map(|chunk| chunk["usage"]["completion_tokens"].as_u64()).sum();
    assert_eq!(last["usage"]["completion_tokens"], sum);
    assert!(last.get("choices").is_none() && text.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_batch_is_queued_and_polled() {
    let running = quick();
    let path = "run/@cf/meta/llama-3.2-1b-instruct?queueRequest=true";
    let (status, _, text) = post(&running, path, &[], json!({"requests": [{"prompt": "a"}, {"prompt": "b"}]})).await;
    let queued: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &queued["result"]["status"]), (200, &json!("queued")));
    let (_, _, text) = post(&running, path, &[], json!({"request_id": queued["result"]["request_id"]})).await;
    let polled: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(polled["result"]["responses"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn every_listed_model_answers() {
    let running = quick();
    let catalogue = crate::catalogue::Catalogue::default();
    for model in catalogue.models().iter().filter(|model| model.deprecated.is_none()) {
        let body = json!({"prompt": "a river", "text": "a river", "audio": "UklGRg==", "contexts": [{"text": "x"}]});
        let (status, headers, text) = post(&running, &format!("run/{}", model.id), &[], body).await;
        assert_eq!(status, 200, "{}: {text}", model.id);
        assert!(headers.contains_key("cf-ai-req-id") && headers.contains_key("cf-ray"));
    }
}
