//! Redelivery: the same event five times, the end before the start, and events that one recorder hands to another. Each is
//! counted once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::pull;
use futures_util::StreamExt as _;
use recorder::policy::batch::BatchLimits;
use recorder::source::bodies::BodyFetcher;
use recorder::source::{Source, connect};
use shared::nats::BrokerConfig;
use shared::stream::{CONSUMER, MAX_ACK_WAIT, NAME};
use tests::stack::{Stack, publish_again};
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn changes_nothing() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    for n in 0..3 {
        stack.finished_chat(&ann, &format!("{n}")).await?;
    }
    let before = stack.settled().await?;
    let jetstream = jetstream::new(async_nats::connect(stack.nats.url()).await?);
    for _ in 0..5 {
        for event in before.events.iter().rev() {
            publish_again(&jetstream, event).await?;
        }
    }
    let after = stack.settled().await?;
    assert_eq!(after.events.len(), 6 * before.events.len(), "the stream must have the repeated events");
    assert_eq!(after.tables, before.tables);
    Ok(())
}

#[tokio::test]
async fn of_the_end_before_the_start_gives_the_same_rows() -> anyhow::Result<()> {
    let (one, other) = (Stack::start().await?, Stack::start().await?);
    let ann = one.user("ann").await?;
    one.finished_chat(&ann, "hello").await?;
    let record = one.settled().await?;
    let jetstream = jetstream::new(async_nats::connect(other.nats.url()).await?);
    for event in record.events.iter().rev() {
        publish_again(&jetstream, event).await?;
        other.settled().await?;
    }
    assert_eq!(other.settled().await?.tables, record.tables);
    Ok(())
}

/// A recorder stops collecting a batch half-way: the events at hand are the next batch, whether or not more arrive. A closed
/// recorder returns collected but unrecorded events at once.
#[tokio::test]
async fn waits_neither_for_more_events_nor_for_the_brokers_timeout() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.recorders.pop().unwrap().terminate(Duration::from_secs(60)).await?;
    stack.finished_chat(&ann, "hello").await?;
    let client = connect(&BrokerConfig::from_url(&stack.nats.url())?).await?;
    let mut source = Source::new(
        client.clone(),
        BatchLimits { linger: Duration::from_secs(3600), ..BatchLimits::default() },
        Arc::default(),
    );
    assert!(
        timeout(Duration::from_secs(2), source.next_full()).await.is_err(),
        "two events must not count as a full batch"
    );
    let deliveries = timeout(Duration::from_secs(5), source.next()).await??;
    assert_eq!(deliveries.fetch_and_decode(&BodyFetcher::new(client)).await.len(), 2);

    source.close(Some(deliveries)).await;
    let closed = Instant::now();
    stack.add_recorder().await?;
    assert_eq!(stack.settled().await?.tables.chats.len(), 1);
    assert!(
        closed.elapsed() < shared::stream::ACK_WAIT / 2,
        "the next recorder got the returned events only after {:?}",
        closed.elapsed()
    );
    Ok(())
}

/// A recorder that is told to stop while events arrive returns everything that the broker has sent, also what was still on
/// the way.
#[tokio::test]
async fn at_a_stop_comes_at_once_for_every_event_that_was_on_the_way() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.finished_chat(&ann, "hello").await?;
    let event = stack.settled().await?.events.remove(0);
    let jetstream = jetstream::new(async_nats::connect(stack.nats.url()).await?);
    let stream = jetstream.get_stream(NAME).await?;
    // The longest accepted timeout: an event that was not returned would come back too late for this test.
    stack.recorders.pop().unwrap().terminate(PATIENCE).await?;
    let mut config = stream.consumer_info(CONSUMER).await?.config;
    config.ack_wait = MAX_ACK_WAIT;
    stream.update_consumer(pull::Config { durable_name: Some(CONSUMER.to_owned()), ..pull_config(&config) }).await?;
    for round in 0..3 {
        stack.add_recorder().await?;
        let stop = Arc::new(AtomicBool::new(false));
        let publishing = tokio::spawn({
            let (jetstream, event, stop) = (jetstream.clone(), event.clone(), Arc::clone(&stop));
            async move {
                while !stop.load(Ordering::Relaxed) {
                    publish_again(&jetstream, &event).await?;
                }
                anyhow::Ok(())
            }
        });
        // The recorder is stopped when it has begun to record, and while more events arrive.
        let before = stream.consumer_info(CONSUMER).await?.ack_floor.stream_sequence;
        while stream.consumer_info(CONSUMER).await?.ack_floor.stream_sequence <= before + 20 {
            tokio::task::yield_now().await;
        }
        stack.recorders.pop().unwrap().terminate(PATIENCE).await?;
        stop.store(true, Ordering::Relaxed);
        publishing.await??;
        let consumer = stream.get_consumer::<pull::Config>(CONSUMER).await.map_err(anyhow::Error::from_boxed)?;
        let (returned, mut info) = (Instant::now(), stream.consumer_info(CONSUMER).await?);
        assert!(info.num_pending > 0, "round {round}: the recorder was stopped too late");
        while info.num_pending > 0 || info.num_ack_pending > 0 {
            assert!(
                returned.elapsed() < MAX_ACK_WAIT / 2,
                "round {round}: {} events wait for the acknowledgement timeout",
                info.num_ack_pending
            );
            let mut messages = consumer.fetch().max_messages(500).expires(Duration::from_secs(2)).messages().await?;
            while let Some(Ok(message)) = messages.next().await {
                message.ack().await.map_err(anyhow::Error::from_boxed)?;
            }
            info = stream.consumer_info(CONSUMER).await?;
        }
    }
    stack.add_recorder().await?;
    stack.settled().await?;
    Ok(())
}

fn pull_config(found: &jetstream::consumer::Config) -> pull::Config {
    pull::Config {
        description: found.description.clone(),
        deliver_policy: found.deliver_policy,
        ack_policy: found.ack_policy,
        ack_wait: found.ack_wait,
        max_deliver: found.max_deliver,
        max_ack_pending: found.max_ack_pending,
        ..pull::Config::default()
    }
}
