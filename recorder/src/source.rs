//! The live source: receives events in batches from the broker's durable pull consumer.
//!
//! All recorders share the one consumer, and the broker distributes the events among the recorders. An event without an
//! acknowledgement is delivered again, to any recorder; a lost acknowledgement therefore causes a redelivery and never
//! a loss.

pub mod backlog;
pub mod batch;
pub mod bodies;
pub mod delivery;
pub mod log;
pub mod pull;
pub mod read_ahead;
pub mod retry;
pub mod setup;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::{self, AckKind};
use async_nats::{Client, ConnectError};
use shared::nats::{BrokerConfig, BrokerError, BrokerRole};
use shared::stream::ACK_WAIT;
use tokio::time::{Instant, sleep, timeout_at};

use crate::policy::batch::{BatchLimits, BatchSize};
use crate::policy::blockage::Blockage;
use batch::{Deliveries, send_acks};
use delivery::Delivery;
use pull::{Pull, PullLimits};
use setup::SetupError;

/// The maximum time for which buffered acknowledgements are waited for.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause between two tries to reach the broker.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// The time for which a stream or consumer may be missing at the start: another recorder may be recreating the consumer.
pub const MAX_ABSENCE_AT_START: Duration = Duration::from_secs(5);
/// The interval at which a missing stream or consumer is logged again.
const MISSING_LOG_INTERVAL: Duration = Duration::from_secs(30);
/// The interval at which the broker is told of work in progress on a batch: a third of the acknowledgement timeout.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(ACK_WAIT.as_secs() / 3);

/// The name of the recorder's connections, as the broker shows it.
const CONNECTION_NAME: &str = "stenograph-recorder";

/// Creates a client of the broker for a service. The client connects and reconnects in the background, so the broker may
/// be away.
pub async fn connect(broker: &BrokerConfig) -> Result<Client, ConnectError> {
    connect_as(broker, BrokerRole::Recorder).await
}

/// Creates a client of the broker in this role. The client connects and reconnects in the background.
pub async fn connect_as(broker: &BrokerConfig, role: BrokerRole) -> Result<Client, ConnectError> {
    broker.connect(role, CONNECTION_NAME, |_| {}).await
}

/// Connects to the broker for a command. Waits for a broker that is away for a moment; refused credentials are an error
/// at once.
pub async fn connect_now(broker: &BrokerConfig, role: BrokerRole) -> Result<Client, BrokerError> {
    broker.connect_now(role, CONNECTION_NAME).await
}

/// Returns true if the client is connected to the broker now.
pub fn is_connected(client: &Client) -> bool {
    client.connection_state() == State::Connected
}

/// A source of event batches, bound to the recorders' consumer.
pub struct Source {
    client: Client,
    limits: BatchLimits,
    blockage: Arc<Blockage>,
    pull: Option<Pull>,
    /// True while the consumer is known to exist as expected.
    is_verified: bool,
    /// The time since which the stream, the consumer or a bucket has been missing.
    missing_since: Option<Instant>,
    /// Deliveries that have arrived and belong to no batch yet.
    arrived: VecDeque<Delivery>,
    /// The open batch. Kept here, so that cancelling the wait for more events loses no delivery.
    received: Vec<Delivery>,
}

// === impl Source ===

impl Source {
    /// Creates a source. The source binds to the consumer at the first call of [`next`](Self::next), and tells `blockage`
    /// while the consumer is missing.
    pub fn new(client: Client, limits: BatchLimits, blockage: Arc<Blockage>) -> Self {
        Self {
            client,
            limits,
            blockage,
            pull: None,
            is_verified: false,
            missing_since: None,
            arrived: VecDeque::new(),
            received: Vec::new(),
        }
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
            if !batch_size.fits(delivery.size(), &self.limits) {
                // A large event begins the next batch.
                self.arrived.push_front(delivery);
                break;
            }
            deadline = deadline.or(linger.map(|linger| Instant::now() + linger));
            batch_size.add(delivery.size());
            self.received.push(delivery);
        }
        Ok(Deliveries::new(std::mem::take(&mut self.received)))
    }

    /// Tells the broker that the deliveries which wait here for a batch are still in progress. To be called every
    /// [`PROGRESS_INTERVAL`].
    pub async fn report_progress(&mut self) {
        while let Some(message) = self.pull.as_mut().and_then(Pull::try_next) {
            self.arrived.push_back(Delivery::new(message));
        }
        send_acks(self.received.iter().chain(&self.arrived), AckKind::Progress).await;
    }

    /// Closes the source. Gives every received delivery, and `deliveries`, back to the broker for the other recorders
    /// (negative acknowledgement).
    pub async fn close(mut self, deliveries: Option<Deliveries>) {
        let mut left = std::mem::take(&mut self.received);
        left.extend(std::mem::take(&mut self.arrived));
        // The request must end first, or the broker would deliver the returned events here again.
        if let Some(pull) = self.pull.take() {
            left.extend(pull.close().await.into_iter().map(Delivery::new));
        }
        send_acks(left.iter().chain(deliveries.iter().flat_map(Deliveries::iter)), AckKind::Nak(None)).await;
        self.flush().await;
    }

    /// Waits until all buffered commands were sent to the broker, at most [`FLUSH_TIMEOUT`].
    async fn flush(&self) {
        let flushed = timeout_at(Instant::now() + FLUSH_TIMEOUT, self.client.flush()).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!(
                "the last acknowledgements may not have reached the broker: the events may be delivered again"
            );
        }
    }

    async fn next_delivery(&mut self) -> Result<Delivery, SetupError> {
        loop {
            if let Some(delivery) = self.arrived.pop_front() {
                return Ok(delivery);
            }
            if !self.is_verified {
                self.bind().await?;
            }
            let Some(pull) = &mut self.pull else { continue };
            match pull.next().await {
                Ok(message) => return Ok(Delivery::new(message)),
                Err(error) => {
                    tracing::warn!(%error, "the pull of events failed: trying again");
                    self.is_verified = false;
                    sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }

    /// Binds to the consumer. Waits for an unavailable broker. Waits for a stream, consumer or bucket that is missing,
    /// at the start for at most [`MAX_ABSENCE_AT_START`]. At the start, an unexpected configuration is an error.
    async fn bind(&mut self) -> Result<(), SetupError> {
        let jetstream = jetstream::new(self.client.clone());
        let mut logged_at: Option<Instant> = None;
        loop {
            match self.try_bind(&jetstream).await {
                Ok(()) => break,
                Err(SetupError::Unavailable(error)) => {
                    self.missing_since = None;
                    tracing::warn!(error, "waiting for the broker");
                }
                Err(error @ SetupError::Missing(_)) => {
                    let since = *self.missing_since.get_or_insert_with(Instant::now);
                    if self.pull.is_none() && since.elapsed() >= MAX_ABSENCE_AT_START {
                        return Err(error);
                    }
                    self.blockage.stream_missing();
                    if self.pull.is_some() && logged_at.is_none_or(|at| at.elapsed() >= MISSING_LOG_INTERVAL) {
                        logged_at = Some(Instant::now());
                        tracing::error!(%error, "nothing can be recorded: waiting until it is there again");
                    }
                }
                // A recorder that runs goes on: to stop would lose more than the change does. `settings_watch` reports the change.
                Err(SetupError::Differs { .. }) if self.pull.is_some() => break,
                Err(error) => return Err(error),
            }
            sleep(RETRY_INTERVAL).await;
        }
        if logged_at.is_some() {
            tracing::info!("the stream and its consumer are there again");
        }
        self.blockage.bound();
        (self.is_verified, self.missing_since) = (true, None);
        Ok(())
    }

    async fn try_bind(&mut self, jetstream: &jetstream::Context) -> Result<(), SetupError> {
        setup::verified_consumer(jetstream).await?;
        if self.pull.is_none() {
            // An event larger than the pull's limit would never be delivered.
            let bytes = self.limits.bytes.max(2 * self.client.max_payload());
            let limits = PullLimits { messages: self.limits.events, bytes };
            let pull = Pull::open(self.client.clone(), limits).await;
            self.pull = Some(pull.map_err(|error| SetupError::Unavailable(error.to_string()))?);
        }
        Ok(())
    }
}
