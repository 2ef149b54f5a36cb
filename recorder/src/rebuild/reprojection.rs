//! From the log into a shadow of the tables: what `rebuild` and `verify` have in common.
//!
//! The projection is the recorders' own, and so is the store: only the search path of the connection differs. One task reads,
//! decodes and projects ahead while the database works; a bounded number of batches is between the two.

use async_nats::Client;
use shared::event::Event;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::batch_reader::{BatchReader, PrefetchedBatch, UnreadableEvent};
use super::error::ReprojectionError;
use crate::policy::disposition::Disposition;
use crate::projection::merge::AggregateChanges;
use crate::projection::{Changes, is_recorded_in, project};
use crate::source::log::{LogError, LogExtent, RangeStart};
use crate::store;
use crate::store::bulk;
use crate::store::quarantine;
use crate::store::shadow::ShadowSchema;

/// How many batches are read ahead.
const PREFETCHED_BATCHES: usize = 2;
/// How many rows of sums may be held back: some tens of megabytes.
const MAX_DEFERRED_ROWS: usize = 100_000;

/// A projection of the log into a shadow.
pub struct Reprojection {
    pub(super) shadow: ShadowSchema,
    reader: Option<BatchReader>,
    /// Events of a later time are left out.
    pub(super) as_of: Option<OffsetDateTime>,
    pub(super) stop: CancellationToken,
    flush: AggregateFlush,
    /// Events that could not be read, and have not been looked for in quarantine yet.
    unreadable: Vec<UnreadableEvent>,
    /// What was done so far.
    pub stats: ReprojectionStats,
}

/// When conversations and usage are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateFlush {
    /// Once for many batches.
    Deferred,
    /// With each batch: an event whose rows are refused is then found, and left out whole, as the recorders do.
    PerBatch,
}

/// How much was projected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReprojectionStats {
    /// Events of the log that were read.
    pub events: u64,
    /// Of those, what no recorder of this version can read.
    pub undecodable: u64,
    /// Of those in turn, what is not in quarantine either, as far as that was asked.
    pub lost: u64,
    /// The sequence of the first one that is not.
    pub first_lost: Option<u64>,
    /// Of those, what the database refused.
    pub refused: u64,
    /// Chats that were taken over from the tables, for want of their events.
    pub carried_over: u64,
}

impl Reprojection {
    /// Of the whole log from `start` on, into this shadow.
    pub fn new(
        client: Client,
        shadow: ShadowSchema,
        (start, extent): (RangeStart, &LogExtent),
        as_of: Option<OffsetDateTime>,
        flush: AggregateFlush,
        stop: CancellationToken,
    ) -> Self {
        let reader = BatchReader::new(client, start, extent);
        Self {
            shadow,
            reader: Some(reader),
            as_of,
            stop,
            flush,
            unreadable: Vec::new(),
            stats: ReprojectionStats::default(),
        }
    }

    /// The shadow.
    pub fn shadow(&self) -> &ShadowSchema {
        &self.shadow
    }

    /// Projects every event up to this sequence that has not been projected yet, and says after each batch how much is done.
    pub async fn advance(
        &mut self,
        connection: &mut PgConnection,
        until: u64,
        progress: &(dyn Fn(ReprojectionStats) + Sync),
    ) -> Result<(), ReprojectionError> {
        self.shadow.enter(connection).await?;
        let mut reader = self.reader.take().ok_or(ReprojectionError::Reader)?;
        let (sender, mut batches) = mpsc::channel(PREFETCHED_BATCHES);
        let as_of = self.as_of;
        let reading = tokio::spawn(async move {
            while let Some(batch) = reader.next(until).await? {
                if sender.send(PrefetchedBatch::project(batch, as_of)).await.is_err() {
                    break;
                }
            }
            Ok::<_, LogError>(reader)
        });
        let mut deferred = AggregateChanges::default();
        while let Some(Some(batch)) = self.stop.run_until_cancelled(batches.recv()).await {
            self.write(connection, batch, &mut deferred).await?;
            if deferred.len() > MAX_DEFERRED_ROWS {
                write_deferred(connection, std::mem::take(&mut deferred)).await?;
            }
            progress(self.stats);
        }
        if self.stop.is_cancelled() {
            return Err(ReprojectionError::Stopped);
        }
        write_deferred(connection, deferred).await?;
        self.reader = Some(reading.await.map_err(|_| ReprojectionError::Reader)??);
        Ok(())
    }

    /// The next batch up to this sequence, for who decides about every event.
    pub async fn read(&mut self, until: u64) -> Result<Option<Vec<Event>>, ReprojectionError> {
        let reader = self.reader.as_mut().ok_or(ReprojectionError::Reader)?;
        let Some(batch) = reader.next(until).await? else { return Ok(None) };
        let ahead = PrefetchedBatch::project(batch, self.as_of);
        self.add_stats(ahead.read, ahead.unreadable);
        Ok(Some(ahead.events))
    }

    fn add_stats(&mut self, read: u64, unreadable: Vec<UnreadableEvent>) {
        self.stats.events += read;
        self.stats.undecodable += unreadable.len() as u64;
        self.unreadable.extend(unreadable);
    }

    /// Looks in quarantine for the events that could not be read, and counts those that are not there.
    pub async fn check_quarantine(&mut self, connection: &mut PgConnection) -> Result<(), ReprojectionError> {
        let unreadable = std::mem::take(&mut self.unreadable);
        if unreadable.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = unreadable.iter().map(|event| event.quarantine_id).collect();
        self.shadow.leave(connection).await?;
        let there = quarantine::existing_ids(connection, &ids).await?;
        self.shadow.enter(connection).await?;
        for event in unreadable.iter().filter(|event| !there.contains(&event.quarantine_id)) {
            self.stats.lost += 1;
            self.stats.first_lost.get_or_insert(event.sequence);
        }
        Ok(())
    }

    /// Projects these events.
    pub async fn project(&mut self, connection: &mut PgConnection, events: &[Event]) -> Result<(), ReprojectionError> {
        let mut pending = vec![events];
        while let Some(events) = pending.pop() {
            if !events.is_empty()
                && let Some(halves) = self.write_events(connection, events, project(events), None).await?
            {
                pending.extend(halves.into_iter().rev());
            }
        }
        Ok(())
    }

    async fn write(
        &mut self,
        connection: &mut PgConnection,
        batch: PrefetchedBatch,
        deferred: &mut AggregateChanges,
    ) -> Result<(), ReprojectionError> {
        self.add_stats(batch.read, batch.unreadable);
        let deferred_if_any = (self.flush == AggregateFlush::Deferred).then_some(&mut *deferred);
        match self.write_events(connection, &batch.events, batch.changes, deferred_if_any).await? {
            None => Ok(()),
            Some(halves) => {
                // What is not held must meet what was.
                write_deferred(connection, std::mem::take(deferred)).await?;
                for half in halves {
                    self.project(connection, half).await?;
                }
                Ok(())
            }
        }
    }

    /// Writes all of it in one transaction, but for what is to be held back; or says what to try instead, where some event in
    /// it is refused for its content.
    async fn write_events<'a>(
        &mut self,
        connection: &mut PgConnection,
        events: &'a [Event],
        changes: Changes,
        deferred: Option<&mut AggregateChanges>,
    ) -> Result<Option<[&'a [Event]; 2]>, ReprojectionError> {
        let mut tx = connection.begin().await?;
        let written = match (bulk::write_chats_and_messages(&mut tx, changes).await, &deferred) {
            (Ok(aggregates), None) => {
                bulk::write_aggregates(&mut tx, aggregates).await.map(|()| AggregateChanges::default())
            }
            (written, _) => written,
        };
        let error = match written {
            Ok(aggregates) => {
                tx.commit().await?;
                if let Some(deferred) = deferred {
                    deferred.add(aggregates);
                }
                return Ok(None);
            }
            Err(error) => error,
        };
        tx.rollback().await?;
        match Disposition::for_fault(&store::classify(&error), events.len()) {
            Disposition::Split => {
                let (one, other) = events.split_at(events.len() / 2);
                Ok(Some([one, other]))
            }
            Disposition::Quarantine => {
                self.stats.refused += 1;
                Ok(None)
            }
            Disposition::Wait | Disposition::Retry => Err(error.into()),
        }
    }

    /// Of these events, those that the live tables have. Who calls holds a snapshot.
    pub async fn filter_recorded(
        &self,
        connection: &mut PgConnection,
        events: Vec<Event>,
    ) -> Result<Vec<Event>, ReprojectionError> {
        let changes = project(&events);
        let (chats, conversations): (Vec<_>, Vec<_>) =
            (changes.chats.into_keys().collect(), changes.conversations.into_keys().collect());
        self.shadow.leave(connection).await?;
        let live = store::read_related(connection, &chats, &conversations).await?;
        self.shadow.enter(connection).await?;
        Ok(events.into_iter().filter(|event| is_recorded_in(event, &live.chats, &live.conversations)).collect())
    }
}

async fn write_deferred(connection: &mut PgConnection, deferred: AggregateChanges) -> Result<(), ReprojectionError> {
    let mut tx = connection.begin().await?;
    let Err(error) = bulk::write_aggregates(&mut tx, deferred).await else { return Ok(tx.commit().await?) };
    tx.rollback().await?;
    match Disposition::for_fault(&store::classify(&error), 1) {
        Disposition::Split | Disposition::Quarantine => Err(ReprojectionError::SumsRefused),
        Disposition::Wait | Disposition::Retry => Err(error.into()),
    }
}
