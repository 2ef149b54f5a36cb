//! Reads and projects the log ahead of the database, batch by batch.

use async_nats::Client;
use shared::event::Event;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::policy::batch::{BatchLimits, BatchSize};
use crate::projection::{Changes, project};
use crate::source::Batch;
use crate::source::delivery::Delivery;
use crate::source::log::{LogError, LogExtent, LogRange, LogReader, RangeEnd, RangeStart};
use crate::store::quarantine::QuarantineReason;

/// Batches are larger than the recorders' own: nobody waits for what is in them, and a chat's start and end that come in the
/// same one are written once.
const BATCH_LIMITS: BatchLimits = BatchLimits { events: 4000, bytes: 16 << 20, linger: std::time::Duration::ZERO };

/// An event that cannot be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnreadableEvent {
    pub(super) sequence: u64,
    /// Its id in quarantine, if it is there.
    pub(super) quarantine_id: Uuid,
}

/// Reads the log on from where it was left, each time up to what is known to be there.
pub(super) struct BatchReader {
    client: Client,
    start: RangeStart,
    stream_created_at: OffsetDateTime,
    log: Option<LogReader>,
    /// A batch in the making: kept here so that giving up waiting for more loses nothing.
    received: Vec<Delivery>,
}

/// A batch that was read ahead.
pub(super) struct PrefetchedBatch {
    pub(super) events: Vec<Event>,
    pub(super) changes: Changes,
    pub(super) read: u64,
    pub(super) unreadable: Vec<UnreadableEvent>,
}

// === impl Reader ===

impl BatchReader {
    /// Of the whole log from `start` on.
    pub(super) fn new(client: Client, start: RangeStart, extent: &LogExtent) -> Self {
        Self { client, start, stream_created_at: extent.stream_created_at, log: None, received: Vec::new() }
    }

    /// The next batch of the events up to this sequence, which must be one that the log has or had; none after the last. May
    /// be given up at any moment, and asked again.
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
        // Its sequences would mean other events.
        if LogReader::extent(&self.client).await?.stream_created_at != self.stream_created_at {
            return Err(LogError::StreamRecreated);
        }
        let range = LogRange { from: self.start, to: Some(until), subjects: Vec::new(), end: RangeEnd::Stop };
        LogReader::open(self.client.clone(), range).await
    }
}

// === impl Ahead ===

impl PrefetchedBatch {
    pub(super) fn project(batch: Batch, as_of: Option<OffsetDateTime>) -> Self {
        let read = batch.len() as u64;
        let unreadable = batch.undecodable.iter().map(|(delivery, error)| UnreadableEvent {
            sequence: delivery.sequence(),
            quarantine_id: delivery.to_quarantined(QuarantineReason::Undecodable, error.to_string()).id(),
        });
        let unreadable = unreadable.collect();
        let mut events = batch.events;
        if let Some(as_of) = as_of {
            events.retain(|event| event.time() <= as_of);
        }
        Self { changes: project(&events), events, read, unreadable }
    }
}
