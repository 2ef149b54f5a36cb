//! Events with a body too large for a message: the body is in a bucket, the event holds a reference, and all readers resolve
//! the reference.

use std::time::Duration;

use async_nats::jetstream;
use futures_util::StreamExt as _;
use recorder::source::bodies::MISSING_CONFIRMATION;
use shared::event::Event;
use shared::large_body::{BUCKET, BodyReference, MAX_INLINE_BYTES};
use tests::stack::Stack;

use crate::rebuild::dump;

/// Publishes an event with the body in the bucket, even if the broker has the event already.
pub(crate) async fn publish_reference(jetstream: &jetstream::Context, event: &Event) -> anyhow::Result<()> {
    let reference = BodyReference::new(&event.id().to_string(), &event.encode()?);
    let mut headers = async_nats::HeaderMap::new();
    let envelope = shared::envelope::headers(event, "/gateway/large");
    let envelope = envelope.into_iter().filter(|(name, _)| *name != shared::envelope::MESSAGE_ID);
    envelope.chain(reference.headers()).for_each(|(name, value)| headers.insert(name, value));
    let subject = shared::subject::of(event.kind(), event.user_id());
    jetstream.publish_with_headers(subject, headers, "".into()).await?.await?;
    Ok(())
}

pub(crate) async fn put_body(jetstream: &jetstream::Context, event: &Event) -> anyhow::Result<()> {
    let bucket = jetstream.get_object_store(BUCKET).await?;
    bucket.put(event.id().to_string().as_str(), &mut event.encode()?.as_slice()).await?;
    Ok(())
}

pub(crate) async fn remove_body(jetstream: &jetstream::Context, event: &Event) -> anyhow::Result<()> {
    let bucket = jetstream.get_object_store(BUCKET).await?;
    Ok(bucket.delete(event.id().to_string()).await?)
}

#[tokio::test]
async fn of_ten_megabytes_are_recorded_completely_and_missing_ones_wait_in_quarantine() -> anyhow::Result<()> {
    let (from, stack) = (Stack::start().await?, Stack::start().await?);
    let ann = from.user("ann").await?;
    from.finished_chat(&ann, "hello").await?;
    from.finished_chat(&ann, "hello again").await?;
    let events = from.settled().await?.events;
    let large = |event: &Event, text: &str| match event {
        Event::ChatStarted(event) => {
            let mut event = event.clone();
            if let Some(message) = event.new_messages.last_mut() {
                message.text = text.to_owned();
            }
            Event::ChatStarted(event)
        }
        other => other.clone(),
    };
    let text = "0123456789abcdef".repeat(640 * 1024);
    let mut starts = events.iter().filter(|event| matches!(event, Event::ChatStarted(_)));
    let (first, second) = (large(starts.next().unwrap(), &text), large(starts.next().unwrap(), "missing"));
    assert!(first.encode()?.len() > 10 << 20 && first.encode()?.len() > MAX_INLINE_BYTES);

    let jetstream = stack.jetstream().await?;
    put_body(&jetstream, &first).await?;
    publish_reference(&jetstream, &first).await?;
    publish_reference(&jetstream, &second).await?;
    stack.drained().await?;
    let id = stack.recorder.run(&["quarantine", "list", "--json"]).await?;
    let line: serde_json::Value = serde_json::from_str(&id)?;
    assert!(line["detail"].as_str().unwrap().contains("not in bucket BODIES"), "{line}");
    let id = line["id"].as_str().unwrap();
    assert!(
        stack.recorder.run(&["quarantine", "retry", id]).await.is_err(),
        "a retry must fail while the body is missing"
    );
    put_body(&jetstream, &second).await?;
    stack.recorder.run(&["quarantine", "retry", id]).await?;
    assert_eq!(in_quarantine(&stack).await?, 0);

    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.chats.len(), 2);
    assert!(
        oracle.tables.messages.values().any(|message| message.content == text),
        "the tables must have the whole large text"
    );
    Ok(())
}

#[tokio::test]
async fn of_ten_megabytes_are_recorded_completely_even_during_an_outage_of_the_broker() -> anyhow::Result<()> {
    let mut stack = Stack::with_gateway(&[("GATEWAY_MAX_BODY_BYTES", "33554432")]).await?;
    let ann = stack.user("ann").await?;
    let text = "0123456789abcdef".repeat(640 * 1024);
    stack.finished_chat(&ann, &text).await?;
    stack.nats.stop().await?;
    let other = format!("{text}!");
    stack.finished_chat(&ann, &other).await?;
    stack.finished_chat(&ann, "small").await?;
    stack.nats.start().await?;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    while stack.events().await? < 6 {
        assert!(tokio::time::Instant::now() < deadline, "{} events", stack.events().await?);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let oracle = stack.settled().await?;
    for text in [text.as_str(), other.as_str(), "small"] {
        assert!(
            oracle.tables.messages.values().any(|message| message.content == text),
            "the tables must have the whole large text"
        );
    }
    Ok(())
}

/// A broker that restarts without its newest writes may have lost chunks of a body whose event it has not stored yet.
#[tokio::test]
async fn that_the_broker_loses_before_it_stores_their_events_are_uploaded_again() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.finished_chat(&ann, "small").await?;
    stack.settled().await?;
    let jetstream = stack.jetstream().await?;
    let stream = jetstream.get_stream(shared::stream::NAME).await?.cached_info().clone();
    let full =
        jetstream::stream::Config { max_messages: i64::try_from(stream.state.messages)?, ..stream.config.clone() };
    jetstream.update_stream(&full).await?;
    let text = "0123456789abcdef".repeat(80 * 1024);
    stack.finished_chat(&ann, &text).await?;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let bodies = jetstream.get_stream(format!("OBJ_{BUCKET}")).await?;
    let described = format!("$O.{BUCKET}.M.>");
    while bodies.get_info().await?.state.messages == 0
        || bodies.info_with_subjects(&described).await?.next().await.is_none()
    {
        assert!(tokio::time::Instant::now() < deadline, "the body is not uploaded");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bodies.purge().filter(format!("$O.{BUCKET}.C.>")).await?;
    stack.nats.stop().await?;
    stack.nats.start().await?;
    jetstream.update_stream(&stream.config).await?;
    let oracle = stack.settled().await?;
    assert!(oracle.tables.messages.values().any(|message| message.content == text));
    assert_eq!(in_quarantine(&stack).await?, 0);
    Ok(())
}

async fn in_quarantine(stack: &Stack) -> anyhow::Result<i64> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM quarantine").fetch_one(&stack.database().await?).await?)
}

/// Events of finished chats on a system of their own.
async fn events_of_chats(chats: usize) -> anyhow::Result<Vec<Event>> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    for number in 0..chats {
        stack.finished_chat(&ann, &format!("chat {number}")).await?;
    }
    Ok(stack.settled().await?.events)
}

/// Each consumer would live on the broker for half a minute, and the broker refuses consumers beyond a limit. Here the limit
/// is one, so that a second consumer would be refused.
#[tokio::test]
async fn are_read_without_a_consumer_for_each() -> anyhow::Result<()> {
    let events = events_of_chats(12).await?;
    let stack = Stack::start().await?;
    let jetstream = stack.jetstream().await?;
    let mut config = jetstream.get_stream(format!("OBJ_{BUCKET}")).await?.cached_info().config.clone();
    config.max_consumers = 1;
    jetstream.delete_object_store(BUCKET).await?;
    jetstream.create_stream(config).await?;
    for event in &events {
        put_body(&jetstream, event).await?;
        publish_reference(&jetstream, event).await?;
    }
    let oracle = stack.settled().await?;
    assert_eq!((oracle.tables.chats.len(), oracle.events.len()), (12, events.len()));
    assert_eq!(in_quarantine(&stack).await?, 0);

    let pool = stack.database().await?;
    let rows = dump(&pool, "public").await?;
    let said = stack.recorder.run(&["verify"]).await?;
    assert!(said.starts_with("identical: 12 chats, ") && !said.contains("cannot be read"), "{said}");
    stack.recorder.run(&["rebuild", "--without-unreadable"]).await?;
    assert_eq!(dump(&pool, "public").await?, rows);
    let lines = stack.recorder.run(&["replay"]).await?;
    assert_eq!(lines.lines().count(), events.len());
    let consumers = jetstream.get_stream(format!("OBJ_{BUCKET}")).await?.cached_info().state.consumer_count;
    assert_eq!(consumers, 0, "a body must leave no consumer");
    Ok(())
}

/// The broker refuses every request for the bodies. That says nothing about the bodies.
#[tokio::test]
async fn that_the_broker_refuses_hold_up_no_other_event_and_are_recorded_when_it_gives_them() -> anyhow::Result<()> {
    let events = events_of_chats(2).await?;
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let jetstream = stack.jetstream().await?;
    // A recorder does not start without the bucket, so the recorder has to be at work before the bucket goes.
    stack.finished_chat(&ann, "before").await?;
    stack.settled().await?;
    jetstream.delete_object_store(BUCKET).await?;
    for event in &events {
        publish_reference(&jetstream, event).await?;
    }
    for number in 0..3 {
        stack.finished_chat(&ann, &format!("small {number}")).await?;
    }
    let pool = stack.database().await?;
    let recorded = async || {
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM chats WHERE status = 'completed'").fetch_one(&pool).await
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    while recorded().await? < 4 {
        assert!(tokio::time::Instant::now() < deadline, "the other events must be recorded meanwhile");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stack.recorders[0].process().logged("the body of a large event cannot be fetched").await?;
    let metrics = harness::http::client().get(stack.recorders[0].health_url("/metrics")).send().await?.text().await?;
    assert!(metrics.contains(&format!("recorder_awaited_bodies {}", events.len())), "{metrics}");
    // A second recorder gets the events of a stopped one, and keeps waiting too.
    stack.recorders.remove(0).terminate(Duration::from_secs(60)).await?;
    stack.recorder.run(&["stream", "create"]).await?;
    stack.add_recorder().await?;
    tokio::time::sleep(MISSING_CONFIRMATION / 3).await;
    assert_eq!(in_quarantine(&stack).await?, 0);
    for event in &events {
        put_body(&jetstream, event).await?;
    }
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.chats.len(), 6);
    assert_eq!(in_quarantine(&stack).await?, 0);
    Ok(())
}

#[tokio::test]
async fn that_were_missing_leave_quarantine_when_they_are_recorded_after_all() -> anyhow::Result<()> {
    let events = events_of_chats(2).await?;
    let stack = Stack::start().await?;
    let jetstream = stack.jetstream().await?;
    for event in &events {
        publish_reference(&jetstream, event).await?;
    }
    stack.drained().await?;
    assert_eq!(in_quarantine(&stack).await?, 4);
    let lost =
        stack.recorder.run(&["replay"]).await.expect_err("a replay that leaves out events must fail").to_string();
    assert!(lost.contains("4 events were left out"), "{lost}");
    let directory = tempfile::tempdir()?;
    let output = directory.path().join("export").display().to_string();
    let export = ["replay", "--format", "parquet", "--output", &output];
    let lost = stack.recorder.run(&export).await.expect_err("an export that leaves out events must fail").to_string();
    assert!(lost.contains("4 events were left out"), "{lost}");

    // The first two events are delivered once more; the others are recorded by a rebuild.
    for event in &events {
        put_body(&jetstream, event).await?;
    }
    for event in &events[..2] {
        publish_reference(&jetstream, event).await?;
    }
    stack.drained().await?;
    assert_eq!(in_quarantine(&stack).await?, 2);
    stack.recorder.run(&["rebuild"]).await?;
    assert_eq!(in_quarantine(&stack).await?, 0);
    assert_eq!(stack.settled().await?.tables.chats.len(), 2);
    assert_eq!(stack.recorder.run(&["replay"]).await?.lines().count(), 4);
    Ok(())
}

/// After the loss of the body the rows are the only copy of the content.
#[tokio::test]
async fn that_were_recorded_and_then_lost_prevent_a_rebuild() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let text = "0123456789abcdef".repeat(60 * 1024);
    stack.finished_chat(&ann, "small").await?;
    stack.settled().await?;
    stack.finished_chat(&ann, &text).await?;
    let events = stack.settled().await?.events;
    let is_large = |event: &Event| event.encode().is_ok_and(|body| body.len() > MAX_INLINE_BYTES);
    let index = events.iter().position(is_large).expect("the log has a large event");
    let (large, sequence) = (&events[index], index + 1);
    let (pool, jetstream) = (stack.database().await?, stack.jetstream().await?);
    let rows = dump(&pool, "public").await?;
    // An unreadable event that is in quarantine does not stop a rebuild.
    jetstream.publish(format!("chats.started.{}", ann.id), "no event".into()).await?.await?;
    stack.drained().await?;
    stack.recorder.run(&["rebuild"]).await?;
    assert_eq!(dump(&pool, "public").await?, rows);

    remove_body(&jetstream, large).await?;
    let refused =
        stack.recorder.run(&["rebuild"]).await.expect_err("the rebuild must refuse to lose the event").to_string();
    let expected =
        format!("1 events of the log cannot be read, the first at sequence {sequence}, and are not in quarantine");
    assert!(refused.contains(&expected) && refused.contains("BODIES"), "{refused}");
    assert_eq!(dump(&pool, "public").await?, rows);
    let said = stack
        .recorder
        .run(&["verify"])
        .await
        .expect_err("verify must fail, as the body is no longer in the bucket")
        .to_string();
    assert!(said.contains("exit status: 3"), "{said}");
    assert!(said.contains("; 1 events cannot be read, and are not in quarantine"), "{said}");
    assert!(said.contains("; 1 events cannot be read, as when they were put into quarantine"), "{said}");

    put_body(&jetstream, large).await?;
    stack.recorder.run(&["rebuild"]).await?;
    assert_eq!(dump(&pool, "public").await?, rows);
    stack.recorder.run(&["verify"]).await?;

    // An operator can ask for a rebuild without the unreadable events, and has to ask for the loss of their rows too.
    remove_body(&jetstream, large).await?;
    let apart = stack.recorder.run(&["rebuild", "--into", "apart"]).await?;
    assert!(apart.contains("; 1 events cannot be read, and are not in quarantine"), "{apart}");
    let refused =
        stack.recorder.run(&["rebuild", "--without-unreadable"]).await.expect_err("the rows would be lost").to_string();
    assert!(refused.contains("exit status: 4") && refused.contains("1 messages dropped"), "{refused}");
    assert_eq!(dump(&pool, "public").await?, rows);
    stack.recorder.run(&["rebuild", "--without-unreadable", "--drop-missing"]).await?;
    assert_ne!(dump(&pool, "public").await?, rows);
    stack.recorder.run(&["verify"]).await.map(drop)
}

#[tokio::test]
async fn that_expire_before_their_events_are_noticed() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let jetstream = stack.jetstream().await?;
    let mut config = jetstream.get_stream(format!("OBJ_{BUCKET}")).await?.cached_info().config.clone();
    config.max_age = Duration::from_secs(3600);
    jetstream.update_stream(&config).await?;
    let refused = stack
        .recorder
        .run(&["stream", "create"])
        .await
        .expect_err("bodies must not expire before their events")
        .to_string();
    assert!(refused.contains("bucket BODIES differs: max_age is 3600s, expected none, as the stream has"), "{refused}");
    let mut stream = jetstream.get_stream(shared::stream::NAME).await?.cached_info().config.clone();
    stream.max_age = Duration::from_secs(7200);
    jetstream.update_stream(&stream).await?;
    let refused = stack
        .recorder
        .run(&["stream", "create"])
        .await
        .expect_err("bodies must not expire before their events")
        .to_string();
    assert!(refused.contains("max_age is 3600s, expected at least the stream's 7200s"), "{refused}");
    config.max_age = Duration::from_secs(7200);
    jetstream.update_stream(&config).await?;
    stack.recorder.run(&["stream", "create"]).await.map(drop)
}
