//! The lease: an entry on the broker that expires unless the gateway renews the entry, and so proves that the gateway
//! is alive.
//!
//! Recorders end the open chats of a gateway whose lease has been gone for a while. Chats never wait for the lease: if
//! the broker is away, the gateway continues without a lease, and recorders draw no conclusion from a missing lease
//! while the broker was away for the recorders as well. The lease has a connection of its own, so that events in a
//! queue do not delay a renewal.

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions};
use shared::lease::{BUCKET, Lease, key, renewal_interval};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

/// The time for which the gateway's start waits for the first lease. Afterwards the gateway starts without a lease.
const FIRST_LEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// The delay between two attempts while the lease cannot be renewed.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Takes and renews the gateway's lease.
#[derive(Debug)]
pub struct LeaseRenewer {
    client: Client,
    connected: Arc<Notify>,
    lease: Lease,
    key: String,
    is_held: bool,
}

/// Reasons for which a lease could not be renewed.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("the gateway is not connected to the broker")]
    Disconnected,
    #[error("cannot use bucket {BUCKET}, expected a bucket created by `recorder stream create`: {0}")]
    Bucket(String),
    #[error("cannot write the lease: {0}")]
    Put(String),
}

impl LeaseRenewer {
    /// Connects to the broker, and takes the lease if the broker is available. To be called before the first chat, so
    /// that no chat is older than the lease.
    pub async fn start(nats_url: &str, instance: &str) -> Result<Self, async_nats::ConnectError> {
        let connected = Arc::new(Notify::new());
        let notify = Arc::clone(&connected);
        let client = ConnectOptions::new()
            .name(format!("gateway {instance} lease"))
            .retry_on_initial_connect()
            .ping_interval(Duration::from_secs(5))
            .event_callback(move |event| {
                if event == async_nats::Event::Connected {
                    notify.notify_one();
                }
                std::future::ready(())
            })
            .connect(&shared::stream::servers(nats_url)[..])
            .await?;
        let now = shared::event::now();
        let instance = instance.to_owned();
        let key = key(&instance).unwrap_or_default();
        let lease = Lease { instance, incarnation: Uuid::now_v7(), since: now, renewed_at: now };
        let mut renewer = Self { client, connected, lease, key, is_held: false };
        let first_renewal = async {
            renewer.connected.notified().await;
            renewer.renew_once().await
        };
        if timeout(FIRST_LEASE_TIMEOUT, first_renewal).await.is_err() {
            tracing::warn!("the lease could not be taken in time; the gateway starts without a lease");
        }
        Ok(renewer)
    }

    /// Renews the lease forever: at the interval that suits the lease's lifetime, and after every reconnection.
    pub async fn run(mut self) {
        loop {
            let delay = self.renew_once().await;
            tokio::select! {
                () = sleep(delay) => {}
                () = self.connected.notified() => {}
            }
        }
    }

    /// Renews the lease once, and returns the delay until the next renewal.
    async fn renew_once(&mut self) -> Duration {
        match self.renew().await {
            Ok(lifetime) => {
                if !self.is_held {
                    tracing::info!(?lifetime, "the lease is held");
                }
                self.is_held = true;
                renewal_interval(lifetime)
            }
            Err(error) => {
                if self.is_held || !matches!(error, LeaseError::Disconnected) {
                    tracing::warn!(%error, "the lease could not be renewed");
                }
                self.is_held = false;
                RETRY_DELAY
            }
        }
    }

    async fn renew(&mut self) -> Result<Duration, LeaseError> {
        // A message that is published while the broker is away would only pile up.
        if self.client.connection_state() != State::Connected {
            return Err(LeaseError::Disconnected);
        }
        let jetstream: Context = jetstream::new(self.client.clone());
        // The bucket is looked up for each renewal, because it may have been created anew with another lifetime.
        let bucket = jetstream.get_key_value(BUCKET).await.map_err(|error| LeaseError::Bucket(error.to_string()))?;
        self.lease.renewed_at = shared::event::now();
        let entry = serde_json::to_vec(&self.lease).map_err(|error| LeaseError::Put(error.to_string()))?;
        bucket.put(&self.key, entry.into()).await.map_err(|error| LeaseError::Put(error.to_string()))?;
        Ok(bucket.stream.cached_info().config.max_age)
    }
}
