//! Outages of the database and of the recorders: chats stream as usual, and afterwards every chat is recorded.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;
use tests::stack::{Stack, User};

async fn chats(stack: &Stack, user: &User, count: usize) -> anyhow::Result<()> {
    let done = stream::iter(0..count).map(|n| async move { stack.finished_chat(user, &format!("{n}")).await });
    for result in done.buffer_unordered(10).collect::<Vec<_>>().await {
        assert!(result?.1.ends_with("data: [DONE]\n\n"));
    }
    Ok(())
}

async fn all_there(stack: &Stack, count: i64) -> anyhow::Result<()> {
    let oracle = stack.settled().await?;
    let calls: i64 = oracle.tables.usage_stats.values().map(|day| day.successful_calls).sum();
    assert_eq!(calls, count);
    Ok(())
}

#[tokio::test]
async fn of_the_database() -> anyhow::Result<()> {
    let mut stack = Stack::with_own_postgres().await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 5).await?;
    stack.postgres.as_mut().unwrap().stop().await?;
    chats(&stack, &ann, 100).await?;
    stack.postgres.as_mut().unwrap().start().await?;
    all_there(&stack, 105).await
}

/// Events that a recorder has received but not committed are not taken for recorded, by any later recorder.
#[tokio::test]
async fn of_the_database_and_a_recorder_killed_meanwhile() -> anyhow::Result<()> {
    let mut stack = Stack::with_own_postgres().await?;
    let ann = stack.user("ann").await?;
    // With the table locked, the recorder cannot commit, so an uncommitted batch exists when the database is killed.
    let database = stack.database().await?;
    let mut locked = database.begin().await?;
    sqlx::query("LOCK TABLE chats IN ACCESS EXCLUSIVE MODE").execute(&mut *locked).await?;
    chats(&stack, &ann, 20).await?;
    let stream = stack.jetstream().await?.get_stream(shared::stream::NAME).await?;
    let taken = async {
        while stream.consumer_info(shared::stream::CONSUMER).await.is_ok_and(|info| info.num_ack_pending == 0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), taken).await?;
    stack.postgres.as_mut().unwrap().stop().await?;
    stack.gateway.drained(Duration::from_secs(60)).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    stack.recorders.pop().unwrap().kill9().await;
    drop(locked);
    stack.postgres.as_mut().unwrap().start().await?;
    stack.add_recorder().await?;
    all_there(&stack, 20).await
}

/// The same where another recorder runs and has no reason to read the stream again: the broker delivers the events of the
/// killed recorder to the other.
#[tokio::test]
async fn of_a_recorder_with_an_uncommitted_batch() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    stack.add_recorder().await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 4).await?;
    stack.drained().await?;
    let database = stack.database().await?;
    let mut locked = database.begin().await?;
    sqlx::query("LOCK TABLE chats IN ACCESS EXCLUSIVE MODE").execute(&mut *locked).await?;
    chats(&stack, &ann, 100).await?;
    stack.gateway.drained(Duration::from_secs(60)).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    stack.recorders[0].kill9().await;
    locked.rollback().await?;
    all_there(&stack, 104).await
}

#[tokio::test]
async fn of_the_recorder() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let status = stack.recorders.pop().unwrap().terminate(Duration::from_secs(20)).await?;
    assert!(status.success(), "{status}");
    chats(&stack, &ann, 100).await?;
    stack.add_recorder().await?;
    all_there(&stack, 100).await
}

#[tokio::test]
async fn of_one_recorder_of_three_killed_in_the_middle() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    stack.add_recorder().await?;
    stack.add_recorder().await?;
    let ann = stack.user("ann").await?;
    let (one, two) = tokio::join!(chats(&stack, &ann, 100), async {
        stack.upstream.chat(50).await;
        stack.recorders[1].kill9().await;
    });
    one?;
    let () = two;
    all_there(&stack, 100).await
}

#[tokio::test]
async fn of_the_broker() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 3).await?;
    stack.nats.stop().await?;
    chats(&stack, &ann, 100).await?;
    stack.gateway.ready().await?;
    assert!(stack.gateway.metric("stenograph_gateway_journal_waiting").await? >= 200.0);
    stack.nats.start().await?;
    all_there(&stack, 103).await
}

#[tokio::test]
async fn of_the_broker_from_the_first_chat_on() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.gateway.terminate(Duration::from_secs(60)).await?;
    stack.nats.stop().await?;
    stack.restart_gateway().await?;
    chats(&stack, &ann, 20).await?;
    // The gateway also stops without the broker; the next gateway publishes the events left in the journal.
    assert!(stack.gateway.terminate(Duration::from_secs(60)).await?.success());
    stack.restart_gateway().await?;
    chats(&stack, &ann, 20).await?;
    stack.nats.start().await?;
    all_there(&stack, 40).await
}

/// A suspended broker delays the end of an answer, up to the time limit, and nothing else.
#[tokio::test]
async fn of_a_suspended_broker_delay_only_the_end() -> anyhow::Result<()> {
    let stack = Stack::with_gateway(&[("GATEWAY_JOURNAL_PATIENCE", "5s")]).await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 1).await?;
    stack.nats.pause();
    let since = Instant::now();
    let mut response = stack.chat(&ann, "hello").send().await?;
    let mut body = response.chunk().await?.unwrap().to_vec();
    assert!(since.elapsed() < Duration::from_secs(3), "the first byte came after {:?}", since.elapsed());
    while let Some(chunk) = response.chunk().await? {
        assert!(!body.ends_with(b"[DONE]\n\n"));
        body.extend_from_slice(&chunk);
    }
    assert!(body.ends_with(b"data: [DONE]\n\n"));
    assert!(since.elapsed() >= Duration::from_secs(5), "the end came after {:?}", since.elapsed());
    stack.nats.resume();
    all_there(&stack, 2).await
}

/// Published events are not taken for delivered before the broker's acknowledgement.
#[tokio::test]
async fn of_a_suspended_broker_and_the_gateway_killed_meanwhile() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 3).await?;
    stack.drained().await?;
    stack.nats.pause();
    chats(&stack, &ann, 20).await?;
    // The gateway writes the broker's position to the journal ten times a second.
    tokio::time::sleep(Duration::from_millis(500)).await;
    stack.gateway.kill9().await;
    stack.nats.kill9().await;
    stack.nats.start().await?;
    stack.restart_gateway().await?;
    all_there(&stack, 23).await
}

/// The broker runs and refuses all events, because the stream is full. No old event is removed for a new event.
#[tokio::test]
async fn of_a_stream_that_is_full() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 3).await?;
    stack.drained().await?;
    let jetstream = stack.jetstream().await?;
    let state = jetstream.get_stream(shared::stream::NAME).await?.get_info().await?;
    let mut config = state.config;
    config.max_bytes = i64::try_from(state.state.bytes)? + 100;
    jetstream.update_stream(&config).await?;
    chats(&stack, &ann, 100).await?;
    stack.gateway.ready().await?;
    assert!(stack.gateway.metric("stenograph_gateway_journal_waiting").await? >= 200.0);
    assert_eq!(stack.events().await?, state.state.messages);
    config.max_bytes = -1;
    jetstream.update_stream(&config).await?;
    stack.gateway.drained(Duration::from_secs(60)).await?;
    all_there(&stack, 103).await
}

/// Events that the broker has refused are not taken for delivered.
#[tokio::test]
async fn of_the_broker_and_the_gateway_killed_meanwhile() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 3).await?;
    stack.nats.stop().await?;
    chats(&stack, &ann, 20).await?;
    stack.gateway.kill9().await;
    stack.nats.start().await?;
    stack.restart_gateway().await?;
    all_there(&stack, 23).await
}
