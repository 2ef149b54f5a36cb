//! SIGTERM while chats stream: they finish, they are on the record, and the gateway exits with success.

use std::time::Duration;

use futures_util::future::join_all;
use harness::openai::{Answer, ChatRequest};
use harness::upstream::{Gate, Script, Step};
use tests::stack::Stack;

#[tokio::test]
async fn waits_for_the_running_chats() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let gate = Gate::new();
    let held = gate.clone();
    stack.upstream.respond_with(move |request| match ChatRequest::parse(&request.body) {
        Ok(chat) => Script::answer(&chat, &Answer::to(&chat, "slow but sure")).after(1, Step::Wait(held.clone())),
        Err(error) => Script::error(&error),
    });
    let chats = join_all((0..50).map(|n| stack.finished_chat(&ann, if n % 2 == 0 { "even" } else { "odd" })));
    let stopping = async {
        gate.reached(50).await;
        let stopped = stack.gateway.terminate(Duration::from_secs(30));
        let refused = async {
            while harness::http::client().get(stack.gateway.url("/health/live")).send().await.is_ok() {
                tokio::task::yield_now().await;
            }
            gate.open();
        };
        tokio::join!(stopped, refused).0
    };
    let (chats, status) = tokio::join!(chats, stopping);
    for chat in chats {
        assert!(chat?.1.ends_with("data: [DONE]\n\n"));
    }
    assert!(status?.success());
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.usage_stats.values().map(|day| day.successful_calls).sum::<i64>(), 50);
    Ok(())
}
