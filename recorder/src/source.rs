//! The live source: the broker's durable pull consumer, in batches.
//!
//! All recorders share the one consumer, and the broker spreads the events over them. Whatever is not acknowledged comes
//! again, to anyone; so nothing here has to be certain that an acknowledgement arrived.

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

/// How often the broker says that an idle pull is alive.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// After so many missing heartbeats in a row the pull is made anew.
const MAX_MISSED_HEARTBEATS: u32 = 3;
/// How long a pull lasts.
const PULL_EXPIRY: Duration = Duration::from_secs(30);
/// How soon a half-open connection is noticed: after two of these.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// How long the consumer may be missing: a recorder that makes it anew takes a moment for that.
const MAX_CONSUMER_ABSENCE: Duration = Duration::from_secs(5);
/// Between two tries to reach the broker.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// How often the broker is told that a batch is still being worked on.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(ACK_WAIT.as_secs() / 3);

/// A connection to the broker that comes back by itself, and need not be there yet.
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

/// Whether the broker can be reached now.
pub fn is_connected(client: &Client) -> bool {
    client.connection_state() == State::Connected
}

/// Where the events come from.
pub struct Source {
    client: Client,
    limits: BatchLimits,
    pull: Option<pull::Stream>,
    missed_heartbeats: u32,
    /// A batch in the making: kept here so that giving up waiting for more loses nothing.
    received: Vec<Delivery>,
}

/// Deliveries to be recorded together, not read yet.
#[derive(Clone, Debug)]
pub struct Deliveries(Vec<Arc<Delivery>>);

/// Events to be recorded together, each with its delivery.
#[derive(Debug, Default)]
pub struct Batch {
    /// What they say.
    pub events: Vec<Event>,
    /// The delivery of each.
    pub deliveries: Vec<Arc<Delivery>>,
    /// Deliveries that are no events.
    pub undecodable: Vec<(Arc<Delivery>, DecodeError)>,
}

// === impl Source ===

impl Source {
    /// A source that binds to the consumer when it is first asked.
    pub fn new(client: Client, limits: BatchLimits) -> Self {
        Self { client, limits, pull: None, missed_heartbeats: 0, received: Vec::new() }
    }

    /// The limits of its batches.
    pub fn limits(&self) -> BatchLimits {
        self.limits
    }

    /// The next batch, a little after there is anything. May be given up at any moment, and asked again.
    pub async fn next(&mut self) -> Result<Deliveries, SetupError> {
        self.receive(Some(self.limits.linger)).await
    }

    /// The next batch, once it is as large as a batch may be. May be given up at any moment: what there is by then is in the
    /// [`next`](Self::next) one.
    pub async fn next_full(&mut self) -> Result<Deliveries, SetupError> {
        self.receive(None).await
    }

    async fn receive(&mut self, linger: Option<Duration>) -> Result<Deliveries, SetupError> {
        let mut fill = BatchSize::default();
        // What is at hand from before has waited long enough.
        let mut deadline = linger.filter(|_| !self.received.is_empty()).map(|_| Instant::now());
        self.received.iter().for_each(|delivery| fill.add(delivery.size()));
        while fill.has_room(&self.limits) {
            let next = self.next_delivery();
            let delivery = match deadline {
                None => next.await?,
                Some(deadline) => match timeout_at(deadline, next).await {
                    Ok(delivery) => delivery?,
                    Err(_) => break,
                },
            };
            deadline = deadline.or(linger.map(|linger| Instant::now() + linger));
            fill.add(delivery.size());
            self.received.push(delivery);
        }
        Ok(Deliveries::new(std::mem::take(&mut self.received)))
    }

    /// Stops, and gives what is at hand back to the others, together with what was gathered and shall not be recorded here.
    pub async fn close(mut self, deliveries: Option<Deliveries>) {
        let mut left = std::mem::take(&mut self.received);
        if let Some(mut pull) = self.pull.take() {
            while let Some(Some(Ok(message))) = pull.next().now_or_never() {
                left.push(Delivery::new(message));
            }
        }
        // The pull has to be gone before anything is given back, or it would come straight here again.
        self.flush().await;
        send_acks(left.iter().chain(deliveries.iter().flat_map(Deliveries::iter)), AckKind::Nak(None)).await;
        self.flush().await;
    }

    /// Waits until what was said to the broker has been sent, within a bound.
    async fn flush(&self) {
        let flushed = timeout_at(Instant::now() + PING_INTERVAL, self.client.flush()).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!("the last acknowledgements may not have reached the broker: their events will come again");
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
                    tracing::warn!(%error, "the pull was disturbed");
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

    /// Binds to the consumer, if it is what it has to be; waits for a broker that is merely away.
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
            // An event larger than what a pull may carry would never be delivered.
            .max_bytes_per_batch(self.limits.bytes.max(2 * self.client.max_payload()))
            .expires(PULL_EXPIRY)
            .heartbeat(HEARTBEAT_INTERVAL)
            .messages();
        pull.await.map_err(|error| SetupError::Unavailable(error.to_string()))
    }
}

// === impl Gathered ===

impl Deliveries {
    /// These.
    pub fn new(deliveries: Vec<Delivery>) -> Self {
        Self(deliveries.into_iter().map(Arc::new).collect())
    }

    /// What they say, with the bodies that they refer to.
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

    /// They are being worked on: another shall not have them yet. To be said every [`PROGRESS_INTERVAL`].
    pub async fn report_progress(&self) {
        send_acks(self.iter(), AckKind::Progress).await;
    }

    /// All of it is in the tables.
    pub async fn acknowledge(&self) {
        send_acks(self.iter(), AckKind::Ack).await;
    }

    /// Nothing of it is certain to be in the tables: another may have it.
    pub async fn negative_acknowledge(&self) {
        send_acks(self.iter(), AckKind::Nak(None)).await;
    }

    fn iter(&self) -> impl Iterator<Item = &Delivery> {
        self.0.iter().map(|delivery| &**delivery)
    }
}

// === impl Batch ===

impl Batch {
    /// What these deliveries say, whose bodies have been fetched.
    pub fn decode(deliveries: Vec<Delivery>) -> Self {
        Deliveries::new(deliveries).decode()
    }

    /// How many deliveries are in it.
    pub fn len(&self) -> usize {
        self.deliveries.len() + self.undecodable.len()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many events the broker had left when it delivered the last of these.
    pub fn pending(&self) -> u64 {
        self.iter().map(Delivery::pending).min().unwrap_or_default()
    }

    fn iter(&self) -> impl Iterator<Item = &Delivery> {
        self.deliveries.iter().chain(self.undecodable.iter().map(|(delivery, _)| delivery)).map(|delivery| &**delivery)
    }
}

/// Says the same of each. Where the broker cannot be told, it will deliver again: nothing is lost, so nothing is retried.
async fn send_acks<'a>(deliveries: impl Iterator<Item = &'a Delivery>, kind: AckKind) {
    for delivery in deliveries {
        if let Err(error) = delivery.send_ack(kind).await {
            tracing::warn!(error, "the broker could not be told");
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
