//! The relay: publishes the journal's events to JetStream, and releases an event only after the broker's
//! acknowledgement.
//!
//! The relay receives acknowledgements on an inbox of its own. The client library's requests would leak a little memory
//! for every publish without an answer, and would wake an additional task for each publish. Events that are lost with a
//! broken connection are published again; the broker and the recorders recognise repeated events by their id.

mod acknowledged;
mod broker_watch;
mod catch_up;
mod disk_read;
mod in_flight;
mod large_bodies;
mod loss_check;
mod oversized;
mod publish;
mod republish;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message, Statistics, Subscriber};
use futures_util::{FutureExt as _, StreamExt as _};
use shared::traces::Tracer;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::broker::BrokerHealth;
use crate::journal::{AcknowledgedEvent, Checkpoint, JournalConsumer, JournalEntry, TailRead, now_ms};
use crate::metrics::Metrics;
use acknowledged::AcknowledgedEvents;
use broker_watch::BrokerWatch;
use disk_read::{MAX_BATCH_EVENTS, ReadPosition};
use in_flight::{InFlightEvent, PublishReason, ResendScope, backoff};
use large_bodies::{BodyUploads, UploadError};
use loss_check::{Republication, StreamCheck, republication_read, stream_check_result};
use oversized::OversizedEvents;
use publish::{HeaderTemplates, PublishAck, PublishOutcome};

/// The maximum number of events without an acknowledgement, and the maximum size of all such events in bytes.
const MAX_IN_FLIGHT_EVENTS: usize = 512;
const MAX_IN_FLIGHT_BYTES: usize = 16 << 20;

/// The time to wait for an acknowledgement before an event is published again. A cluster takes 4 to 8 s to elect a
/// leader.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// The interval at which overdue events are published again and the checkpoint is written.
const TICK_INTERVAL: Duration = Duration::from_millis(100);

/// Publishes events to the broker until the journal is closed and all events are acknowledged.
pub struct Relay {
    client: Client,
    consumer: JournalConsumer,
    broker_health: Arc<BrokerHealth>,
    metrics: Arc<Metrics>,
    tracer: Tracer,
    inbox: String,
    templates: HeaderTemplates,
    /// Published events without an acknowledgement, by event number. The first is the oldest.
    in_flight: BTreeMap<u64, InFlightEvent>,
    in_flight_bytes: usize,
    /// Uploads of event bodies that are too large for a message.
    uploads: BodyUploads,
    /// Events that the broker refuses for their size.
    oversized: OversizedEvents,
    /// The number below which every entry has been taken from the journal.
    taken_below: u64,
    /// The read position on the disk.
    position: ReadPosition,
    /// The republication of events that the broker has lost, if one is in progress. Until all lost events are
    /// acknowledged, the broker's part of the checkpoint stays unchanged, so that a gateway killed in the meantime
    /// finds the same loss and starts again.
    republication: Option<Republication>,
    /// The check for lost events that is in progress, if any.
    pending_stream_check: Option<JoinHandle<StreamCheck>>,
    stream_checked_at: Instant,
    /// The acknowledged events that a check has to find.
    acknowledged: AcknowledgedEvents,
    /// The client library's number of connections, and the number that the relay knows of.
    connections: Arc<Statistics>,
    connection: u64,
    checkpoint: Checkpoint,
    watch: BrokerWatch,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("in_flight", &self.in_flight.len()).finish_non_exhaustive()
    }
}

impl Relay {
    /// Creates a relay that starts at the journal's checkpoint.
    pub fn new(
        client: Client,
        consumer: JournalConsumer,
        broker_health: Arc<BrokerHealth>,
        metrics: Arc<Metrics>,
        tracer: Tracer,
    ) -> Self {
        let inbox = client.new_inbox();
        let checkpoint = consumer.checkpoint();
        Self {
            connections: client.statistics(),
            connection: 0,
            acknowledged: AcknowledgedEvents::restore(&checkpoint),
            client,
            consumer,
            broker_health,
            metrics,
            tracer,
            inbox,
            templates: HeaderTemplates::default(),
            in_flight: BTreeMap::new(),
            in_flight_bytes: 0,
            uploads: BodyUploads::default(),
            oversized: OversizedEvents::default(),
            taken_below: checkpoint.released_below,
            position: ReadPosition::CaughtUp,
            republication: None,
            pending_stream_check: None,
            stream_checked_at: Instant::now(),
            checkpoint,
            watch: BrokerWatch::default(),
        }
    }

    /// Runs until the journal is closed and all events are acknowledged. Fails if the acknowledgements cannot be
    /// subscribed to.
    pub async fn run(mut self) -> Result<(), async_nats::SubscribeError> {
        let mut acks = self.client.subscribe(format!("{}.*", self.inbox)).await?;
        let mut tick = tokio::time::interval(TICK_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !(self.in_flight.is_empty() && self.consumer.is_drained()) {
            let consumer = self.consumer.clone();
            let broker_health = Arc::clone(&self.broker_health);
            tokio::select! {
                Some(ack) = acks.next() => self.process_acks(Some(ack), &mut acks),
                // Tasks that are about to record an event run first, so that their events go out in the same write.
                () = consumer.wait_for_entries(), if self.has_room() => tokio::task::yield_now().await,
                () = broker_health.reconnected() => {
                    self.process_acks(None, &mut acks);
                    self.start_stream_check();
                    self.resend(ResendScope::Everything).await;
                }
                Some((number, uploaded)) = self.uploads.next_finished() => self.finish_upload(number, uploaded).await,
                Some(read) = disk_read::result(self.position.read()) => self.publish_read(read).await,
                Some(read) = disk_read::result(republication_read(&mut self.republication)) => self.publish_lost(read).await,
                Some(check) = stream_check_result(&mut self.pending_stream_check) => self.apply_stream_check(check),
                _ = tick.tick() => {
                    self.resend(ResendScope::Overdue).await;
                    self.report_progress();
                    let is_connected = self.broker_health.is_connected();
                    self.watch.look(Instant::now().into_std(), is_connected, self.in_flight.len());
                    self.start_due_stream_check();
                }
            }
            self.publish_next().await;
        }
        self.report_progress();
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.broker_health.is_connected()
            && self.in_flight.len() < MAX_IN_FLIGHT_EVENTS
            && self.in_flight_bytes < MAX_IN_FLIGHT_BYTES
            && self.oversized.has_room()
    }

    /// Publishes new entries, and then lost events, as far as the bounds on events in flight allow.
    async fn publish_next(&mut self) {
        while self.has_room() {
            let entries = match self.consumer.take(MAX_BATCH_EVENTS) {
                TailRead::InOrder(entries) => {
                    self.position.mark_caught_up();
                    self.mark_taken(&entries);
                    entries
                }
                TailRead::OutOfOrder(entries) => entries,
                TailRead::OnDisk => {
                    self.start_read();
                    break;
                }
            };
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                self.publish_and_track(entry, PublishReason::New).await;
            }
        }
        if self.has_room() {
            self.start_republication_read();
        }
        self.end_republication();
    }

    fn mark_taken(&mut self, entries: &[JournalEntry]) {
        if let Some(last) = entries.last() {
            self.taken_below = self.taken_below.max(last.number + 1);
        }
    }

    async fn publish_and_track(&mut self, entry: JournalEntry, reason: PublishReason) {
        let now = Instant::now();
        let number = entry.number;
        self.in_flight_bytes += entry.len();
        let resend_at = now + ACK_TIMEOUT;
        if let Some(replaced) = self
            .in_flight
            .insert(number, InFlightEvent { entry, first_published_at: now, resend_at, resends: 0, reason })
        {
            self.in_flight_bytes -= replaced.entry.len();
        }
        self.publish_in_flight(number).await;
    }

    /// Publishes the events in flight within `scope` again, and moves oversized events whose delay has passed to the end
    /// of the journal.
    async fn resend(&mut self, scope: ResendScope) {
        if !self.broker_health.is_connected() {
            return;
        }
        let now = Instant::now();
        let is_due = |event: &InFlightEvent| scope == ResendScope::Everything || event.resend_at <= now;
        let numbers: Vec<u64> =
            self.in_flight.iter().filter(|(_, event)| is_due(event)).map(|(number, _)| *number).collect();
        for number in numbers {
            if let Some(event) = self.in_flight.get_mut(&number) {
                event.resends += 1;
                event.resend_at = now + backoff(event.resends).max(ACK_TIMEOUT);
                self.metrics.journal_retries.inc();
                self.publish_in_flight(number).await;
            }
        }
        self.oversized.copy_due(&self.consumer, now);
    }

    async fn publish_in_flight(&mut self, number: u64) {
        let Some(event) = self.in_flight.get_mut(&number) else { return };
        let mut reply = String::with_capacity(self.inbox.len() + 21);
        let _ = write!(reply, "{}.{number}", self.inbox);
        let body = self.uploads.reference(&self.client, number);
        match publish::publish(&self.client, &mut self.templates, &event.entry, reply, body).await {
            PublishOutcome::Sent => {}
            PublishOutcome::RetryLater(error) => {
                event.resend_at = Instant::now() + backoff(event.resends);
                tracing::warn!(
                    %error, bytes = event.entry.len(),
                    "an event could not be published; the event will be published again"
                );
            }
            PublishOutcome::NeedsBucket(event_id, body) => {
                event.resend_at = Instant::now() + oversized::RETRY_DELAY;
                self.uploads.start(&self.client, number, event_id, body);
            }
            PublishOutcome::TooLarge => {
                tracing::error!(
                    bytes = event.entry.len(),
                    "an event exceeds the broker's max_payload; the event is kept and will be published again"
                );
                self.set_aside(number);
            }
            PublishOutcome::NotAnEvent => {
                tracing::error!(number, "a journal record holds no event; the record is dropped");
                self.metrics.journal_damaged.inc();
                self.remove_in_flight(number);
            }
        }
    }

    /// Publishes an event whose body has been uploaded, or sets the event aside if the upload has failed.
    async fn finish_upload(&mut self, number: u64, uploaded: Result<(), UploadError>) {
        match uploaded {
            Ok(()) => self.publish_in_flight(number).await,
            Err(error) => {
                tracing::error!(
                    %error, number,
                    "the body of a large event could not be uploaded; the event is kept and will be tried again"
                );
                self.set_aside(number);
            }
        }
    }

    /// Moves an event out of flight, because the event would only take the room of others.
    fn set_aside(&mut self, number: u64) {
        if let Some(event) = self.in_flight.remove(&number) {
            self.in_flight_bytes -= event.entry.len();
            self.oversized.insert(event.entry, Instant::now());
        }
    }

    fn remove_in_flight(&mut self, number: u64) -> Option<InFlightEvent> {
        self.uploads.forget(number);
        let removed = self.in_flight.remove(&number)?;
        self.in_flight_bytes -= removed.entry.len();
        Some(removed)
    }

    /// Processes the broker's answers at hand. On a new connection, some may still be answers of the old one.
    fn process_acks(&mut self, first: Option<Message>, acks: &mut Subscriber) {
        let is_new_connection = self.note_connection();
        let mut numbers = Vec::with_capacity(MAX_BATCH_EVENTS);
        let mut next = first.or_else(|| acks.next().now_or_never().flatten());
        while let Some(ack) = next {
            self.process_ack(&ack, &mut numbers);
            next = acks.next().now_or_never().flatten();
        }
        if is_new_connection {
            self.acknowledged.begin_connection();
        }
        self.consumer.mark_acknowledged(&numbers);
    }

    /// Processes the broker's answer to a published event. Adds the number of an acknowledged event to `numbers`.
    fn process_ack(&mut self, message: &Message, numbers: &mut Vec<u64>) {
        let number = message.subject.rsplit_once('.').and_then(|(_, number)| number.parse().ok());
        let Some(number) = number.filter(|number| !self.uploads.is_outdated(&self.client, *number)) else { return };
        match publish::parse_ack(message) {
            PublishAck::Acknowledged { sequence } => {
                self.broker_health.mark_responsive();
                self.watch.note_acknowledgement();
                let Some(acknowledged) = self.remove_in_flight(number) else { return };
                self.metrics.journal_ack_seconds.observe(acknowledged.first_published_at.elapsed().as_secs_f64());
                acknowledged.send_span(&self.tracer);
                numbers.push(number);
                if let Some(event_id) = acknowledged.entry.id() {
                    self.acknowledged.note(AcknowledgedEvent { sequence, event_id });
                }
            }
            PublishAck::Refused(problem) => {
                let Some(event) = self.in_flight.get_mut(&number) else { return };
                self.watch.note_refusal(problem);
                event.resend_at = Instant::now() + backoff(event.resends);
            }
        }
    }

    /// Advances the checkpoint and updates the metrics of the backlog. The checkpoint stays below the lowest event that
    /// is unread or unacknowledged.
    fn report_progress(&mut self) {
        let new = self
            .in_flight
            .iter()
            .find(|(_, event)| event.reason == PublishReason::New)
            .map(|(number, event)| (*number, event.entry.recorded_at_ms));
        let oldest = new.into_iter().chain(self.oversized.oldest()).min();
        let lowest_unread = self.position.segment().and_then(|segment| self.consumer.lowest_number_from(segment));
        let lowest_unreleased = oldest.map(|(number, _)| number).into_iter().chain(lowest_unread).min();
        self.checkpoint.released_below =
            lowest_unreleased.map_or(self.taken_below, |number| number.min(self.taken_below));
        if self.republication.is_none() {
            self.acknowledged.save(&mut self.checkpoint);
        }
        let backlog = self.consumer.advance_checkpoint(self.checkpoint);
        let age = oldest.map_or(0, |(_, at_ms)| now_ms().saturating_sub(at_ms));
        self.metrics.journal_waiting.set(i64::try_from(backlog.events).unwrap_or(i64::MAX));
        self.metrics.journal_bytes.set(i64::try_from(backlog.bytes).unwrap_or(i64::MAX));
        self.metrics.journal_writable.set(i64::from(backlog.is_writable));
        self.metrics.journal_oversized.set(i64::try_from(self.oversized.len()).unwrap_or(i64::MAX));
        self.metrics.journal_oldest_seconds.set(Duration::from_millis(age).as_secs_f64());
    }
}
