//! The relay: moves events to JetStream, and lets go of one only when the broker says that it has it.
//!
//! Acknowledgements come to an inbox of the relay's own, not through the client library's request machinery: that leaks a
//! little with every publish that is never answered, and wakes one task more for each. What the library loses when a
//! connection breaks is published again; the broker tells repeated events by their id, and so do the recorders.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Message, StatusCode};
use futures_util::StreamExt;
use rand::RngExt as _;
use serde::Deserialize;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior};

use crate::journal::{Durability, Entry};
use crate::metrics::Metrics;

/// How many events may be without acknowledgement at once.
const MAX_IN_FLIGHT: usize = 512;

/// How many events are taken over at once.
const BATCH: usize = 64;

/// How long an acknowledgement may take before the event is published again. A cluster that elects a leader takes 4 to 8 s.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// How often overdue events are looked for.
const TICK: Duration = Duration::from_millis(100);

/// How long acknowledgements may be outstanding before new chats are refused.
const WELL_WITHIN: Duration = Duration::from_secs(2);

/// What is known of the broker without asking it.
#[derive(Debug, Default)]
pub struct BrokerHealth {
    connected: AtomicBool,
    /// For how long the oldest event has been waiting, in milliseconds.
    oldest_ms: AtomicU64,
    reconnected: Notify,
}

impl BrokerHealth {
    /// Whether events get through.
    pub fn is_well(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
            && self.oldest_ms.load(Ordering::Relaxed) < u64::try_from(WELL_WITHIN.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Connects to the broker; if it is away, as soon as it is back.
pub async fn connect(url: &str, instance: &str, health: Arc<BrokerHealth>) -> Result<Client, async_nats::ConnectError> {
    ConnectOptions::new()
        .name(format!("gateway {instance}"))
        .retry_on_initial_connect()
        // A connection that died without a word is noticed within twice this.
        .ping_interval(Duration::from_secs(5))
        .event_callback(move |event| {
            let health = Arc::clone(&health);
            async move {
                match event {
                    async_nats::Event::Connected => {
                        health.connected.store(true, Ordering::Relaxed);
                        health.reconnected.notify_one();
                        tracing::info!("connected to the broker");
                    }
                    async_nats::Event::Disconnected | async_nats::Event::Closed => {
                        health.connected.store(false, Ordering::Relaxed);
                        tracing::warn!("disconnected from the broker");
                    }
                    other => tracing::warn!(event = %other, "the broker's client reports"),
                }
            }
        })
        .connect(url)
        .await
}

/// Moves entries to the broker until the journal is closed and everything is acknowledged.
pub struct Relay {
    client: Client,
    entries: mpsc::Receiver<Entry>,
    health: Arc<BrokerHealth>,
    metrics: Arc<Metrics>,
    inbox: String,
    /// What is without acknowledgement, by the number in its reply subject. Numbers grow, so the first is the oldest.
    in_flight: BTreeMap<u64, InFlight>,
    next: u64,
}

struct InFlight {
    entry: Entry,
    since: Instant,
    /// When to publish it again, if nothing has been heard by then.
    again_at: Instant,
    tries: u32,
}

/// The broker's answer to a publish.
#[derive(Deserialize)]
struct PubAck {
    #[serde(default)]
    stream: String,
    error: Option<PubError>,
}

#[derive(Deserialize)]
struct PubError {
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("in_flight", &self.in_flight.len()).finish_non_exhaustive()
    }
}

impl Relay {
    /// A relay for these entries.
    pub fn new(
        client: Client,
        entries: mpsc::Receiver<Entry>,
        health: Arc<BrokerHealth>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let inbox = client.new_inbox();
        Self { client, entries, health, metrics, inbox, in_flight: BTreeMap::new(), next: 0 }
    }

    /// Runs until the last [`Journal`](crate::journal::Journal) is gone and everything is acknowledged.
    pub async fn run(mut self) -> Result<(), async_nats::SubscribeError> {
        let mut acks = self.client.subscribe(format!("{}.*", self.inbox)).await?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        let mut is_closed = false;
        while !(is_closed && self.in_flight.is_empty()) {
            let takes_more = !is_closed && self.in_flight.len() < MAX_IN_FLIGHT;
            tokio::select! {
                Some(ack) = acks.next() => self.answered(&ack),
                taken = self.entries.recv_many(&mut batch, BATCH), if takes_more => {
                    is_closed = taken == 0;
                    for entry in batch.drain(..) {
                        self.take_over(entry).await;
                    }
                }
                () = self.health.reconnected.notified() => self.publish_due(Due::Everything).await,
                _ = tick.tick() => self.publish_due(Due::Overdue).await,
            }
        }
        Ok(())
    }

    async fn take_over(&mut self, entry: Entry) {
        let now = Instant::now();
        let number = self.next;
        self.next += 1;
        self.in_flight.insert(number, InFlight { entry, since: now, again_at: now + ACK_TIMEOUT, tries: 0 });
        self.publish(number).await;
    }

    /// Publishes again what the broker may not have.
    async fn publish_due(&mut self, due: Due) {
        let now = Instant::now();
        let oldest = self.in_flight.values().next().map_or(Duration::ZERO, |first| now - first.since);
        self.health.oldest_ms.store(u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.metrics.journal_waiting.set(i64::try_from(self.in_flight.len() + self.entries.len()).unwrap_or(i64::MAX));
        self.metrics.journal_oldest_seconds.set(oldest.as_secs_f64());
        if !self.health.connected.load(Ordering::Relaxed) {
            return;
        }
        let is_due = |held: &InFlight| due == Due::Everything || held.again_at <= now;
        let numbers: Vec<u64> =
            self.in_flight.iter().filter(|(_, held)| is_due(held)).map(|(number, _)| *number).collect();
        for number in numbers {
            if let Some(held) = self.in_flight.get_mut(&number) {
                held.tries += 1;
                held.again_at = now + backoff(held.tries).max(ACK_TIMEOUT);
                self.metrics.journal_retries.inc();
                self.publish(number).await;
            }
        }
    }

    async fn publish(&mut self, number: u64) {
        let Some(held) = self.in_flight.get_mut(&number) else { return };
        let event = &held.entry.event;
        let reply = format!("{}.{number}", self.inbox);
        let sent = self
            .client
            .publish_with_reply_and_headers(event.subject.clone(), reply, event.headers.clone(), event.payload.clone())
            .await;
        if let Err(error) = sent {
            held.again_at = Instant::now() + backoff(held.tries);
            tracing::error!(%error, subject = event.subject, bytes = event.payload.len(), "an event could not be published yet");
        }
    }

    /// The broker has it, or says why not.
    fn answered(&mut self, answer: &Message) {
        let number = answer.subject.rsplit_once('.').and_then(|(_, number)| number.parse().ok());
        let Some(number) = number else { return };
        let problem = match (answer.status, serde_json::from_slice::<PubAck>(&answer.payload)) {
            // A repeated event is acknowledged too: the broker has it.
            (None, Ok(ack)) if ack.error.is_none() && ack.stream == shared::stream::NAME => {
                if let Some(held) = self.in_flight.remove(&number) {
                    self.metrics.journal_ack_seconds.observe(held.since.elapsed().as_secs_f64());
                    // Nobody may be waiting any longer. It is recorded all the same.
                    let _ = held.entry.durable.send(Durability::Broker);
                }
                return;
            }
            (Some(StatusCode::NO_RESPONDERS), _) => "no stream takes it".to_owned(),
            (_, Ok(PubAck { error: Some(error), .. })) => format!("{} ({})", error.description, error.err_code),
            (_, Ok(ack)) => format!("it went to stream {}, expected {}", ack.stream, shared::stream::NAME),
            (_, Err(_)) => "the answer makes no sense".to_owned(),
        };
        if let Some(held) = self.in_flight.get_mut(&number) {
            if held.tries == 0 {
                tracing::error!(problem, "the broker did not take an event; it will be published again");
            }
            held.again_at = Instant::now() + backoff(held.tries);
        }
    }
}

/// Which events to publish again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// The connection is new: whatever was on the old one may be lost.
    Everything,
    /// No acknowledgement in time.
    Overdue,
}

/// How long to wait after so many tries: 250 ms, doubling, up to 8 s, and up to a quarter more so that gateways spread out.
fn backoff(tries: u32) -> Duration {
    let base = Duration::from_millis(250) * 2_u32.pow(tries.min(5));
    base + base.mul_f64(rand::rng().random_range(0.0..0.25))
}
