//! The buckets `GRANTS` and `BUDGETS`: entries that are changed by compare-and-set alone. Created by `recorder stream create`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::kv::{self, Operation, UpdateErrorKind};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::lease::{self, Lease};
use shared::nats::{BrokerConfig, BrokerRole};
use tokio::sync::OnceCell;
use tokio::time::timeout;
use uuid::Uuid;

use super::places::Holder;

/// The maximum time for one answer of the broker. A call waits for two at most.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// The time for which the broker is not asked again after it gave no answer.
const AWAY_PAUSE: Duration = Duration::from_secs(2);
/// The number of times that a change is tried against the changes of other gateways.
const MAX_CONFLICTS: usize = 50;

/// The connection to the bucket. Opened when the first limit applies to a call.
#[derive(Debug)]
pub struct GrantBucket {
    broker: BrokerConfig,
    bucket: &'static str,
    name: String,
    client: OnceCell<async_nats::Client>,
    store: OnceCell<kv::Store>,
    leases: OnceCell<kv::Store>,
    away_until: Mutex<Option<Instant>>,
    has_reported: AtomicBool,
}

/// An entry of the bucket as last seen.
#[derive(Clone, Debug, Default)]
pub struct SeenEntry<T> {
    /// The name of the entry.
    pub name: String,
    /// The value.
    pub value: T,
    /// The revision; 0 if the entry does not exist.
    revision: u64,
}

/// A limit that admits no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

/// The broker gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerAway;

impl GrantBucket {
    /// Creates the bucket's connection, which is not opened yet.
    pub fn new(broker: BrokerConfig, instance: &str, bucket: &'static str) -> Self {
        Self {
            broker,
            bucket,
            name: format!("gateway {instance} {}", bucket.to_lowercase()),
            client: OnceCell::new(),
            store: OnceCell::new(),
            leases: OnceCell::new(),
            away_until: Mutex::default(),
            has_reported: AtomicBool::new(false),
        }
    }

    /// Changes the entry `name` by compare-and-set. `change` is applied to the entry as last seen, and again to the present entry after a
    /// conflict, or when it returns `None` for an entry that may be out of date. Returns the last value of `change`.
    pub async fn change<T, R>(
        &self,
        seen: &mut SeenEntry<T>,
        name: &str,
        mut change: impl FnMut(&mut T) -> Option<R>,
    ) -> Result<Option<R>, BrokerAway>
    where
        T: Clone + Default + PartialEq + Serialize + DeserializeOwned,
    {
        let mut is_fresh = false;
        if seen.name != name {
            (*seen, is_fresh) = (self.answer(|| self.read(name)).await?, true);
        }
        for _ in 0..MAX_CONFLICTS {
            let mut value = seen.value.clone();
            let changed = change(&mut value);
            if changed.is_some() || is_fresh {
                if value == seen.value {
                    return Ok(changed);
                }
                if let Some(revision) = self.answer(|| self.write(name, &value, seen.revision)).await? {
                    (seen.value, seen.revision) = (value, revision);
                    return Ok(changed);
                }
            }
            (*seen, is_fresh) = (self.answer(|| self.read(name)).await?, true);
        }
        Err(BrokerAway)
    }

    /// Returns those of the gateways whose run has ended: their lease is gone, or is that of another run.
    pub async fn ended(&self, holders: Vec<Holder>) -> Result<Vec<Holder>, BrokerAway> {
        let mut ended = Vec::new();
        for holder in holders {
            let run = self.answer(|| self.run_of(&holder.name)).await?;
            if run != Some(holder.run) {
                ended.push(holder);
            }
        }
        Ok(ended)
    }

    /// Asks the broker, and once more after a timeout: a process that was suspended sees a timeout although the broker is there.
    async fn answer<T, F: Future<Output = Result<T, String>>>(&self, ask: impl Fn() -> F) -> Result<T, BrokerAway> {
        if self.away_until().is_some_and(|until| Instant::now() < until) {
            return Err(BrokerAway);
        }
        let mut reason = "no answer in time".to_owned();
        for _ in 0..2 {
            match timeout(ANSWER_TIMEOUT, ask()).await {
                Ok(Ok(answer)) => {
                    if self.has_reported.swap(false, Ordering::Relaxed) {
                        tracing::info!(bucket = self.bucket, "limits are granted by the broker again");
                    }
                    return Ok(answer);
                }
                Ok(Err(error)) => reason = error,
                Err(_) => {}
            }
        }
        *self.away_until() = Some(Instant::now() + AWAY_PAUSE);
        if !self.has_reported.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                error = reason,
                bucket = self.bucket,
                "limits cannot be granted by the broker: until it answers, each gateway admits by itself"
            );
        }
        Err(BrokerAway)
    }

    fn away_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.away_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read<T: Default + DeserializeOwned>(&self, name: &str) -> Result<SeenEntry<T>, String> {
        let found = self.store().await?.entry(name).await.map_err(|error| error.to_string())?;
        let (value, revision) = match found {
            // An entry that this version cannot read is replaced.
            Some(entry) if entry.operation == Operation::Put => {
                (serde_json::from_slice(&entry.value).unwrap_or_default(), entry.revision)
            }
            Some(entry) => (T::default(), entry.revision),
            None => (T::default(), 0),
        };
        Ok(SeenEntry { name: name.to_owned(), value, revision })
    }

    /// Writes the entry if its revision is still `revision`. Returns the new revision, or `None` after a change by another gateway.
    async fn write<T: Serialize>(&self, name: &str, value: &T, revision: u64) -> Result<Option<u64>, String> {
        let value = Bytes::from(serde_json::to_vec(value).map_err(|error| error.to_string())?);
        match self.store().await?.update(name, value, revision).await {
            Ok(revision) => Ok(Some(revision)),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Returns the run that holds the lease of a gateway.
    async fn run_of(&self, gateway: &str) -> Result<Option<Uuid>, String> {
        let Some(key) = lease::key(gateway) else { return Ok(None) };
        let open = || async { self.open(lease::BUCKET).await };
        let entry = self.leases.get_or_try_init(open).await?.entry(key).await.map_err(|error| error.to_string())?;
        let entry = entry.filter(|entry| entry.operation == Operation::Put);
        Ok(entry.and_then(|entry| serde_json::from_slice::<Lease>(&entry.value).ok()).map(|lease| lease.incarnation))
    }

    async fn store(&self) -> Result<&kv::Store, String> {
        self.store.get_or_try_init(|| async { self.open(self.bucket).await }).await
    }

    async fn open(&self, bucket: &str) -> Result<kv::Store, String> {
        let connect = || self.broker.connect(BrokerRole::Gateway, &self.name, |_| {});
        let client = self.client.get_or_try_init(connect).await.map_err(|error| error.to_string())?;
        let found = jetstream::new(client.clone()).get_key_value(bucket).await;
        found.map_err(|error| format!("bucket {bucket}, expected a bucket made by `recorder stream create`: {error}"))
    }
}
