//! Following the bucket `ACCESS`: one watch, established again after each loss, for ever. Off the path of chats.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::{self, kv};
use futures_util::{FutureExt as _, StreamExt as _};
use shared::access::{BUCKET, Entry};
use shared::nats::{BrokerConfig, BrokerRole};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::disk_copy::DiskCopy;
use super::state::{Access, AccessEntries};
use crate::metrics::Metrics;

/// The pause between two tries to establish the watch.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// The maximum time for establishing the watch.
const WATCH_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum time between two entries of the first load, before the watch is established again.
const LOAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The interval at which a changed state is copied to the disk, and expired entries are removed.
const COPY_INTERVAL: Duration = Duration::from_secs(1);
/// The time for which the gateway's start waits for the first state.
const FIRST_LOAD_TIMEOUT: Duration = Duration::from_secs(2);

/// Follows the bucket, and keeps the copy on disk.
#[derive(Debug)]
pub struct AccessFollower {
    client: Client,
    connected: Arc<Notify>,
    access: Arc<Access>,
    copy: Option<DiskCopy>,
    metrics: Arc<Metrics>,
    /// True if the state has changed since the last copy.
    is_changed: bool,
    has_reported: bool,
    /// The copy that is being written. A disk that hangs must not keep a revoked key in force.
    copying: Option<JoinHandle<std::io::Result<()>>>,
}

/// The reason for which the watch ended.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error("cannot use the bucket {BUCKET}, expected a bucket made by `recorder stream create`: {0}")]
    Bucket(String),
    #[error("the watch of the bucket {BUCKET} failed: {0}")]
    Watch(String),
}

impl AccessFollower {
    /// Connects to the broker, which may be away. Reads the copy on disk.
    pub async fn start(
        broker: &BrokerConfig,
        instance: &str,
        access: Arc<Access>,
        copy: Option<DiskCopy>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, async_nats::ConnectError> {
        match copy.as_ref().map(DiskCopy::read) {
            Some(Ok(Some(entries))) => access.replace(entries),
            Some(Ok(None)) | None => {}
            Some(Err(error)) => tracing::warn!(%error, "the copy of the API keys on disk cannot be read"),
        }
        let connected = Arc::new(Notify::new());
        let (notify, state) = (Arc::clone(&connected), Arc::clone(&access));
        let on_event = move |event: &async_nats::Event| match event {
            async_nats::Event::Connected => notify.notify_one(),
            async_nats::Event::Disconnected | async_nats::Event::Closed => state.set_current(false),
            _ => {}
        };
        let client = broker.connect(BrokerRole::Gateway, &format!("gateway {instance} access"), on_event).await?;
        Ok(Self { client, connected, access, copy, metrics, is_changed: false, has_reported: false, copying: None })
    }

    /// Follows the bucket for ever.
    pub async fn run(mut self) -> std::convert::Infallible {
        loop {
            let Err(error) = self.watch().await else { continue };
            self.access.set_current(false);
            if !std::mem::replace(&mut self.has_reported, true) {
                let keys = self.access.keys();
                tracing::warn!(%error, keys, "the API keys cannot be followed: the last known state stays in force");
            }
            self.copy_changes();
            sleep(RETRY_DELAY).await;
        }
    }

    /// Loads the bucket, and follows it until the connection is new or the watch fails.
    async fn watch(&mut self) -> Result<(), WatchError> {
        // The connection that is up now is that of the watch. A later connection needs a new watch.
        let _ = self.connected.notified().now_or_never();
        let opening = async {
            let bucket = jetstream::new(self.client.clone()).get_key_value(BUCKET).await;
            let bucket = bucket.map_err(|error| WatchError::Bucket(error.to_string()))?;
            let is_empty = bucket.stream.cached_info().state.messages == 0;
            let watch = bucket.watch_with_history(">").await.map_err(failed)?;
            Ok((watch, is_empty))
        };
        let opened = timeout(WATCH_TIMEOUT, opening).await;
        let (mut watch, is_empty) = opened.map_err(|_| failed("no answer from the broker"))??;
        let known = self.access.entries();
        let entries = if is_empty { known } else { self.load(&mut watch, known).await? };
        self.access.replace(entries);
        let reconnected = Arc::clone(&self.connected);
        self.is_changed = true;
        self.access.set_current(true);
        if std::mem::take(&mut self.has_reported) {
            tracing::info!(keys = self.access.keys(), "the API keys are followed again");
        }
        let mut copying = interval(COPY_INTERVAL);
        copying.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                entry = watch.next() => {
                    let entry = entry.ok_or_else(|| failed("the watch ended"))?.map_err(failed)?;
                    self.apply(&entry);
                }
                () = reconnected.notified() => return Ok(()),
                _ = copying.tick() => self.copy_changes(),
            }
        }
    }

    /// Joins the present entries with the known ones, and returns the result. Known entries that are gone stay: no entry of a key or
    /// a user is ever removed, so a bucket without them was lost and is being filled again.
    async fn load(&self, watch: &mut kv::Watch, known: AccessEntries) -> Result<AccessEntries, WatchError> {
        let (began, mut entries) = (Instant::now(), known);
        loop {
            let entry = timeout(LOAD_TIMEOUT, watch.next()).await.map_err(|_| failed("no entry in time"))?;
            let entry = entry.ok_or_else(|| failed("the watch ended"))?.map_err(failed)?;
            if entry.operation == kv::Operation::Put {
                Entry::read(&entry.key, &entry.value).into_iter().for_each(|read| entries.apply(read));
            }
            if entry.seen_current {
                break;
            }
        }
        tracing::info!(keys = entries.key_count(), duration_ms = began.elapsed().as_millis(), "loaded the API keys");
        Ok(entries)
    }

    fn apply(&mut self, entry: &kv::Entry) {
        if entry.operation == kv::Operation::Put
            && let Some(read) = Entry::read(&entry.key, &entry.value)
        {
            self.access.apply(read);
            self.is_changed = true;
        }
    }

    /// Starts to copy a changed state to the disk, unless a copy is being written, and removes expired entries.
    fn copy_changes(&mut self) {
        self.access.forget_expired(OffsetDateTime::now_utc());
        self.metrics.access_keys.set(i64::try_from(self.access.keys()).unwrap_or(i64::MAX));
        self.metrics.access_current.set(i64::from(self.access.is_current()));
        let Some(copy) = self.copy.clone() else { return };
        if let Some(copying) = &mut self.copying {
            let Some(written) = copying.now_or_never() else { return };
            self.copying = None;
            if let Ok(Err(error)) = written {
                self.is_changed = true;
                tracing::warn!(%error, "the API keys could not be copied to the disk: trying again");
            }
        }
        if std::mem::take(&mut self.is_changed) {
            let entries = self.access.entries();
            self.copying = Some(tokio::task::spawn_blocking(move || copy.write(&entries)));
        }
    }
}

/// Waits until a state is loaded, at most until 2 s after `started`: a gateway that starts beside a broker knows its
/// keys before the first request. A state from the copy on disk is not waited for.
pub async fn wait_until_loaded(access: &Access, started: std::time::Instant) {
    while !access.is_loaded() && started.elapsed() < FIRST_LOAD_TIMEOUT {
        sleep(Duration::from_millis(5)).await;
    }
}

fn failed(error: impl std::fmt::Display) -> WatchError {
    WatchError::Watch(error.to_string())
}
