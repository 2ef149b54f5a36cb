//! The bucket `ACCESS`: every write joins with the present state, by compare-and-set, so that an older state never replaces a newer
//! state.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::{self, kv};
use shared::access::{BUCKET, Entry};
use time::OffsetDateTime;
use tokio::sync::{Notify, OnceCell};
use tokio::time::{Instant, timeout};

/// The number of tries of a write while other programs write the same entry.
const MAX_TRIES: usize = 20;
/// The interval at which a bucket that was made anew is looked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// The maximum time of one write or read.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The bucket, opened at the first use.
#[derive(Debug)]
pub struct AccessBucket {
    client: Client,
    store: OnceCell<kv::Store>,
    /// Notified when a write failed that nobody repeats.
    incomplete: Notify,
}

/// The reason for which the bucket could not be read or written. Nothing is lost: a later write joins all the same.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// The bucket does not exist, or the broker did not answer.
    #[error("the bucket {BUCKET} cannot be opened, expected a bucket made by `recorder stream create`: {0}")]
    Open(String),
    /// The broker refused the entry, or did not answer.
    #[error("an entry of the bucket {BUCKET} cannot be read or written: {0}")]
    Entry(String),
    /// Other programs wrote the entry each time in between.
    #[error("an entry of the bucket {BUCKET} was changed by other programs {MAX_TRIES} times in a row")]
    Contended,
    /// The broker did not answer in time.
    #[error("the broker gave no answer about the bucket {BUCKET} within {TIMEOUT:?}")]
    Timeout,
}

impl AccessBucket {
    /// Creates the bucket's client. The bucket is opened at the first use.
    pub fn new(client: Client) -> Self {
        Self { client, store: OnceCell::new(), incomplete: Notify::new() }
    }

    /// Returns the client of the broker.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Notes that the bucket lacks a state, so that all entries are compared soon.
    pub fn note_incomplete(&self) {
        self.incomplete.notify_one();
    }

    /// Waits until all entries should be compared again: after `interval`, after [`Self::note_incomplete`], or once the bucket was made
    /// anew. `created` is the time at which the bucket of the last comparison was made; none if there was no bucket.
    pub async fn comparison_due(&self, interval: Duration, created: Option<OffsetDateTime>) {
        let deadline = Instant::now() + interval;
        while Instant::now() < deadline {
            if timeout(LOOK_INTERVAL, self.incomplete.notified()).await.is_ok() {
                return;
            }
            if let Some(now) = self.created().await
                && Some(now) != created
            {
                return;
            }
        }
    }

    /// Returns the time at which the bucket was made. None if there is no bucket, or no answer.
    pub async fn created(&self) -> Option<OffsetDateTime> {
        let jetstream = jetstream::new(self.client.clone());
        Some(timeout(TIMEOUT, jetstream.get_key_value(BUCKET)).await.ok()?.ok()?.stream.cached_info().created)
    }

    /// Joins a state with the present entry. Returns true if the entry changed.
    pub async fn put(&self, entry: &Entry) -> Result<bool, BucketError> {
        timeout(TIMEOUT, self.join(entry)).await.map_err(|_| BucketError::Timeout)?
    }

    /// Reads an entry; none for a missing entry and for an entry of a later version.
    pub async fn get(&self, name: &str) -> Result<Option<Entry>, BucketError> {
        let value = async { self.store().await?.get(name).await.map_err(failed) };
        let value = timeout(TIMEOUT, value).await.map_err(|_| BucketError::Timeout)??;
        Ok(value.and_then(|value| Entry::read(name, &value)))
    }

    /// Reads an entry and its revision: 0 for a missing entry.
    pub async fn read(&self, name: &str) -> Result<(Option<Entry>, u64), BucketError> {
        timeout(TIMEOUT, self.read_now(name)).await.map_err(|_| BucketError::Timeout)?
    }

    /// Replaces an entry of this revision. Returns false if the entry has changed since.
    pub async fn write(&self, entry: &Entry, revision: u64) -> Result<bool, BucketError> {
        timeout(TIMEOUT, self.write_now(entry, revision)).await.map_err(|_| BucketError::Timeout)?
    }

    /// Removes the entries whose names match a pattern. Gateways that follow the bucket are not told.
    pub async fn purge(&self, names: &str) -> Result<(), BucketError> {
        let subject = format!("$KV.{BUCKET}.{names}");
        let purging = async { self.store().await?.stream.purge().filter(subject).await.map_err(failed) };
        timeout(TIMEOUT, purging).await.map_err(|_| BucketError::Timeout)?.map(drop)
    }

    async fn join(&self, entry: &Entry) -> Result<bool, BucketError> {
        for _ in 0..MAX_TRIES {
            let (present, revision) = self.read_now(&entry.name()).await?;
            let joined = match present.clone() {
                Some(present) => present.join(entry.clone()),
                None => entry.clone(),
            };
            if present.as_ref() == Some(&joined) {
                return Ok(false);
            }
            if self.write_now(&joined, revision).await? {
                return Ok(true);
            }
        }
        Err(BucketError::Contended)
    }

    async fn read_now(&self, name: &str) -> Result<(Option<Entry>, u64), BucketError> {
        let found = self.store().await?.entry(name).await.map_err(failed)?;
        let revision = found.as_ref().map_or(0, |found| found.revision);
        let found = found.filter(|found| found.operation == kv::Operation::Put);
        Ok((found.and_then(|found| Entry::read(name, &found.value)), revision))
    }

    async fn write_now(&self, entry: &Entry, revision: u64) -> Result<bool, BucketError> {
        let value = entry.encode().map_err(failed)?;
        match self.store().await?.update(entry.name(), value.into(), revision).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == kv::UpdateErrorKind::WrongLastRevision => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    async fn store(&self) -> Result<&kv::Store, BucketError> {
        let open = async || jetstream::new(self.client.clone()).get_key_value(BUCKET).await;
        self.store.get_or_try_init(open).await.map_err(|error| BucketError::Open(error.to_string()))
    }
}

fn failed(error: impl std::fmt::Display) -> BucketError {
    BucketError::Entry(error.to_string())
}
