//! The orphan reaper: ends the open chats of lost gateways, so that no chat stays `started` for ever.
//!
//! The end is published as a `ChatFailed` event in the stream, never written to the tables directly, so that a replay
//! finds the end too. Any number of recorders may run a reaper: a lock lets one reaper at a time publish, and two
//! reapers would publish the same event ids. If the chat's true end arrives later, the projection replaces the reaper's
//! end.

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
use time::macros::datetime;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::policy::failure_detector::{FailureDetector, LostGateway, OpenGateway};
use crate::policy::overdue_chats::OverdueChats;
use crate::source::is_connected;
use crate::store::open_chats::{self, OpenChat};
use crate::store::{self, LeaderLock};

/// A time after the start of any chat, whatever the clocks say.
const END_OF_TIME: OffsetDateTime = datetime!(9999-12-31 0:00 UTC);

/// The maximum number of gateways per look; gateways with the oldest open chats come first.
const MAX_GATEWAYS: u16 = 1000;

/// The maximum number of chats ended per look, for one gateway or for all overdue chats.
const MAX_CHATS: u16 = 200;

/// The longest pause between two looks. With a short grace period, a look comes every quarter of the period.
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The timeout for publishing all ends of one call, acknowledgements included.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(20);

/// The rules for ending a chat without a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrphanPolicy {
    /// The time for which the gateway's lease must be missing (`RECORDER_GATEWAY_GRACE`).
    pub grace: Duration,
    /// The maximum duration of a chat (`RECORDER_LONGEST_CHAT`). A longer chat is ended even while the gateway's lease
    /// is alive.
    pub longest_chat: Duration,
}

/// A worker that looks for lost gateways and for overdue chats.
#[derive(Debug)]
pub struct OrphanReaper {
    client: Client,
    pool: PgPool,
    metrics: Arc<Metrics>,
    policy: OrphanPolicy,
    check_interval: Duration,
    detector: FailureDetector,
    /// The overdue chats of an earlier look; `None` if the latest look found no overdue chat.
    overdue: Option<OverdueChats>,
}

/// The broker's state at the time of a look.
struct BrokerState {
    leases: kv::Store,
    last_sequence: u64,
    acknowledged: u64,
}

impl OrphanReaper {
    /// Creates a reaper with these rules. The interval between looks follows from the grace period.
    pub fn new(client: Client, pool: PgPool, metrics: Arc<Metrics>, policy: OrphanPolicy) -> Self {
        let check_interval = (policy.grace / 4).min(MAX_CHECK_INTERVAL);
        // The detector tolerates pauses of two intervals plus the publishing timeout, as a slow server makes a look
        // slow.
        let detector = FailureDetector::new(policy.grace, check_interval * 2 + PUBLISH_TIMEOUT);
        Self { client, pool, metrics, policy, check_interval, detector, overdue: None }
    }

    /// Runs a look at every interval until told to stop, and sets the metric of missing gateways.
    pub async fn run(mut self, stop: CancellationToken) {
        while stop.run_until_cancelled(sleep(self.check_interval)).await.is_some() {
            let step = stop.run_until_cancelled(self.step()).await;
            let is_known = matches!(step, Some(Ok(_)));
            if let Some(Err(error)) = step {
                // After a failed look nothing is known: a lease may have been there. Every grace period starts again.
                self.detector.reset();
                self.overdue = None;
                tracing::debug!(
                    error = format!("{error:#}"),
                    "the leases could not be read: every grace period starts again"
                );
            }
            let missing = u32::try_from(self.detector.missing_count()).unwrap_or(u32::MAX);
            self.metrics.gateways_missing.set(if is_known { f64::from(missing) } else { f64::NAN });
        }
    }

    /// Runs one look and ends the chats found lost or overdue. Returns the number of ended chats.
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
        let new_overdue = OverdueChats::find(now, self.policy.longest_chat, broker.last_sequence, &seen);
        // If the broker went back in time, the required sequence may never be reached: start again with the present
        // state.
        let earlier = self.overdue.take().filter(|seen| seen.required_sequence <= broker.last_sequence);
        self.overdue = new_overdue.clone().map(|new| earlier.unwrap_or(new));
        let overdue = self.overdue.clone().filter(|overdue| overdue.required_sequence <= broker.acknowledged);
        if lost.is_empty() && overdue.is_none() {
            return Ok(0);
        }
        // The lock is held until the transaction ends, after all ends were published and acknowledged.
        let Some(lock) = LeaderLock::try_acquire(&self.pool, store::ORPHANS_LOCK).await? else { return Ok(0) };
        let mut ended = 0;
        for LostGateway { gateway, started_before, .. } in lost {
            let started_before = started_before.unwrap_or(END_OF_TIME);
            let chats = open_chats::open(&self.pool, Some(&gateway), started_before, MAX_CHATS).await?;
            tracing::warn!(gateway, chats = chats.len(), "a gateway is lost: ending its open chats");
            ended += chats.len();
            let required_sequence = self.publish_ends(chats, now).await?;
            self.detector.ends_published(&gateway, required_sequence);
        }
        if let (Some(OverdueChats { gateways, .. }), Some(new_overdue)) = (overdue, new_overdue) {
            let mut chats = Vec::new();
            for (gateway, started_before) in gateways {
                let room = MAX_CHATS.saturating_sub(u16::try_from(chats.len()).unwrap_or(u16::MAX));
                chats.extend(open_chats::open(&self.pool, Some(&gateway), started_before, room).await?);
            }
            if !chats.is_empty() {
                tracing::warn!(chats = chats.len(), "chats took longer than RECORDER_LONGEST_CHAT: ending the chats");
            }
            ended += chats.len();
            // The raised sequence keeps the same chats from being ended twice. The next look, after the tables hold
            // these ends, takes the next chats.
            let published = self.publish_ends(chats, now).await?;
            let required_sequence = published.max(new_overdue.required_sequence);
            self.overdue = Some(OverdueChats { required_sequence, ..new_overdue });
        }
        lock.commit().await?;
        Ok(ended)
    }

    /// Reads the broker's state. An error if the broker is away, a bucket, stream or consumer is missing, or the grace
    /// period is not longer than the renewal interval of a lease.
    async fn broker_state(&self) -> anyhow::Result<BrokerState> {
        anyhow::ensure!(is_connected(&self.client), "the broker is away");
        let jetstream = jetstream::new(self.client.clone());
        let leases = jetstream.get_key_value(BUCKET).await.context("the bucket of leases could not be opened")?;
        let lifetime = leases.stream.cached_info().config.max_age;
        anyhow::ensure!(
            self.policy.grace > renewal_interval(lifetime),
            "RECORDER_GATEWAY_GRACE is {:?}: expected longer than the renewal interval of a lease, {:?}",
            self.policy.grace,
            renewal_interval(lifetime)
        );
        let stream = jetstream.get_stream(NAME).await.context("the stream could not be read")?;
        let consumer = stream.consumer_info(CONSUMER).await.context("the consumer could not be read")?;
        Ok(BrokerState {
            leases,
            last_sequence: stream.cached_info().state.last_sequence,
            acknowledged: consumer.ack_floor.stream_sequence,
        })
    }

    /// Publishes an end for each chat and waits for the broker's acknowledgements. Returns the sequence of the last
    /// end, 0 for no chats.
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
        timeout(PUBLISH_TIMEOUT, published)
            .await
            .context("the broker did not acknowledge the ends of chats within the timeout")?
    }
}

async fn lease_of(leases: &kv::Store, open: &OpenGateway) -> anyhow::Result<Option<Lease>> {
    // A name that no gateway can have has no lease key, so no lease.
    let Some(key) = key(&open.gateway) else { return Ok(None) };
    let Some(entry) = leases.entry(key).await? else { return Ok(None) };
    Ok(match entry.operation {
        kv::Operation::Put => Some(serde_json::from_slice(&entry.value).context("a lease could not be parsed")?),
        kv::Operation::Delete | kv::Operation::Purge => None,
    })
}

/// Returns the `ChatFailed` event for a chat of a lost gateway. The stage is `gateway_lost`; the end time is never
/// before the start time, even if clocks differ.
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
        operation: chat.operation,
        conversation_id: chat.conversation_id,
        user_id: chat.user_id,
        key_id: chat.key_id,
        project_id: chat.project_id,
        gateway: chat.gateway,
        started_at: chat.started_at,
        failed_at,
        model: chat.model,
        stage: FailureStage::GatewayLost,
        error,
        message: None,
        usage: Usage::default(),
        media: None,
        time_to_first_token_ms: None,
        duration_ms,
        upstream: None,
        attempts: Vec::new(),
        notes: Vec::new(),
        recording: chat.recording,
        traceparent: None,
        restored: None,
    }))
}
