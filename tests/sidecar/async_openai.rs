//! async-openai, the Rust client: its base URL is the one line that changes.

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::types::chat::{
    ChatCompletionRequestMessage, ChatCompletionRequestUserMessage, ChatCompletionStreamOptions,
    CreateChatCompletionRequest,
};
use async_openai::types::embeddings::{CreateEmbeddingRequest, EmbeddingInput};
use futures_util::StreamExt;

use crate::support::{GEMMA, Gate, LLAMA, client};

fn openai(gate: &Gate) -> Client<OpenAIConfig> {
    let config = OpenAIConfig::new().with_api_base(gate.url("/v1")).with_api_key("any");
    Client::build(client(), config)
}

fn chat(model: &str, text: &str) -> CreateChatCompletionRequest {
    let message = ChatCompletionRequestUserMessage { content: text.into(), ..Default::default() };
    let messages = vec![ChatCompletionRequestMessage::User(message)];
    CreateChatCompletionRequest { model: model.into(), messages, ..Default::default() }
}

#[tokio::test]
async fn chats_streams_and_embeddings_are_read() {
    let gate = Gate::start();
    let openai = openai(&gate);
    for model in [LLAMA, GEMMA] {
        let whole = openai.chat().create(chat(model, "Why is the sky blue?")).await.unwrap();
        let text = whole.choices[0].message.content.clone().unwrap();
        let mut asked = chat(model, "Why is the sky blue?");
        asked.stream_options = Some(ChatCompletionStreamOptions { include_usage: Some(true), ..Default::default() });
        let mut stream = openai.chat().create_stream(asked).await.unwrap();
        let (mut streamed, mut usages) = (String::new(), Vec::new());
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.unwrap();
            streamed.extend(chunk.choices.into_iter().filter_map(|choice| choice.delta.content));
            usages.extend(chunk.usage);
        }
        assert_eq!(streamed, text, "{model}");
        assert_eq!(usages.len(), 1, "{model}");
        assert_eq!(usages[0].completion_tokens, whole.usage.unwrap().completion_tokens, "{model}");
    }
    let input = EmbeddingInput::StringArray(vec!["a".into(), "b".into()]);
    let request = CreateEmbeddingRequest { model: "@cf/baai/bge-m3".into(), input, ..Default::default() };
    assert_eq!(openai.embeddings().create(request).await.unwrap().data.len(), 2);
}

#[tokio::test]
async fn a_refusal_for_money_is_told_with_its_reason_and_not_tried_again() {
    let gate = Gate::with(crate::support::vendor(), |config| {
        let budget = "[[budgets]]\nname = 'nothing'\nlimit = '0.001 neurons'\nwindow = 'month'";
        config.budgets = tollgate::sidecar::config::Config::parse(budget, "test").unwrap().budgets;
    });
    let error = openai(&gate).chat().create(chat(LLAMA, "hello")).await.unwrap_err();
    let OpenAIError::ApiError(error) = error else { panic!("{error:?}") };
    assert!(format!("{error:?}").contains("budget"), "{error:?}");
    assert_eq!(gate.receipts.after(1).await.len(), 1);
}

#[tokio::test]
async fn a_limit_that_time_mends_is_tried_again() {
    let gate = Gate::with(crate::support::vendor(), |config| {
        let limits = format!("[limits]\nmax_wait = '0s'\n[limits.models.'{LLAMA}']\nrequests = 1\nper = '1s'");
        config.limits = tollgate::sidecar::config::Config::parse(&limits, "test").unwrap().limits;
    });
    let openai = openai(&gate);
    for n in 0..2 {
        let reply = openai.chat().create(chat(LLAMA, &format!("turn {n}"))).await.unwrap();
        assert!(reply.choices[0].message.content.is_some());
    }
    assert!(gate.receipts.after(3).await.len() >= 3);
}
