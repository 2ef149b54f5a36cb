//! Reads and projects the log ahead of the database, batch by batch.

use async_nats::Client;
use shared::event::Event;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::policy::batch::{Fill, Limits};
use crate::projection::{Changes, project};
use crate::source::Batch;
use crate::source::delivery::Delivery;
use crate::source::log::{Ending, Extent, Log, LogError, Span, Start};
use crate::store::quarantine::Reason;

/// Batches are larger than the recorders' own: nobody waits for what is in them, and a chat's start and end that come in the
/// same one are written once.
const LIMITS: Limits = Limits { events: 4000, bytes: 16 << 20, linger: std::time::Duration::ZERO };

/// An event that cannot be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unreadable {
    pub(super) sequence: u64,
    /// Its id in quarantine, if it is there.
    pub(super) quarantine_id: Uuid,
}

/// Reads the log on from where it was left, each time up to what is known to be there.
pub(super) struct Reader {
    client: Client,
    start: Start,
    made_at: OffsetDateTime,
    log: Option<Log>,
    /// A batch in the making: kept here so that giving up waiting for more loses nothing.
    gathered: Vec<Delivery>,
}

/// A batch that was read ahead.
pub(super) struct Ahead {
    pub(super) events: Vec<Event>,
    pub(super) changes: Changes,
    pub(super) read: u64,
    pub(super) unreadable: Vec<Unreadable>,
}

// === impl Reader ===

impl Reader {
    /// Of the whole log from `start` on.
    pub(super) fn new(client: Client, start: Start, extent: &Extent) -> Self {
        Self { client, start, made_at: extent.made_at, log: None, gathered: Vec::new() }
    }

    /// The next batch of the events up to this sequence, which must be one that the log has or had; none after the last. May
    /// be given up at any moment, and asked again.
    pub(super) async fn next(&mut self, until: u64) -> Result<Option<Batch>, LogError> {
        if self.log.as_ref().is_none_or(|log| log.last() < until) {
            self.log = Some(self.open(until).await?);
        }
        let mut fill = Fill::default();
        self.gathered.iter().for_each(|delivery| fill.add(delivery.bytes()));
        while fill.has_room(&LIMITS) {
            let Some(log) = &mut self.log else { break };
            let Some(delivery) = log.next().await? else { break };
            self.start = Start::Sequence(delivery.sequence() + 1);
            fill.add(delivery.bytes());
            self.gathered.push(delivery);
        }
        let gathered = std::mem::take(&mut self.gathered);
        Ok((!gathered.is_empty()).then(|| Batch::read(gathered)))
    }

    async fn open(&mut self, until: u64) -> Result<Log, LogError> {
        // Its sequences would mean other events.
        if Log::extent(&self.client).await?.made_at != self.made_at {
            return Err(LogError::MadeAnew);
        }
        let span = Span { from: self.start, to: Some(until), subjects: Vec::new(), ending: Ending::Stop };
        Log::open(self.client.clone(), span).await
    }
}

// === impl Ahead ===

impl Ahead {
    pub(super) fn of(batch: Batch, as_of: Option<OffsetDateTime>) -> Self {
        let read = batch.len() as u64;
        let unreadable = batch.undecodable.iter().map(|(delivery, error)| Unreadable {
            sequence: delivery.sequence(),
            quarantine_id: delivery.quarantined(Reason::Undecodable, error.to_string()).id(),
        });
        let unreadable = unreadable.collect();
        let mut events = batch.events;
        if let Some(as_of) = as_of {
            events.retain(|event| event.time() <= as_of);
        }
        Self { changes: project(&events), events, read, unreadable }
    }
}
