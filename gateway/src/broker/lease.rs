//! The lease: says, on the broker, that this gateway lives, for as long as it does.
//!
//! Recorders end the open chats of a gateway whose lease has been gone for a while. The chats themselves never wait for it:
//! where the broker is away the gateway goes on without, and recorders know that a lease proves nothing while they could
//! not see the broker either. The connection is its own: a lease must not be late because it waited behind events.

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions};
use shared::lease::{BUCKET, Lease, key, renewal_interval};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

/// How long the gateway's start waits for the first one. Then it goes on without.
const FIRST_LEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two tries while it cannot be renewed.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Keeps this gateway's lease.
#[derive(Debug)]
pub struct LeaseRenewer {
    client: Client,
    connected: Arc<Notify>,
    lease: Lease,
    key: String,
    is_held: bool,
}

/// Why a lease could not be renewed.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("the broker is away")]
    Disconnected,
    #[error("bucket {BUCKET} cannot be used, expected one made by `recorder stream create`: {0}")]
    Bucket(String),
    #[error("the entry was not taken: {0}")]
    Put(String),
}

impl LeaseRenewer {
    /// Connects, and takes the lease if the broker is there: before the first chat, so that none is older than its lease.
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
            tracing::warn!("the lease could not be taken yet: the gateway starts without");
        }
        Ok(renewer)
    }

    /// Renews it for ever.
    pub async fn run(mut self) {
        loop {
            let delay = self.renew_once().await;
            tokio::select! {
                () = sleep(delay) => {}
                () = self.connected.notified() => {}
            }
        }
    }

    /// Renews it once; says when to do so again.
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
        // What is published while the broker is away only piles up.
        if self.client.connection_state() != State::Connected {
            return Err(LeaseError::Disconnected);
        }
        let jetstream: Context = jetstream::new(self.client.clone());
        // Asked for anew each time: it may have been made again, with another lifetime.
        let bucket = jetstream.get_key_value(BUCKET).await.map_err(|error| LeaseError::Bucket(error.to_string()))?;
        self.lease.renewed_at = shared::event::now();
        let entry = serde_json::to_vec(&self.lease).map_err(|error| LeaseError::Put(error.to_string()))?;
        bucket.put(&self.key, entry.into()).await.map_err(|error| LeaseError::Put(error.to_string()))?;
        Ok(bucket.stream.cached_info().config.max_age)
    }
}
