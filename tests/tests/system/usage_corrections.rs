//! Sums of usage that decrease again after later events.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use shared::event::{ChatError, ChatFailed, Event, FailureStage, MessageCompleted, RecordingMode};
use shared::id::ChatId;
use shared::usage::Usage;
use tests::stack::{Stack, publish_again};
use tokio::time::{Instant, sleep};

/// A chat on the record, and how it was completed.
async fn recorded() -> anyhow::Result<(Stack, MessageCompleted)> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.finished_chat(&ann, "one").await?;
    let mut events = stack.settled().await?.events.into_iter();
    let completed = events.find_map(|event| match event {
        Event::MessageCompleted(event) => Some(*event),
        _ => None,
    });
    Ok((stack, completed.context("no chat was completed")?))
}

/// Another chat of the same conversation.
fn another(mut completed: MessageCompleted) -> MessageCompleted {
    completed.chat_id = ChatId::mint();
    let id = completed.chat_id.assistant_message();
    completed.message.iter_mut().for_each(|message| message.id = id);
    completed
}

async fn becomes(stack: &Stack, chat: ChatId, status: &str) -> anyhow::Result<()> {
    let (pool, deadline) = (stack.database().await?, Instant::now() + Duration::from_secs(30));
    let is = "SELECT EXISTS (SELECT FROM chats WHERE chat_id = $1 AND status = $2)";
    while !sqlx::query_scalar::<_, bool>(is).bind(chat.0).bind(status).fetch_one(&pool).await? {
        ensure!(Instant::now() < deadline, "chat {chat} never was {status}");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_completion_replaces_a_presumed_failure_in_the_counts() -> anyhow::Result<()> {
    let (stack, completed) = recorded().await?;
    let completed = another(completed);
    let orphaned = ChatFailed {
        chat_id: completed.chat_id,
        operation: completed.operation,
        conversation_id: completed.conversation_id,
        user_id: completed.user_id.clone(),
        key_id: completed.key_id,
        project_id: completed.project_id,
        gateway: completed.gateway.clone(),
        started_at: completed.started_at,
        failed_at: completed.finished_at,
        model: completed.model.clone(),
        stage: FailureStage::GatewayLost,
        error: ChatError::default(),
        message: None,
        usage: Usage::default(),
        media: None,
        time_to_first_token_ms: None,
        duration_ms: 1,
        upstream: None,
        attempts: Vec::new(),
        notes: Vec::new(),
        recording: RecordingMode::Full,
        traceparent: None,
        restored: None,
    };
    let chat = completed.chat_id;
    publish_again(&stack.jetstream().await?, &Event::ChatFailed(Box::new(orphaned))).await?;
    becomes(&stack, chat, "orphaned").await?;
    publish_again(&stack.jetstream().await?, &Event::MessageCompleted(Box::new(completed))).await?;
    becomes(&stack, chat, "completed").await?;
    let tables = stack.settled().await?.tables;
    let day = tables.usage_stats.values().next().context("no row")?;
    assert_eq!((day.api_calls, day.successful_calls, day.failed_calls), (2, 2, 0));
    Ok(())
}

#[tokio::test]
async fn a_conversation_is_moved_to_the_day_on_which_it_really_began() -> anyhow::Result<()> {
    let (stack, completed) = recorded().await?;
    let mut earlier = another(completed);
    earlier.started_at -= time::Duration::DAY;
    earlier.finished_at -= time::Duration::DAY;
    let chat = earlier.chat_id;
    publish_again(&stack.jetstream().await?, &Event::MessageCompleted(Box::new(earlier))).await?;
    becomes(&stack, chat, "completed").await?;
    let tables = stack.settled().await?.tables;
    let days: Vec<_> = tables.usage_stats.values().map(|day| (day.api_calls, day.conversations_created)).collect();
    assert_eq!(days, [(1, 1), (1, 0)]);
    Ok(())
}
