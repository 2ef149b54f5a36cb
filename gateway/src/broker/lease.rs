//! The lease: an entry on the broker that expires unless the gateway renews the entry, and so proves that the gateway
//! is alive.
//!
//! Recorders end the open chats of a gateway whose lease has been gone for a while. Chats never wait for the lease: if
//! the broker is away, the gateway continues without a lease, and recorders draw no conclusion from a missing lease
//! while the broker was away for the recorders as well. The lease has a connection of its own, so that events in a
//! queue do not delay a renewal.
//!
//! The lease also keeps two gateways of one name apart: a gateway does not start while another run renews the lease, and a
//! running gateway never overwrites the lease of another run.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State;
use async_nats::jetstream::{self, kv};
use shared::lease::{BUCKET, Lease, key, renewal_interval};
use shared::nats::{BrokerConfig, BrokerRole};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::earliest_start::EarliestStart;

/// The time for which the gateway's start waits for the broker. Afterwards the gateway starts without a lease.
const FIRST_LEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// The delay between two attempts while the lease cannot be renewed.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The interval between two looks at the earliest start time of a chat.
const START_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The maximum time for giving the lease back when the gateway stops.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// Takes, renews and gives back the gateway's lease.
#[derive(Debug)]
pub struct LeaseRenewer {
    client: Client,
    connected: Arc<Notify>,
    lease: Lease,
    key: String,
    earliest_start: Arc<EarliestStart>,
    /// True once this run has held the lease.
    was_held: bool,
    /// The text of the last error in the log, until the lease is held again: each error is logged once.
    logged_error: Option<String>,
    /// The revision at which the lease of another run was first seen, until the lease is held.
    contested_since: Option<u64>,
}

/// Reasons for which a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LeaseStartError {
    /// The connection cannot be set up, as with a malformed URL.
    #[error("NATS_URL: cannot connect to the broker to take the lease")]
    Connect(#[from] async_nats::ConnectError),
    /// Another running gateway has the same name.
    #[error(
        "GATEWAY_INSTANCE: another gateway with the name {instance:?} is running and renews its lease (run {incarnation}): give each gateway a name of its own"
    )]
    NameTaken {
        /// The name of both gateways.
        instance: String,
        /// The run that holds the lease.
        incarnation: Uuid,
    },
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
    #[error("run {incarnation} of a gateway with the same name holds the lease")]
    Contested { incarnation: Uuid, revision: u64, lifetime: Duration },
}

impl LeaseRenewer {
    /// Connects to the broker, and takes the lease if the broker is available. To be called before the first chat, so
    /// that no chat is older than the lease.
    ///
    /// `journal` is the id of the journal's directory. The lease of an earlier run with the same journal is taken over at
    /// once. The lease of any other run is watched for half of its lifetime, which is two renewal intervals: a renewal
    /// shows a running gateway of the same name, which is an error.
    pub async fn start(
        broker: &BrokerConfig,
        instance: &str,
        journal: Option<Uuid>,
        earliest_start: Arc<EarliestStart>,
    ) -> Result<Self, LeaseStartError> {
        let connected = Arc::new(Notify::new());
        let notify = Arc::clone(&connected);
        let on_event = move |event: &async_nats::Event| {
            if *event == async_nats::Event::Connected {
                notify.notify_one();
            }
        };
        let client = broker.connect(BrokerRole::Gateway, &format!("gateway {instance} lease"), on_event).await?;
        let now = shared::event::now();
        let instance = instance.to_owned();
        let key = key(&instance).unwrap_or_default();
        let lease = Lease { instance, incarnation: Uuid::now_v7(), journal, since: now, renewed_at: now };
        let mut renewer = Self {
            client,
            connected,
            lease,
            key,
            earliest_start,
            was_held: false,
            logged_error: None,
            contested_since: None,
        };
        let first_renewal = async {
            renewer.connected.notified().await;
            renewer.renew().await
        };
        match timeout(FIRST_LEASE_TIMEOUT, first_renewal).await {
            Ok(Err(LeaseError::Contested { revision, lifetime, .. })) => renewer.contest(revision, lifetime).await?,
            Ok(renewed) => drop(renewer.note_renewal(renewed)),
            Err(_) => tracing::warn!("the lease could not be taken in time; the gateway starts without a lease"),
        }
        Ok(renewer)
    }

    /// Returns the run of the gateway that the lease names.
    pub fn run_id(&self) -> Uuid {
        self.lease.incarnation
    }

    /// Watches the lease of another run for half of its lifetime. Takes the lease over unless the other run renews it.
    async fn contest(&mut self, first_revision: u64, lifetime: Duration) -> Result<(), LeaseStartError> {
        let instance = &self.lease.instance;
        tracing::warn!(instance, "the lease is held by another run: waiting to see if that run is alive");
        let until = Instant::now() + lifetime / 2;
        while Instant::now() < until {
            sleep((lifetime / 40).min(RETRY_DELAY)).await;
            match timeout(FIRST_LEASE_TIMEOUT, self.renew()).await {
                Ok(Err(LeaseError::Contested { incarnation, revision, .. })) => {
                    if revision != first_revision {
                        return Err(LeaseStartError::NameTaken { instance: self.lease.instance.clone(), incarnation });
                    }
                }
                Ok(renewed) => {
                    self.note_renewal(renewed);
                    return Ok(());
                }
                Err(_) => {}
            }
        }
        let taken_over = async {
            let bucket = self.bucket().await?;
            self.write(&bucket, first_revision).await?;
            Ok(lifetime)
        };
        match timeout(FIRST_LEASE_TIMEOUT, taken_over).await {
            Ok(taken_over) => {
                self.note_renewal(taken_over);
            }
            Err(_) => tracing::warn!("the lease could not be taken over in time; the gateway starts without a lease"),
        }
        Ok(())
    }

    /// Renews the lease until stopped: at the interval that suits the lease's lifetime, after every reconnection, and when
    /// a chat has started earlier than the lease says, because the clock was set back. Then gives the lease back.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let renewed = self.renew().await;
            let delay = self.note_renewal(renewed);
            tokio::select! {
                () = self.wait(delay) => {}
                () = self.connected.notified() => {}
                () = stop.cancelled() => break,
            }
        }
        let _ = timeout(RELEASE_TIMEOUT, self.release()).await;
    }

    /// Waits for the delay, or until a chat has started earlier than the lease says.
    async fn wait(&self, delay: Duration) {
        let until = Instant::now() + delay;
        while Instant::now() < until && self.earliest_start.or_earlier(self.lease.since) == self.lease.since {
            sleep(START_CHECK_INTERVAL.min(until - Instant::now())).await;
        }
    }

    /// Logs the outcome of a renewal, and returns the delay until the next renewal.
    fn note_renewal(&mut self, renewed: Result<Duration, LeaseError>) -> Duration {
        match renewed {
            Ok(lifetime) => {
                if !self.was_held || self.logged_error.is_some() {
                    tracing::info!(?lifetime, "the lease is held");
                }
                (self.was_held, self.logged_error, self.contested_since) = (true, None, None);
                renewal_interval(lifetime)
            }
            Err(LeaseError::Contested { incarnation, revision, .. }) => {
                // The lease of a run that has ended expires without a renewal.
                let is_alive = *self.contested_since.get_or_insert(revision) != revision || self.was_held;
                let error = LeaseError::Contested { incarnation, revision: 0, lifetime: Duration::ZERO }.to_string();
                if is_alive && self.logged_error.as_ref() != Some(&error) {
                    tracing::error!(
                        instance = self.lease.instance, %incarnation,
                        "another gateway with the same name holds the lease: stop one of the two, or recorders end the \
                         chats of this gateway while the chats are running"
                    );
                    self.logged_error = Some(error);
                }
                RETRY_DELAY
            }
            Err(error) => {
                let text = error.to_string();
                // A broken connection is logged by the relay's connection, unless a lease was lost with it.
                let is_new = self.logged_error.as_ref() != Some(&text);
                if is_new && (self.was_held || !matches!(error, LeaseError::Disconnected)) {
                    tracing::warn!(%error, "the lease could not be renewed");
                }
                self.logged_error = Some(text);
                RETRY_DELAY
            }
        }
    }

    async fn bucket(&self) -> Result<kv::Store, LeaseError> {
        // A message that is published while the broker is away would only pile up.
        if self.client.connection_state() != State::Connected {
            return Err(LeaseError::Disconnected);
        }
        // The bucket is looked up for each renewal, because it may have been created anew with another lifetime.
        let jetstream = jetstream::new(self.client.clone());
        jetstream.get_key_value(BUCKET).await.map_err(|error| LeaseError::Bucket(error.to_string()))
    }

    /// Takes or renews the lease, unless another run holds the lease. Returns the lifetime of the lease.
    async fn renew(&mut self) -> Result<Duration, LeaseError> {
        let bucket = self.bucket().await?;
        let lifetime = bucket.stream.cached_info().config.max_age;
        let revision = match self.find(&bucket).await? {
            Some((holder, revision)) if self.may_replace(&holder) => revision,
            Some((holder, revision)) => {
                return Err(LeaseError::Contested { incarnation: holder.incarnation, revision, lifetime });
            }
            None => 0,
        };
        self.write(&bucket, revision).await?;
        Ok(lifetime)
    }

    /// Returns true for a lease of this run, of an earlier run with the same journal, and of a gateway of version 0.1.0. Once
    /// this run has held the lease, a lease of any other run is that of a second gateway.
    fn may_replace(&self, holder: &Lease) -> bool {
        let is_own = holder.incarnation == self.lease.incarnation;
        is_own || (!self.was_held && (holder.journal.is_none() || holder.journal == self.lease.journal))
    }

    /// Reads the lease of any run, and the revision of the entry.
    async fn find(&self, bucket: &kv::Store) -> Result<Option<(Lease, u64)>, LeaseError> {
        let entry = bucket.entry(&*self.key).await.map_err(|error| LeaseError::Bucket(error.to_string()))?;
        let entry = entry.filter(|entry| entry.operation == kv::Operation::Put);
        // An entry that is no lease belongs to no gateway.
        Ok(entry.and_then(|entry| Some((serde_json::from_slice(&entry.value).ok()?, entry.revision))))
    }

    /// Writes the lease over the entry of this revision, 0 for no entry. Fails if the entry has changed.
    async fn write(&mut self, bucket: &kv::Store, revision: u64) -> Result<(), LeaseError> {
        self.lease.since = self.earliest_start.or_earlier(self.lease.since);
        self.lease.renewed_at = shared::event::now();
        let value = serde_json::to_vec(&self.lease).map_err(|error| LeaseError::Put(error.to_string()))?;
        let written = if revision == 0 {
            bucket.create(&*self.key, value.into()).await.map_err(|error| error.to_string())
        } else {
            bucket.update(&*self.key, value.into(), revision).await.map_err(|error| error.to_string())
        };
        written.map(drop).map_err(LeaseError::Put)
    }

    /// Deletes the lease of this run, so that the next run need not watch the lease, whatever its journal.
    async fn release(&self) -> Result<(), LeaseError> {
        let bucket = self.bucket().await?;
        if let Some((holder, revision)) = self.find(&bucket).await?
            && holder.incarnation == self.lease.incarnation
        {
            let deleted = bucket.delete_expect_revision(&*self.key, Some(revision)).await;
            deleted.map_err(|error| LeaseError::Put(error.to_string()))?;
        }
        Ok(())
    }
}
