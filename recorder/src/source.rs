//! The live source: receives events in batches from the broker's durable pull consumer.
//!
//! All recorders share the one consumer, and the broker distributes the events among the recorders. An event without an
//! acknowledgement is delivered again, to any recorder; a lost acknowledgement therefore causes a redelivery and never
//! a loss.

pub mod bodies;
pub mod delivery;
pub mod log;
pub mod retry;
pub mod setup;

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::consumer::pull::{self, MessagesErrorKind};
use async_nats::jetstream::{self, AckKind};
use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, Event as ConnectionEvent, ServerAddr};
use futures_util::{FutureExt as _, StreamExt as _};
use shared::event::Event;
use shared::stream::{ACK_WAIT, servers};
use tokio::time::{Instant, sleep, timeout_at};

use crate::policy::batch::{BatchLimits, BatchSize};
use bodies::BodyFetcher;
use delivery::{DecodeError, Delivery};
use setup::SetupError;

/// The interval of the broker's heartbeats on an idle pull.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// The number of missed heartbeats in a row after which the pull is recreated.
const MAX_MISSED_HEARTBEATS: u32 = 3;
/// The lifetime of one pull request; the client renews the request afterwards.
const PULL_EXPIRY: Duration = Duration::from_secs(30);
/// The interval of pings to the broker. A half-open connection is noticed after two missing answers.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// The longest tolerated absence of the consumer: a recorder needs a moment to recreate the consumer.
const MAX_CONSUMER_ABSENCE: Duration = Duration::from_secs(5);
/// The pause between two tries to reach the broker.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// The interval at which the broker is told of work in progress on a batch: a third of the acknowledgement timeout.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(ACK_WAIT.as_secs() / 3);

/// Creates a client of the broker. The client connects and reconnects in the background, so the broker may be away.
/// `url` holds one server or several separated by commas; a malformed or empty list is an error.
pub async fn connect(url: &str) -> Result<Client, ConnectError> {
    let malformed = |error| ConnectError::with_source(ConnectErrorKind::ServerParse, error);
    let servers: Result<Vec<ServerAddr>, _> = servers(url).into_iter().map(str::parse).collect();
    let servers = servers.map_err(malformed)?;
    if servers.is_empty() {
        return Err(ConnectErrorKind::ServerParse.into());
    }
    let options = ConnectOptions::new()
        .name("stenograph-recorder")
        .ping_interval(PING_INTERVAL)
        .retry_on_initial_connect()
        .event_callback(async |event| match event {
            ConnectionEvent::Connected
            | ConnectionEvent::LameDuckMode
            | ConnectionEvent::Draining
            | ConnectionEvent::Closed => {}
            event => tracing::warn!(%event, "the connection to the broker was disturbed"),
        });
    options.connect(servers).await
}

/// Returns true if the client is connected to the broker now.
pub fn is_connected(client: &Client) -> bool {
    client.connection_state() == State::Connected
}

/// A source of event batches, bound to the recorders' consumer.
pub struct Source {
    client: Client,
    limits: BatchLimits,
    pull: Option<pull::Stream>,
    missed_heartbeats: u32,
    /// The open batch. Kept here, so that cancelling the wait for more events loses no delivery.
    received: Vec<Delivery>,
}

/// Deliveries to be recorded together, not decoded yet.
#[derive(Clone, Debug)]
pub struct Deliveries(Vec<Arc<Delivery>>);

/// Decoded events to be recorded together, each with its delivery.
#[derive(Debug, Default)]
pub struct Batch {
    /// The decoded events, in the order of delivery.
    pub events: Vec<Event>,
    /// The deliveries of `events`, at the same indexes.
    pub deliveries: Vec<Arc<Delivery>>,
    /// The deliveries that could not be decoded, each with the error. Such deliveries go into quarantine.
    pub undecodable: Vec<(Arc<Delivery>, DecodeError)>,
}

// === impl Source ===

impl Source {
    /// Creates a source. The source binds to the consumer at the first call of [`next`](Self::next).
    pub fn new(client: Client, limits: BatchLimits) -> Self {
        Self { client, limits, pull: None, missed_heartbeats: 0, received: Vec::new() }
    }

    /// Returns the limits of a batch.
    pub fn limits(&self) -> BatchLimits {
        self.limits
    }

    /// Waits for the next batch: closed at a limit, or `linger` after the first event. Cancel safe: received deliveries
    /// stay for the next call.
    pub async fn next(&mut self) -> Result<Deliveries, SetupError> {
        self.receive(Some(self.limits.linger)).await
    }

    /// Waits for the next batch until a size limit is reached, without a limit of time. Cancel safe: received
    /// deliveries stay for the next call of [`next`](Self::next).
    pub async fn next_full(&mut self) -> Result<Deliveries, SetupError> {
        self.receive(None).await
    }

    async fn receive(&mut self, linger: Option<Duration>) -> Result<Deliveries, SetupError> {
        let mut batch_size = BatchSize::default();
        // Deliveries left from a cancelled call have waited long enough: take only more events that are ready now.
        let mut deadline = linger.filter(|_| !self.received.is_empty()).map(|_| Instant::now());
        self.received.iter().for_each(|delivery| batch_size.add(delivery.size()));
        while batch_size.has_room(&self.limits) {
            let next = self.next_delivery();
            let delivery = match deadline {
                None => next.await?,
                Some(deadline) => match timeout_at(deadline, next).await {
                    Ok(delivery) => delivery?,
                    Err(_) => break,
                },
            };
            deadline = deadline.or(linger.map(|linger| Instant::now() + linger));
            batch_size.add(delivery.size());
            self.received.push(delivery);
        }
        Ok(Deliveries::new(std::mem::take(&mut self.received)))
    }

    /// Closes the source. Gives every received delivery, and `deliveries`, back to the broker for the other recorders
    /// (negative acknowledgement).
    pub async fn close(mut self, deliveries: Option<Deliveries>) {
        let mut left = std::mem::take(&mut self.received);
        if let Some(mut pull) = self.pull.take() {
            while let Some(Some(Ok(message))) = pull.next().now_or_never() {
                left.push(Delivery::new(message));
            }
        }
        // The end of the pull must reach the broker first, or the broker would deliver the returned events here again.
        self.flush().await;
        send_acks(left.iter().chain(deliveries.iter().flat_map(Deliveries::iter)), AckKind::Nak(None)).await;
        self.flush().await;
    }

    /// Waits until all buffered commands were sent to the broker, at most [`PING_INTERVAL`].
    async fn flush(&self) {
        let flushed = timeout_at(Instant::now() + PING_INTERVAL, self.client.flush()).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!(
                "the last acknowledgements may not have reached the broker: the events may be delivered again"
            );
        }
    }

    async fn next_delivery(&mut self) -> Result<Delivery, SetupError> {
        loop {
            if self.pull.is_none() {
                self.pull = Some(self.bind().await?);
            }
            let Some(pull) = &mut self.pull else { continue };
            match pull.next().await {
                Some(Ok(message)) => {
                    self.missed_heartbeats = 0;
                    return Ok(Delivery::new(message));
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "the pull of events failed: trying again");
                    if self.must_rebind(error.kind()) {
                        self.pull = None;
                    }
                    sleep(RETRY_INTERVAL).await;
                }
                None => self.pull = None,
            }
        }
    }

    fn must_rebind(&mut self, error: MessagesErrorKind) -> bool {
        self.missed_heartbeats += u32::from(error == MessagesErrorKind::MissingHeartbeat);
        match error {
            MessagesErrorKind::NoResponders | MessagesErrorKind::Pull | MessagesErrorKind::Other => false,
            MessagesErrorKind::MissingHeartbeat => self.missed_heartbeats >= MAX_MISSED_HEARTBEATS,
            MessagesErrorKind::ConsumerDeleted
            | MessagesErrorKind::PushBasedConsumer
            | MessagesErrorKind::RequestLimitExceeded => true,
        }
    }

    /// Binds to the consumer. Waits for an unavailable broker; a stream or consumer with an unexpected configuration is
    /// an error.
    async fn bind(&mut self) -> Result<pull::Stream, SetupError> {
        let jetstream = jetstream::new(self.client.clone());
        self.missed_heartbeats = 0;
        let mut missing_since = None;
        loop {
            match self.try_bind(&jetstream).await {
                Err(SetupError::Unavailable(error)) => {
                    missing_since = None;
                    tracing::warn!(error, "waiting for the broker");
                }
                Err(SetupError::Missing(_))
                    if missing_since.get_or_insert_with(Instant::now).elapsed() < MAX_CONSUMER_ABSENCE => {}
                bound => return bound,
            }
            sleep(RETRY_INTERVAL).await;
        }
    }

    async fn try_bind(&self, jetstream: &jetstream::Context) -> Result<pull::Stream, SetupError> {
        let consumer = setup::verified_consumer(jetstream).await?;
        let pull = consumer
            .stream()
            .max_messages_per_batch(self.limits.events)
            // An event larger than the pull's limit would never be delivered.
            .max_bytes_per_batch(self.limits.bytes.max(2 * self.client.max_payload()))
            .expires(PULL_EXPIRY)
            .heartbeat(HEARTBEAT_INTERVAL)
            .messages();
        pull.await.map_err(|error| SetupError::Unavailable(error.to_string()))
    }
}

// === impl Deliveries ===

impl Deliveries {
    /// Wraps the messages of one batch.
    pub fn new(deliveries: Vec<Delivery>) -> Self {
        Self(deliveries.into_iter().map(Arc::new).collect())
    }

    /// Fetches missing bodies from the object store, then decodes all deliveries.
    pub async fn fetch_and_decode(&self, body_fetcher: &BodyFetcher) -> Batch {
        for delivery in &self.0 {
            body_fetcher.attach_body(delivery).await;
        }
        self.decode()
    }

    fn decode(&self) -> Batch {
        let mut batch = Batch::default();
        for delivery in &self.0 {
            let delivery = Arc::clone(delivery);
            match delivery.decode() {
                Ok(event) => {
                    batch.events.push(event);
                    batch.deliveries.push(delivery);
                }
                Err(error) => batch.undecodable.push((delivery, error)),
            }
        }
        batch
    }

    /// Tells the broker that the batch is still in progress, so that the events are not delivered to another recorder.
    /// To be called every [`PROGRESS_INTERVAL`].
    pub async fn report_progress(&self) {
        send_acks(self.iter(), AckKind::Progress).await;
    }

    /// Acknowledges the batch. Call only after every event was committed to the tables or to the quarantine.
    pub async fn acknowledge(&self) {
        send_acks(self.iter(), AckKind::Ack).await;
    }

    /// Gives the batch back to the broker: some events may not be in the tables, and any recorder may take the batch.
    pub async fn negative_acknowledge(&self) {
        send_acks(self.iter(), AckKind::Nak(None)).await;
    }

    fn iter(&self) -> impl Iterator<Item = &Delivery> {
        self.0.iter().map(|delivery| &**delivery)
    }
}

// === impl Batch ===

impl Batch {
    /// Decodes deliveries whose bodies have been fetched.
    pub fn decode(deliveries: Vec<Delivery>) -> Self {
        Deliveries::new(deliveries).decode()
    }

    /// Returns the number of deliveries, decoded or not.
    pub fn len(&self) -> usize {
        self.deliveries.len() + self.undecodable.len()
    }

    /// Returns true if the batch holds no deliveries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of events the broker still had to deliver after the last delivery of the batch.
    pub fn pending(&self) -> u64 {
        self.iter().map(Delivery::pending).min().unwrap_or_default()
    }

    fn iter(&self) -> impl Iterator<Item = &Delivery> {
        self.deliveries.iter().chain(self.undecodable.iter().map(|(delivery, _)| delivery)).map(|delivery| &**delivery)
    }
}

/// Sends the same acknowledgement for each delivery and stops at the first failure. Not retried: without an
/// acknowledgement the broker delivers an event again, so no event is lost.
async fn send_acks<'a>(deliveries: impl Iterator<Item = &'a Delivery>, kind: AckKind) {
    for delivery in deliveries {
        if let Err(error) = delivery.send_ack(kind).await {
            tracing::warn!(error, "an acknowledgement could not be sent: the events will be delivered again");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_url_lists_servers_separated_by_commas() {
        for (url, is_good) in
            [("nats://a:4222, b:4222,", true), ("a", true), (" , ", false), ("", false), ("nats://:x", false)]
        {
            assert_eq!(connect(url).await.is_ok(), is_good, "{url}");
        }
    }
}
