//! The recorder under faults: no event is lost or counted twice, and no person has to act.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use harness::fault_proxy::FaultProxy;
use sqlx::Row as _;
use tests::stack::{Stack, User};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(120);

async fn chats(stack: &Stack, user: &User, count: usize) -> anyhow::Result<()> {
    let done = stream::iter(0..count).map(|n| async move { stack.finished_chat(user, &format!("{n}")).await });
    for result in done.buffer_unordered(10).collect::<Vec<_>>().await {
        anyhow::ensure!(result?.1.ends_with("data: [DONE]\n\n"));
    }
    Ok(())
}

/// Restarts the recorder behind a proxy to its database.
async fn behind_a_proxy_to_postgres(stack: &mut Stack) -> anyhow::Result<FaultProxy> {
    let url: reqwest::Url = stack.recorder.database_url.parse()?;
    let server = format!("127.0.0.1:{}", url.port().unwrap_or_default()).parse()?;
    let proxy = FaultProxy::start(server).await?;
    for recorder in stack.recorders.drain(..) {
        recorder.terminate(PATIENCE).await?;
    }
    let direct = stack.recorder.database_url.clone();
    stack.recorder.database_url = direct.replace(&server.to_string(), &proxy.address().to_string());
    stack.add_recorder().await?;
    stack.recorder.database_url = direct;
    Ok(proxy)
}

#[tokio::test]
async fn a_connection_cut_right_after_commit_was_sent_changes_nothing() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let proxy = behind_a_proxy_to_postgres(&mut stack).await?;
    chats(&stack, &ann, 5).await?;
    stack.drained().await?;
    for round in 1..=5 {
        // The proxy cuts the connection after COMMIT, so PostgreSQL commits and the recorder does not learn the result.
        proxy.cut_once_after(b"COMMIT");
        chats(&stack, &ann, 10).await?;
        let deadline = Instant::now() + PATIENCE;
        while proxy.cuts() < round {
            anyhow::ensure!(Instant::now() < deadline, "no commit was seen");
            sleep(Duration::from_millis(20)).await;
        }
    }
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.chats.len(), 55);
    Ok(())
}

#[tokio::test]
async fn a_transaction_longer_than_the_brokers_timeout_is_counted_once() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    stack.add_recorder().await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 2).await?;
    stack.drained().await?;
    let pool = stack.database().await?;
    let mut stuck = pool.begin().await?;
    sqlx::raw_sql("LOCK TABLE chats IN ACCESS EXCLUSIVE MODE").execute(&mut *stuck).await?;
    chats(&stack, &ann, 5).await?;
    // The wait must be longer than the acknowledgement time. Progress signals keep the current batch; events fetched
    // ahead for the next batch are delivered to the other recorder.
    sleep(shared::stream::ACK_WAIT + Duration::from_secs(10)).await;
    stuck.rollback().await?;
    assert_eq!(stack.settled().await?.tables.chats.len(), 7);
    Ok(())
}

#[tokio::test]
async fn a_silent_connection_to_the_database_is_noticed() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let proxy = behind_a_proxy_to_postgres(&mut stack).await?;
    chats(&stack, &ann, 5).await?;
    stack.drained().await?;
    proxy.stall();
    chats(&stack, &ann, 5).await?;
    stack.recorders[0].process().logged("a batch has to wait").await?;
    proxy.restore();
    assert_eq!(stack.settled().await?.tables.chats.len(), 10);
    Ok(())
}

#[tokio::test]
async fn a_silent_connection_to_the_broker_is_noticed() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let proxy = FaultProxy::start(stack.nats.address()).await?;
    for recorder in stack.recorders.drain(..) {
        recorder.terminate(PATIENCE).await?;
    }
    let direct = std::mem::replace(&mut stack.recorder.nats_url, format!("nats://{}", proxy.address()));
    stack.add_recorder().await?;
    stack.recorder.nats_url = direct;
    chats(&stack, &ann, 5).await?;
    stack.drained().await?;
    proxy.stall();
    chats(&stack, &ann, 5).await?;
    stack.recorders[0].process().logged("the connection to the broker was disturbed").await?;
    proxy.restore();
    assert_eq!(stack.settled().await?.tables.chats.len(), 10);
    Ok(())
}

#[tokio::test]
async fn a_nul_in_a_text_is_kept_in_the_event_and_escaped_in_the_row() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.finished_chat(&ann, "a\0b").await?;
    let oracle = stack.settled().await?;
    let of_event = oracle.events.iter().find_map(|event| match event {
        shared::event::Event::ChatStarted(event) => event.user_message.clone(),
        _ => None,
    });
    assert_eq!(of_event.unwrap().text, "a\0b");
    assert!(oracle.tables.messages.values().any(|message| message.content == "a\\u0000b"));
    Ok(())
}

#[tokio::test]
async fn four_recorders_at_once_never_deadlock() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    // Small batches mean many transactions on the rows of the same three users.
    stack.recorder.more.push(("RECORDER_BATCH_EVENTS".into(), "7".into()));
    for recorder in stack.recorders.drain(..) {
        recorder.terminate(PATIENCE).await?;
    }
    let users = [stack.user("ann").await?, stack.user("bob").await?, stack.user("eve").await?];
    for user in &users {
        chats(&stack, user, 100).await?;
    }
    for _ in 0..4 {
        stack.add_recorder().await?;
    }
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.chats.len(), 300);
    let pool = stack.database().await?;
    let sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(sqlx::query(sql).fetch_one(&pool).await?.get::<i64, _>(0), 0);
    Ok(())
}
