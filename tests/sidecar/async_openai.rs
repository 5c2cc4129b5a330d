//! async-openai, the Rust client: its base URL is the one line that changes.

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::types::chat::{
    ChatCompletionResponseMessage, CreateChatCompletionRequest, CreateChatCompletionResponse,
};
use async_openai::types::embeddings::{CreateEmbeddingRequest, EmbeddingInput};
use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tollgate::receipt::Outcome;

use crate::harness;
use crate::support::{GEMMA, Gate, LLAMA, client};
use crate::twin::Twin;

const QWEN: &str = "@cf/qwen/qwen3-30b-a3b-fp8";
const VISION: &str = "@cf/meta/llama-3.2-11b-vision-instruct";
const ONE_A_SECOND: &str = "@cf/meta/llama-3.2-3b-instruct";
const PENNILESS: &str = "@cf/meta/llama-3.1-8b-instruct-fp8";

fn openai(url: &str, headers: &[(&'static str, &'static str)]) -> Client<OpenAIConfig> {
    let mut config = OpenAIConfig::new().with_api_base(url).with_api_key("any");
    for (name, value) in headers {
        config = config.with_header(*name, *value).unwrap();
    }
    Client::build(client(), config)
}

fn request(body: Value) -> CreateChatCompletionRequest {
    serde_json::from_value(body).unwrap()
}

fn ask(text: &str) -> Value {
    json!([{"role": "user", "content": text}])
}

async fn whole(url: &str, body: Value) -> Result<CreateChatCompletionResponse, OpenAIError> {
    openai(url, &[]).chat().create(request(body)).await
}

async fn said(url: &str, body: Value) -> ChatCompletionResponseMessage {
    whole(url, body).await.unwrap().choices.remove(0).message
}

async fn chat(url: String) {
    for model in [LLAMA, GEMMA, QWEN] {
        let reply = whole(&url, json!({"model": model, "messages": ask("Why is the sky blue?")})).await.unwrap();
        assert!(reply.choices[0].message.content.is_some() && reply.usage.unwrap().completion_tokens > 0, "{model}");
    }
}

async fn streams(url: String) {
    let styles = ["end", "running", "increments", "none"].map(|style| (LLAMA, Some(style)));
    for (model, style) in [(LLAMA, None), (GEMMA, None), (QWEN, None)].into_iter().chain(styles) {
        let headers: Vec<_> = style.map(|style| ("x-simulate-usage", style)).into_iter().collect();
        let body = json!({"model": model, "messages": ask("A tale.")});
        let whole = openai(&url, &headers).chat().create(request(body.clone())).await.unwrap();
        let mut asked = body;
        asked["stream_options"] = json!({"include_usage": true});
        let mut stream = openai(&url, &headers).chat().create_stream(request(asked)).await.unwrap();
        let (mut streamed, mut usages) = (String::new(), Vec::new());
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.unwrap();
            streamed.extend(chunk.choices.into_iter().filter_map(|choice| choice.delta.content));
            usages.extend(chunk.usage);
        }
        assert_eq!(Some(streamed), whole.choices[0].message.content, "{model} {style:?}");
        assert_eq!(usages.len(), 1, "{model} {style:?}");
        let (told, once) = (usages[0].completion_tokens, whole.usage.unwrap().completion_tokens);
        assert!(told == once || style == Some("none") && told > 0, "{model} {style:?}: {told} {once}");
    }
}

async fn tools(url: String) {
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    let tools = json!([{"type": "function", "function": {"name": "weather", "parameters": parameters}}]);
    for model in [LLAMA, GEMMA, QWEN] {
        let mut rounds = Vec::new();
        for city in ["Oslo", "Rome"] {
            rounds.push(json!({"role": "user", "content": format!("weather in {city}?")}));
            let called = said(&url, json!({"model": model, "messages": rounds, "tools": tools})).await;
            let call = serde_json::to_value(&called.tool_calls.unwrap()[0]).unwrap();
            assert_eq!(call["function"]["name"], "weather");
            let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
            assert!(arguments["city"].is_string(), "{call}");
            rounds.push(json!({"role": "assistant", "tool_calls": [call.clone()]}));
            rounds.push(json!({"role": "tool", "tool_call_id": call["id"], "content": "Rain."}));
            let answer = said(&url, json!({"model": model, "messages": rounds, "tools": tools})).await;
            rounds.push(json!({"role": "assistant", "content": answer.content.unwrap()}));
        }
    }
}

async fn structured(url: String) {
    let properties = json!({"name": {"type": "string"}, "age": {"type": "integer"}});
    let schema = json!({"type": "object", "properties": properties, "required": ["name", "age"]});
    let format = json!({"type": "json_schema", "json_schema": {"name": "person", "schema": schema}});
    for model in [LLAMA, GEMMA, QWEN] {
        let body = json!({"model": model, "messages": ask("somebody"), "response_format": format});
        let person: Value = serde_json::from_str(&said(&url, body).await.content.unwrap()).unwrap();
        assert!(person["name"].is_string() && person["age"].is_i64(), "{person}");
    }
}

async fn embeddings(url: String) {
    for model in ["@cf/baai/bge-m3", "@cf/qwen/qwen3-embedding-0.6b"] {
        let input = EmbeddingInput::StringArray(vec!["a".into(), "b".into()]);
        let asked = CreateEmbeddingRequest { model: model.into(), input, ..Default::default() };
        let reply = openai(&url, &[]).embeddings().create(asked).await.unwrap();
        assert!(reply.data.len() == 2 && reply.usage.prompt_tokens > 0, "{model}");
    }
}

async fn vision(url: String) {
    let pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let picture = json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{pixel}")}});
    let content = json!([{"type": "text", "text": "What is this?"}, picture]);
    for model in [VISION, GEMMA] {
        let body = json!({"model": model, "messages": [{"role": "user", "content": content}]});
        assert!(said(&url, body).await.content.is_some());
    }
}

async fn errors(url: String) {
    for simulate in ["5006", "10000", "5035;form=bare"] {
        let asked = request(json!({"model": LLAMA, "messages": ask(simulate)}));
        let error = openai(&url, &[("x-simulate", simulate)]).chat().create(asked).await.unwrap_err();
        let OpenAIError::ApiError(error) = error else { panic!("{simulate}: {error:?}") };
        assert!(format!("{error:?}").contains(&simulate[..4]), "{simulate}: {error:?}");
    }
    let error = whole(&url, json!({"model": PENNILESS, "messages": ask("spend")})).await.unwrap_err();
    let OpenAIError::ApiError(error) = error else { panic!("{error:?}") };
    assert!(format!("{error:?}").contains("budget"), "{error:?}");
}

/// Calls until one was refused before it was answered: on a slow machine a call may take longer than its turn.
async fn obeyed(url: &str, gate: &Gate) {
    let is_refused = |facts: &tollgate::receipt::Facts| facts.outcome == Outcome::RateLimited;
    let before = gate.receipts.all().iter().filter(|facts| is_refused(facts)).count();
    for n in 0..20 {
        let body = json!({"model": ONE_A_SECOND, "messages": ask(&format!("turn {n}"))});
        // It asks three times more, each after a time of its own: it reads no `retry-after`.
        match whole(url, body).await {
            Ok(reply) => assert!(reply.choices[0].message.content.is_some()),
            Err(error) => assert!(format!("{error:?}").contains("rate"), "{error:?}"),
        }
        if gate.receipts.all().iter().filter(|facts| is_refused(facts)).count() > before {
            return;
        }
    }
    panic!("no call came before its turn");
}

async fn cancelled(url: &str, gate: &Gate) {
    let asked = request(json!({"model": LLAMA, "messages": ask("leave")}));
    let mut stream = openai(url, &[("x-simulate", "stall-mid")]).chat().create_stream(asked).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    drop(stream);
    let is_left = async || gate.receipts.all().iter().any(|facts| facts.outcome == Outcome::Aborted);
    crate::support::until(is_left).await;
}

async fn fifty(url: &str) {
    let bodies = (0..50).map(|n| json!({"model": LLAMA, "messages": ask(&format!("{n} at once"))}));
    let texts = join_all(bodies.map(|body| said(url, body))).await;
    assert!(texts.iter().all(|message| message.content.is_some()));
}

#[tokio::test]
async fn each_thing_is_as_openai_has_it_and_the_vendors_bytes_on_the_vendors_paths() {
    let (gate, plain) = (harness::gate(|_| {}), harness::plain());
    let twin = Twin::before(&plain);
    let (ours, vendors) = (gate.url("/v1"), format!("{}/client/v4/accounts/acc/ai/v1", twin.url));
    let mut tried = Vec::new();
    macro_rules! each {
        ($($thing:literal: $cell:ident,)*) => {$(
            $cell(ours.clone()).await;
            // What the client makes of the vendor's quirks is its own; the replies are compared.
            let _ = tokio::spawn($cell(vendors.clone())).await;
            tried.push($thing);
        )*};
    }
    each! {
        "chat": chat, "streams": streams, "tools": tools, "structured output": structured, "embeddings": embeddings,
        "vision": vision, "errors": errors,
    }
    obeyed(&ours, &gate).await;
    tried.push("429");
    cancelled(&ours, &gate).await;
    tried.push("cancel");
    fifty(&ours).await;
    tried.push("fifty at once");
    harness::is_whole("async-openai", |thing| tried.contains(&thing), &twin);
}
