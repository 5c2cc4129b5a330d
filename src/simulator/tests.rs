use serde_json::{Value, json};

use super::{Coercion, Fault, FaultRule, Running, Settings, Trouble, Writes, start};

fn quick() -> Running {
    start(Settings { latency: 0.0, ..Settings::default() }).unwrap()
}

async fn post(running: &Running, path: &str, headers: &[(&str, &str)], body: Value) -> (u16, http::HeaderMap, String) {
    let client = reqwest::Client::builder().tls_backend_preconfigured(crate::upstream::tls()).build().unwrap();
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

/// The worst that a request may cost, in micro-neurons.
async fn worst(model: &str, body: Value) -> u64 {
    let settings =
        Settings { latency: 0.0, writes: Writes::ToTheLimit, coercion: Coercion::Dear, ..Settings::default() };
    let running = start(settings).unwrap();
    let (status, _, text) = post(&running, &format!("run/{model}"), &[], body).await;
    assert_eq!(status, 200, "{text}");
    running.counts().neurons().micro()
}

#[tokio::test]
async fn without_a_limit_a_model_writes_to_the_end_of_its_window() {
    // 256,000 tokens of which a few were read, at 27,273 micro-neurons.
    let gemma = worst("@cf/google/gemma-4-26b-a4b-it", json!({"prompt": "a"})).await;
    assert!((6_970_000_000..6_990_000_000).contains(&gemma), "{gemma}");
    let twice = worst("@cf/google/gemma-4-26b-a4b-it", json!({"prompt": "a", "n": "2", "max_tokens": null})).await;
    assert!(twice > gemma + gemma / 2, "{twice}");
    // 256 by default, at 18,252.
    let llama = worst("@cf/meta/llama-3.2-1b-instruct", json!({"prompt": "a", "requests": []})).await;
    assert!((256 * 18_252..260 * 18_252).contains(&llama), "{llama}");
}

#[tokio::test]
async fn a_reset_is_a_reset() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let running = quick();
    let body = "{\"prompt\":\"x\"}";
    let request = format!(
        "POST /client/v4/accounts/acc/ai/run/@cf/meta/llama-3.2-1b-instruct HTTP/1.1\r\nhost: x\r\nx-simulate: reset\r\n\
         authorization: Bearer t\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut socket = tokio::net::TcpStream::connect(running.address()).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let error = socket.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn who_rejects_if_busy_is_told_at_once() {
    let running = quick();
    running.fault(FaultRule::always(Fault::new(Trouble::Busy)));
    let path = "run/@cf/meta/llama-3.2-1b-instruct";
    assert_eq!(post(&running, path, &[], json!({"prompt": "x"})).await.0, 200);
    let (status, _, text) = post(&running, path, &[], json!({"prompt": "x", "options": {"rejectIfBusy": true}})).await;
    assert_eq!(status, 429);
    assert!(text.contains("3040"), "{text}");
}

#[tokio::test]
async fn a_moondream_streams_in_its_own_way_unless_asked_not_to() {
    let running = quick();
    let path = "run/@cf/moondream/moondream3.1-9B-A2B";
    let (_, headers, text) = post(&running, path, &[], json!({"prompt": "x"})).await;
    assert_eq!(headers["content-type"], "text/event-stream");
    assert!(text.contains("\"mode\":\"replace\"") && text.ends_with("data: [DONE]\n\n"), "{text}");
    let (_, _, text) = post(&running, path, &[], json!({"prompt": "x", "stream": false})).await;
    assert!(text.contains("\"answer\""), "{text}");
}

#[tokio::test]
async fn errors_come_late_and_in_answers() {
    let running = quick();
    let stream = || json!({"model": "@cf/meta/llama-3.2-1b-instruct", "messages": [], "stream": true});
    let chat = "v1/chat/completions";
    let (_, _, text) = post(&running, chat, &[("x-simulate", "stream-error;at=2;form=list")], stream()).await;
    let events: Vec<_> = text.split("\n\n").filter(|event| !event.is_empty()).collect();
    assert_eq!(events.len(), 3, "{text}");
    assert!(events[2].contains("\"error\":[{\"code\":3040"), "{text}");
    let (_, _, text) = post(&running, chat, &[("x-simulate", "no-end")], stream()).await;
    assert!(!text.contains("[DONE]"), "{text}");
    let (status, _, text) = post(&running, chat, &[("x-simulate", "error-in-200;form=null-errors")], stream()).await;
    assert_eq!(status, 200);
    assert!(text.contains("\"errors\":null"), "{text}");
    let (_, _, text) = post(&running, chat, &[("x-simulate", "choice-error")], stream()).await;
    assert!(text.contains("\"finish_reason\":\"error\""), "{text}");
    let asked = json!({"model": "@cf/meta/llama-3.2-1b-instruct", "input": "x", "stream": true});
    let (_, _, text) = post(&running, "v1/responses", &[("x-simulate", "response-failed")], asked).await;
    assert!(text.contains("event: response.failed"), "{text}");
}

#[tokio::test]
async fn tools_are_called_on_every_route_and_json_may_be_an_object() {
    let running = quick();
    let tool = json!({"type": "function", "name": "f", "parameters": {"type": "object"}});
    let asked = json!({"model": "@cf/openai/gpt-oss-20b", "input": "x", "tools": [tool]});
    let (_, _, text) = post(&running, "v1/responses", &[], asked).await;
    let reply: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&reply["output"][0]["type"], &reply["output"][0]["name"]), (&json!("function_call"), &json!("f")));
    let asked =
        json!({"model": "@cf/meta/llama-3.2-1b-instruct", "messages": [], "response_format": {"type": "json_object"}});
    let (_, _, text) = post(&running, "v1/chat/completions", &[], asked).await;
    let reply: Value = serde_json::from_str(&text).unwrap();
    assert!(reply["choices"][0]["message"]["content"].is_object(), "{text}");
}
