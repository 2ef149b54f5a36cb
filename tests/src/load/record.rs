//! The record of a gateway under load: the stream is created before a run, and events are counted afterwards.

use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use futures_util::TryStreamExt as _;
use serde::Serialize;
use shared::stream;

/// Time limit for the last events to reach the stream after the last chat.
const PATIENCE: Duration = Duration::from_secs(30);

/// Numbers of events by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Recorded {
    /// Number of started chats.
    pub started: u64,
    /// Number of completed chats, with an answer.
    pub completed: u64,
    /// Number of failed chats, without an answer.
    pub failed: u64,
}

/// Creates the stream with the configuration of the services.
pub async fn create_stream(nats_url: &str) -> anyhow::Result<()> {
    let context = async_nats::jetstream::new(async_nats::connect(nats_url).await?);
    let config = Config {
        name: stream::NAME.to_owned(),
        subjects: vec![stream::SUBJECTS.to_owned()],
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        duplicate_window: stream::DUPLICATE_WINDOW,
        ..Config::default()
    };
    context.create_stream(config).await.context("cannot create the stream")?;
    Ok(())
}

/// Checks that exactly `chats` chats were started and completed, each once.
pub async fn check(nats_url: &str, chats: u64) -> anyhow::Result<Recorded> {
    let context = async_nats::jetstream::new(async_nats::connect(nats_url).await?);
    let record = context.get_stream(stream::NAME).await?;
    let expected = Recorded { started: chats, completed: chats, failed: 0 };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let found = count(&record).await?;
        if found == expected {
            return Ok(found);
        }
        // Missing events may still arrive, but surplus events never disappear.
        let too_many = found.started > chats || found.completed > chats || found.failed > 0;
        if too_many || tokio::time::Instant::now() >= deadline {
            bail!("expected {expected:?} on the record, found {found:?}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn count(record: &async_nats::jetstream::stream::Stream) -> anyhow::Result<Recorded> {
    let mut recorded = Recorded::default();
    for (kind, total) in
        [("started", &mut recorded.started), ("completed", &mut recorded.completed), ("failed", &mut recorded.failed)]
    {
        let mut subjects = record.info_with_subjects(format!("chats.{kind}.>")).await?;
        while let Some((_, count)) = subjects.try_next().await? {
            *total += u64::try_from(count)?;
        }
    }
    Ok(recorded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness::servers::Nats;

    #[tokio::test]
    async fn the_record_has_to_hold_exactly_the_chats() {
        let nats = Nats::new().await.unwrap();
        create_stream(&nats.url()).await.unwrap();
        let context = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
        let publish = async |subject: &'static str| {
            context.publish(subject, "{}".into()).await.unwrap().await.unwrap();
        };
        check(&nats.url(), 0).await.unwrap();
        for subject in ["chats.started.a", "chats.started.b", "chats.completed.a", "chats.completed.b"] {
            publish(subject).await;
        }
        assert_eq!(check(&nats.url(), 2).await.unwrap(), Recorded { started: 2, completed: 2, failed: 0 });
        assert!(check(&nats.url(), 1).await.is_err(), "expected an error for more events than chats");
        publish("chats.failed.a").await;
        assert!(check(&nats.url(), 2).await.is_err(), "expected an error for a failed chat");
    }
}
