//! Brokers that lose data, with the oldest supported nats-server and the newest. A stream or a consumer that is missing or has
//! the wrong configuration is refused with an explanation.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream::{self, consumer};
use futures_util::StreamExt as _;
use futures_util::stream;
use harness::program;
use shared::envelope;
use shared::event::Event;
use shared::stream::{CONSUMER, NAME};
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

/// Publishes events again, like a gateway whose broker has lost the events.
async fn publish_again(jetstream: &jetstream::Context, events: &[Event]) -> anyhow::Result<()> {
    for event in events {
        let mut headers = async_nats::HeaderMap::new();
        envelope::headers(event, "/gateway/again").into_iter().for_each(|(name, value)| headers.insert(name, value));
        let subject = shared::subject::of(event.kind(), event.user_id());
        jetstream.publish_with_headers(subject, headers, event.encode()?.into()).await?.await?;
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// The recorder had stored the position before the loss.
    Moved,
    /// The recorder was killed together with the broker before the recorder could store the position.
    Behind,
}

/// The broker loses the end of the stream but keeps the consumer's state, and new events take the lost sequence numbers before
/// a recorder reads the stream.
async fn forgets_the_end(program: PathBuf, mark: Mark) -> anyhow::Result<()> {
    let mut stack = Stack::with_nats_server(program).await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 20).await?;
    stack.drained().await?;
    let (messages, copy) = (stack.nats.messages_of(NAME), tempfile::tempdir()?);
    let copied = std::process::Command::new("cp").arg("-a").arg(&messages).arg(copy.path()).status()?;
    anyhow::ensure!(copied.success());
    chats(&stack, &ann, 30).await?;
    let before = stack.settled().await?;
    anyhow::ensure!(before.events.len() == 100);
    if mark == Mark::Moved {
        let pool = stack.database().await?;
        let deadline = Instant::now() + PATIENCE;
        while sqlx::query_scalar::<_, i64>("SELECT sequence FROM stream_marks").fetch_one(&pool).await? < 100 {
            anyhow::ensure!(Instant::now() < deadline, "the sequence in stream_marks does not reach 100");
            sleep(Duration::from_millis(100)).await;
        }
    }
    stack.recorders[0].kill9().await;
    stack.gateway.kill9().await;
    stack.nats.kill9().await;
    std::fs::remove_dir_all(&messages)?;
    let copied = std::process::Command::new("cp").arg("-a").arg(copy.path().join("msgs")).arg(&messages).status()?;
    anyhow::ensure!(copied.success());
    stack.nats.start().await?;
    anyhow::ensure!(stack.events().await? == 40, "the broker must have lost all events after the copy");

    // The gateway detects that the broker has lost acknowledged events, and publishes these events again.
    stack.restart_gateway().await?;
    chats(&stack, &ann, 50).await?;
    let deadline = Instant::now() + PATIENCE;
    while stack.events().await? < 200 {
        anyhow::ensure!(Instant::now() < deadline, "the lost events are not published again");
        sleep(Duration::from_millis(100)).await;
    }
    stack.add_recorder().await?;
    if mark == Mark::Moved {
        stack.recorders[1].process().logged("the broker went back in time").await?;
    }
    let oracle = stack.settled().await?;
    anyhow::ensure!(oracle.tables.chats.len() == 100, "{} chats", oracle.tables.chats.len());
    let calls: i64 = oracle.tables.usage_stats.values().map(|day| day.successful_calls).sum();
    anyhow::ensure!(calls == 100, "{calls} calls");
    Ok(())
}

#[tokio::test]
async fn the_oldest_broker_loses_the_end_of_the_stream() -> anyhow::Result<()> {
    forgets_the_end(program::oldest_nats_server()?, Mark::Moved).await
}

#[tokio::test]
async fn the_oldest_broker_loses_the_end_of_the_stream_while_the_recorder_is_killed() -> anyhow::Result<()> {
    forgets_the_end(program::oldest_nats_server()?, Mark::Behind).await
}

#[tokio::test]
async fn the_newest_broker_loses_the_end_of_the_stream() -> anyhow::Result<()> {
    forgets_the_end(program::nats_server()?, Mark::Moved).await
}

#[tokio::test]
async fn a_stream_that_was_made_again_is_recorded_from_its_beginning() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 10).await?;
    let before = stack.settled().await?;
    let jetstream = stack.jetstream().await?;
    jetstream.delete_stream(NAME).await?;
    stack.recorder.run(&["stream", "create"]).await?;
    publish_again(&jetstream, &before.events).await?;
    // The recorder may have ended, if the recorder looked for the stream while the stream was deleted.
    if !stack.recorders[0].process().is_running() {
        stack.add_recorder().await?;
    }
    chats(&stack, &ann, 10).await?;
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.chats.len(), 20);
    Ok(())
}

/// A recorder is started and has to end, having said this.
async fn refuses(stack: &mut Stack, words: &[&str]) -> anyhow::Result<()> {
    stack.add_recorder().await?;
    let recorder = stack.recorders.last().unwrap_or_else(|| unreachable!("a recorder was just added"));
    let status = tokio::time::timeout(PATIENCE, recorder.process().exited()).await?;
    anyhow::ensure!(!status.success(), "{status}");
    for word in words {
        recorder.process().logged(word).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_missing_or_different_stream_or_consumer_is_refused_at_the_start_with_an_explanation() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.recorders[0].terminate(PATIENCE).await?;
    let jetstream = stack.jetstream().await?;
    let stream = jetstream.get_stream(NAME).await?;
    stream.delete_consumer(CONSUMER).await?;
    refuses(&mut stack, &["consumer recorder of stream CHATS does not exist", "recorder stream create"]).await?;

    let gives_up = consumer::pull::Config {
        durable_name: Some(CONSUMER.into()),
        max_deliver: 3,
        ack_wait: Duration::from_secs(5),
        max_ack_pending: 20_000,
        ..Default::default()
    };
    stream.create_consumer(gives_up).await?;
    let words =
        ["consumer recorder of stream CHATS differs", "ack wait is 5s, expected 20s", "max_deliver is 3, expected -1"];
    refuses(&mut stack, &words).await?;
    stream.delete_consumer(CONSUMER).await?;
    jetstream.delete_key_value(shared::lease::BUCKET).await?;
    stack.recorder.run(&["stream", "create"]).await?;

    jetstream.delete_object_store(shared::large_body::BUCKET).await?;
    refuses(&mut stack, &["bucket BODIES does not exist"]).await?;
    stack.recorder.run(&["stream", "create"]).await?;
    stack.add_recorder().await?;
    chats(&stack, &ann, 1).await?;
    assert_eq!(stack.settled().await?.tables.chats.len(), 1);
    Ok(())
}
