//! The reader that decodes and projects the log ahead of the database, batch by batch.

use async_nats::Client;
use shared::event::Event;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::policy::batch::{BatchLimits, BatchSize};
use crate::projection::{Changes, project};
use crate::source::batch::Batch;
use crate::source::delivery::Delivery;
use crate::source::log::{LogError, LogExtent, LogRange, LogReader, RangeEnd, RangeStart};

/// The limits of a batch, larger than the recorders' own: no user waits for a rebuild's events, and the start and end
/// of a chat in the same batch are written once instead of twice.
const BATCH_LIMITS: BatchLimits = BatchLimits { events: 4000, bytes: 16 << 20, linger: std::time::Duration::ZERO };

/// An event of the log that cannot be decoded.
#[derive(Clone, Debug)]
pub(super) struct UnreadableEvent {
    pub(super) sequence: u64,
    pub(super) event_id: String,
    pub(super) detail: String,
    /// The id that the event has in quarantine, if a recorder put the event there.
    pub(super) quarantine_id: Uuid,
}

/// Reads the log in batches. Each call continues after the last event read, up to a sequence known to exist.
pub(super) struct BatchReader {
    client: Client,
    start: RangeStart,
    stream_created_at: OffsetDateTime,
    log: Option<LogReader>,
    /// The deliveries of the batch under construction. Kept here so that a canceled call loses no delivery.
    received: Vec<Delivery>,
}

/// A decoded and projected batch, waiting for the database.
pub(super) struct PrefetchedBatch {
    pub(super) events: Vec<Event>,
    pub(super) changes: Changes,
    pub(super) read: u64,
    pub(super) unreadable: Vec<UnreadableEvent>,
    /// The ids in quarantine that the events with large bodies would have if their bodies had been missing.
    pub(super) with_bodies: Vec<Uuid>,
}

// === impl BatchReader ===

impl BatchReader {
    /// Makes a reader of the whole log from `start` on.
    pub(super) fn new(client: Client, start: RangeStart, extent: &LogExtent) -> Self {
        Self { client, start, stream_created_at: extent.stream_created_at, log: None, received: Vec::new() }
    }

    /// Reads the next batch of events up to the sequence `until`, which the log must have or have had. Returns none
    /// after the last event. The call can be canceled at any moment and repeated without losing events.
    pub(super) async fn next(&mut self, until: u64) -> Result<Option<Batch>, LogError> {
        if self.log.as_ref().is_none_or(|log| log.last_sequence() < until) {
            self.log = Some(self.open(until).await?);
        }
        let mut fill = BatchSize::default();
        self.received.iter().for_each(|delivery| fill.add(delivery.size()));
        while fill.has_room(&BATCH_LIMITS) {
            let Some(log) = &mut self.log else { break };
            let Some(delivery) = log.next().await? else { break };
            self.start = RangeStart::Sequence(delivery.sequence() + 1);
            fill.add(delivery.size());
            self.received.push(delivery);
        }
        let received = std::mem::take(&mut self.received);
        Ok((!received.is_empty()).then(|| Batch::decode(received)))
    }

    async fn open(&mut self, until: u64) -> Result<LogReader, LogError> {
        // In a recreated stream, the same sequences belong to other events.
        if LogReader::extent(&self.client).await?.stream_created_at != self.stream_created_at {
            return Err(LogError::StreamRecreated);
        }
        let range = LogRange { from: self.start, to: Some(until), subjects: Vec::new(), end: RangeEnd::Stop };
        LogReader::open(self.client.clone(), range).await
    }
}

// === impl PrefetchedBatch ===

impl PrefetchedBatch {
    pub(super) fn project(batch: Batch, as_of: Option<OffsetDateTime>) -> Self {
        let read = batch.len() as u64;
        let unreadable = batch.undecodable.iter().map(|one| UnreadableEvent {
            sequence: one.delivery.sequence(),
            event_id: one.delivery.event_id().to_owned(),
            detail: one.error.to_string(),
            quarantine_id: one.to_quarantined().id(),
        });
        let unreadable = unreadable.collect();
        let with_bodies = batch.deliveries.iter().filter_map(|delivery| delivery.bodiless_quarantine_id()).collect();
        let mut events = batch.events;
        if let Some(as_of) = as_of {
            events.retain(|event| event.time() <= as_of);
        }
        Self { changes: project(&events), events, read, unreadable, with_bodies }
    }
}
