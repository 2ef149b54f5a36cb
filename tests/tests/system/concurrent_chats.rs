//! Many concurrent chats: each is counted once, with the right tokens.

use futures_util::StreamExt as _;
use futures_util::stream;
use tests::stack::Stack;

async fn count(chats: usize, at_once: usize) -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let done = stream::iter(0..chats).map(|n| {
        let (stack, ann) = (&stack, &ann);
        async move { stack.finished_chat(ann, &format!("question {n} {}", "word ".repeat(n % 7))).await }
    });
    for result in done.buffer_unordered(at_once).collect::<Vec<_>>().await {
        assert!(result?.1.ends_with("data: [DONE]\n\n"));
    }
    let oracle = stack.settled().await?;
    let counts = oracle.tables.usage_stats.values().fold((0, 0, 0), |(calls, ok, tokens), day| {
        (calls + day.api_calls, ok + day.successful_calls, tokens + day.total_tokens)
    });
    let chats = i64::try_from(chats)?;
    assert_eq!(counts, (chats, chats, i64::try_from(stack.upstream.served().usage.total_tokens())?));
    Ok(())
}

#[tokio::test]
async fn five_are_counted_as_five() -> anyhow::Result<()> {
    count(5, 5).await
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_over_fifty_connections_are_counted_as_five_hundred() -> anyhow::Result<()> {
    count(500, 50).await
}
