//! The unmodified client library async-openai.

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tests::stack::{MODEL, Stack};

#[tokio::test]
async fn async_openai_streams_and_lists_models() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let config = OpenAIConfig::new().with_api_base(stack.gateway.url("/v1")).with_api_key(&ann.token);
    let client = Client::build(harness::http::client(), config);
    let request = json!({"model": MODEL, "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let mut stream = client.chat().create_stream_byot::<_, Value>(request).await?;
    let mut text = String::new();
    while let Some(chunk) = stream.next().await {
        text.push_str(chunk?["choices"][0]["delta"]["content"].as_str().unwrap_or(""));
    }
    assert!(!text.is_empty());
    let models: Value = client.models().list_byot().await?;
    assert_eq!(models["object"], "list");
    let oracle = stack.settled().await?;
    assert!(oracle.tables.messages.values().any(|message| message.content == text));
    Ok(())
}
