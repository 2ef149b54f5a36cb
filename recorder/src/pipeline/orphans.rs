//! Orphans: ends the chats whose gateway is lost, so that none stays `started` for ever.
//!
//! Never in the tables: the end is an event in the stream like any other, so that a replay finds it too. Several recorders
//! may watch; one at a time acts, and if two did, they would publish the same event ids. A true end that arrives later
//! takes the place of this one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_nats::Client;
use async_nats::jetstream::{self, kv};
use shared::envelope;
use shared::event::{ChatError, ChatFailed, Event, FailureStage};
use shared::lease::{BUCKET, Lease, key, renewal_interval};
use shared::stream::{CONSUMER, NAME};
use shared::usage::Usage;
use sqlx::postgres::PgPool;
use time::OffsetDateTime;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::policy::failure_detector::{FailureDetector, LostGateway, OpenGateway};
use crate::source::is_connected;
use crate::store::open_chats::{self, OpenChat};
use crate::store::{self, LeaderLock};

/// How many gateways are looked after at once, those with the oldest chats first.
const MAX_GATEWAYS: u16 = 1000;

/// How many chats are ended at once.
const MAX_CHATS: u16 = 200;

/// The longest time between two looks.
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// How long publishing may take, all of it.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(20);

/// When a chat has no gateway any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrphanPolicy {
    /// How long its gateway's lease must have been missing.
    pub grace: Duration,
    /// How long a chat may take, whatever its gateway's lease says.
    pub longest_chat: Duration,
}

/// A worker that looks for lost gateways.
#[derive(Debug)]
pub struct OrphanReaper {
    client: Client,
    pool: PgPool,
    metrics: Arc<Metrics>,
    policy: OrphanPolicy,
    check_interval: Duration,
    detector: FailureDetector,
    /// Chats that took too long, as seen by an earlier look; none if that saw none.
    overdue: Option<OverdueChats>,
}

/// Chats that took too long, to be ended once the ledger is known to lack their ends.
#[derive(Clone, Copy, Debug)]
struct OverdueChats {
    /// Those that started before this.
    started_before: OffsetDateTime,
    /// How far the stream must be in the ledger, so that an end which was already there is not overlooked.
    required_sequence: u64,
}

/// The broker's side of a look.
struct BrokerState {
    leases: kv::Store,
    last_sequence: u64,
    acknowledged: u64,
}

impl OrphanReaper {
    /// A worker with these rules.
    pub fn new(client: Client, pool: PgPool, metrics: Arc<Metrics>, policy: OrphanPolicy) -> Self {
        let check_interval = (policy.grace / 4).min(MAX_CHECK_INTERVAL);
        // A look may take its time where a server is slow to answer.
        let detector = FailureDetector::new(policy.grace, check_interval * 2 + PUBLISH_TIMEOUT);
        Self { client, pool, metrics, policy, check_interval, detector, overdue: None }
    }

    /// Looks until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        while stop.run_until_cancelled(sleep(self.check_interval)).await.is_some() {
            if let Some(Err(error)) = stop.run_until_cancelled(self.step()).await {
                // What could not be looked at may have been there.
                self.detector.reset();
                self.overdue = None;
                tracing::debug!(error = format!("{error:#}"), "leases could not be looked at");
            }
            self.metrics.gateways_missing.set(i64::try_from(self.detector.missing_count()).unwrap_or(i64::MAX));
        }
    }

    /// Takes one look, and ends what has to be ended. Says how many chats that were.
    pub async fn step(&mut self) -> anyhow::Result<usize> {
        let broker = self.broker_state().await?;
        let mut seen = Vec::new();
        for open in open_chats::open_gateways(&self.pool, MAX_GATEWAYS).await? {
            let lease = lease_of(&broker.leases, &open).await?;
            seen.push((open, lease));
        }
        let lost = self.detector.observe(Instant::now(), broker.last_sequence, &seen);
        let lost: Vec<_> = lost.into_iter().filter(|lost| lost.required_sequence <= broker.acknowledged).collect();
        let now = shared::event::now();
        let begun = now - self.policy.longest_chat;
        let new_overdue = OverdueChats { started_before: begun, required_sequence: broker.last_sequence };
        let any_overdue = seen.iter().any(|(open, _)| open.oldest < begun);
        // Where the broker went back in time, what was asked for will not come.
        self.overdue = any_overdue
            .then(|| self.overdue.filter(|seen| seen.required_sequence <= broker.last_sequence).unwrap_or(new_overdue));
        let overdue = self.overdue.filter(|overdue| overdue.required_sequence <= broker.acknowledged);
        if lost.is_empty() && overdue.is_none() {
            return Ok(0);
        }
        // Held until the transaction ends, with everything published and acknowledged.
        let Some(lock) = LeaderLock::try_acquire(&self.pool, store::ORPHANS_LOCK).await? else { return Ok(0) };
        let mut ended = 0;
        for LostGateway { gateway, started_before, .. } in lost {
            let chats = open_chats::open(&self.pool, Some(&gateway), started_before.unwrap_or(now), MAX_CHATS).await?;
            tracing::warn!(gateway, chats = chats.len(), "a gateway is lost: its open chats are ended");
            ended += chats.len();
            let required_sequence = self.publish_ends(chats, now).await?;
            self.detector.ends_published(&gateway, required_sequence);
        }
        if let Some(OverdueChats { started_before, .. }) = overdue {
            let chats = open_chats::open(&self.pool, None, started_before, MAX_CHATS).await?;
            if !chats.is_empty() {
                tracing::warn!(chats = chats.len(), "chats took longer than any may: they are ended");
            }
            ended += chats.len();
            // What was ended is not ended again before the ledger has seen that, and others have their turn then.
            let published = self.publish_ends(chats, now).await?;
            self.overdue =
                Some(OverdueChats { required_sequence: published.max(new_overdue.required_sequence), ..new_overdue });
        }
        lock.commit().await?;
        Ok(ended)
    }

    /// What the broker has to say; an error if it is away, or not what it has to be.
    async fn broker_state(&self) -> anyhow::Result<BrokerState> {
        anyhow::ensure!(is_connected(&self.client), "the broker is away");
        let jetstream = jetstream::new(self.client.clone());
        let leases = jetstream.get_key_value(BUCKET).await.context("the bucket of leases")?;
        let lifetime = leases.stream.cached_info().config.max_age;
        anyhow::ensure!(
            self.policy.grace > renewal_interval(lifetime),
            "the grace {:?} is no longer than a renewal takes, {:?}",
            self.policy.grace,
            renewal_interval(lifetime)
        );
        let stream = jetstream.get_stream(NAME).await.context("the stream")?;
        let consumer = stream.consumer_info(CONSUMER).await.context("the consumer")?;
        Ok(BrokerState {
            leases,
            last_sequence: stream.cached_info().state.last_sequence,
            acknowledged: consumer.ack_floor.stream_sequence,
        })
    }

    /// Publishes the ends of these chats, and waits until the broker has them; says where the last one is.
    async fn publish_ends(&self, chats: Vec<OpenChat>, now: OffsetDateTime) -> anyhow::Result<u64> {
        let jetstream = jetstream::new(self.client.clone());
        let published = async {
            let mut acknowledgements = Vec::new();
            for chat in chats {
                let event = gateway_lost_event(chat, now);
                let mut headers = async_nats::HeaderMap::new();
                envelope::headers(&event, "/recorder")
                    .into_iter()
                    .for_each(|(name, value)| headers.insert(name, value));
                let subject = shared::subject::of(event.kind(), event.user_id());
                acknowledgements.push(jetstream.publish_with_headers(subject, headers, event.encode()?.into()).await?);
            }
            let mut required_sequence = 0;
            for acknowledgement in acknowledgements {
                let acknowledged = acknowledgement.await?;
                anyhow::ensure!(acknowledged.stream == NAME, "stream {} took an event", acknowledged.stream);
                required_sequence = required_sequence.max(acknowledged.sequence);
                self.metrics.orphaned.inc();
            }
            Ok(required_sequence)
        };
        timeout(PUBLISH_TIMEOUT, published).await.context("the broker took too long")?
    }
}

async fn lease_of(leases: &kv::Store, open: &OpenGateway) -> anyhow::Result<Option<Lease>> {
    // A name that no gateway can have has no lease.
    let Some(key) = key(&open.gateway) else { return Ok(None) };
    let Some(entry) = leases.entry(key).await? else { return Ok(None) };
    Ok(match entry.operation {
        kv::Operation::Put => Some(serde_json::from_slice(&entry.value).context("a lease makes no sense")?),
        kv::Operation::Delete | kv::Operation::Purge => None,
    })
}

/// The end of a chat whose gateway cannot tell it.
fn gateway_lost_event(chat: OpenChat, now: OffsetDateTime) -> Event {
    let error = ChatError {
        status: None,
        kind: Some("gateway_lost".to_owned()),
        code: None,
        message: "the gateway was lost before it told how the chat ended".to_owned(),
    };
    let failed_at = now.max(chat.started_at);
    let duration_ms = u64::try_from((failed_at - chat.started_at).whole_milliseconds()).unwrap_or_default();
    Event::ChatFailed(Box::new(ChatFailed {
        chat_id: chat.chat_id,
        conversation_id: chat.conversation_id,
        user_id: chat.user_id,
        gateway: chat.gateway,
        started_at: chat.started_at,
        failed_at,
        model: chat.model,
        stage: FailureStage::GatewayLost,
        error,
        message: None,
        usage: Usage::default(),
        time_to_first_token_ms: None,
        duration_ms,
        upstream: None,
        attempts: Vec::new(),
        notes: Vec::new(),
    }))
}
