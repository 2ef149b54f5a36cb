//! The projection of the log into a shadow of the tables, shared by `rebuild` and `verify`.
//!
//! Projection and store are the recorders' own; only the search path of the connection differs. One task reads, decodes
//! and projects ahead while the database writes; a bounded channel connects the two.

use async_nats::Client;
use shared::event::Event;
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Executor as _};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::batch_reader::{BatchReader, PrefetchedBatch, UnreadableEvent};
use super::error::ReprojectionError;
use crate::policy::disposition::Disposition;
use crate::projection::merge::AggregateChanges;
use crate::projection::pricing::Prices;
use crate::projection::{Changes, RecordedRows, is_recorded_in, project};
use crate::source::log::{LogError, LogExtent, LogReader, RangeStart};
use crate::store;
use crate::store::bulk;
use crate::store::quarantine;
use crate::store::shadow::ShadowSchema;

/// The number of batches read ahead of the database.
const PREFETCHED_BATCHES: usize = 2;
/// The maximum number of rows of sums held in memory: some tens of megabytes.
const MAX_DEFERRED_ROWS: usize = 100_000;

/// A projection of the log into a shadow.
pub struct Reprojection {
    pub(super) shadow: ShadowSchema,
    reader: Option<BatchReader>,
    /// The latest time of an event to project; none for the whole log.
    pub(super) as_of: Option<OffsetDateTime>,
    pub(super) stop: CancellationToken,
    flush: AggregateFlush,
    pub(super) prices: Prices,
    /// Undecodable events that have not been looked up in quarantine yet.
    unreadable: Vec<UnreadableEvent>,
    /// The ids in quarantine that projected events with large bodies have, if their bodies were missing once.
    with_bodies: Vec<Uuid>,
    /// The totals so far.
    pub stats: ReprojectionStats,
}

/// The time at which the changes of conversations and usage are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateFlush {
    /// Once for many batches: fast, but a refused row cannot be traced to an event.
    Deferred,
    /// With each batch. An event whose rows are refused is then found and left out whole, as in the recorders.
    PerBatch,
}

/// The totals of a projection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReprojectionStats {
    /// The number of events read from the log.
    pub events: u64,
    /// The number of events read that this version cannot decode.
    pub undecodable: u64,
    /// The number of undecodable events that are not in quarantine, among those looked up so far.
    pub lost: u64,
    /// The sequence of the first event counted in `lost`.
    pub first_lost: Option<u64>,
    /// The number of events read whose rows the database refused.
    pub refused: u64,
    /// The number of chats copied from the live tables, because the log no longer has the events.
    pub carried_over: u64,
}

impl Reprojection {
    /// Makes a projection of the whole log from `start` on into the given shadow.
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
            prices: Prices::default(),
            unreadable: Vec::new(),
            with_bodies: Vec::new(),
            stats: ReprojectionStats::default(),
        }
    }

    /// The shadow that receives the rows.
    pub fn shadow(&self) -> &ShadowSchema {
        &self.shadow
    }

    /// Projects all events up to the sequence `until` that have not been projected yet, and reports the totals after
    /// each batch. Fails with [`ReprojectionError::Stopped`] when the token is canceled.
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

    /// Reads the next batch up to the sequence `until` without writing, for a caller that selects the events to
    /// project. Returns none after the last event.
    pub async fn read(&mut self, until: u64) -> Result<Option<Vec<Event>>, ReprojectionError> {
        let reader = self.reader.as_mut().ok_or(ReprojectionError::Reader)?;
        let Some(batch) = reader.next(until).await? else { return Ok(None) };
        let ahead = PrefetchedBatch::project(batch, self.as_of);
        self.add_stats(ahead.read, ahead.unreadable, ahead.with_bodies);
        Ok(Some(ahead.events))
    }

    fn add_stats(&mut self, read: u64, unreadable: Vec<UnreadableEvent>, with_bodies: Vec<Uuid>) {
        self.stats.events += read;
        self.stats.undecodable += unreadable.len() as u64;
        self.unreadable.extend(unreadable);
        self.with_bodies.extend(with_bodies);
    }

    /// Removes the projected events from quarantine that were put there when their bodies were missing.
    pub(super) async fn release_from_quarantine(&self, tx: &mut PgConnection) -> Result<(), sqlx::Error> {
        quarantine::delete_recorded(tx, &self.with_bodies).await
    }

    /// Looks up the undecodable events in quarantine, and counts the events that are not there as lost.
    pub async fn check_quarantine(&mut self, connection: &mut PgConnection) -> Result<(), ReprojectionError> {
        let unreadable = std::mem::take(&mut self.unreadable);
        if unreadable.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = unreadable.iter().map(|event| event.quarantine_id).collect();
        self.shadow.leave(connection).await?;
        let quarantined = quarantine::existing_ids(connection, &ids).await?;
        self.shadow.enter(connection).await?;
        for event in unreadable.iter().filter(|event| !quarantined.contains(&event.quarantine_id)) {
            tracing::warn!(
                sequence = event.sequence,
                event = event.event_id,
                reason = event.detail,
                "an event of the log cannot be read, and is not in quarantine: its rows are left out"
            );
            self.stats.lost += 1;
            self.stats.first_lost.get_or_insert(event.sequence);
        }
        Ok(())
    }

    /// Projects the given events and writes all rows at once. An event whose rows are refused is counted and left out.
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
        self.add_stats(batch.read, batch.unreadable, batch.with_bodies);
        let deferred_if_any = (self.flush == AggregateFlush::Deferred).then_some(&mut *deferred);
        match self.write_events(connection, &batch.events, batch.changes, deferred_if_any).await? {
            None => Ok(()),
            Some(halves) => {
                // The halves are written with their sums, so the sums held back must be written first.
                write_deferred(connection, std::mem::take(deferred)).await?;
                for half in halves {
                    self.project(connection, half).await?;
                }
                Ok(())
            }
        }
    }

    /// Writes the events in one transaction, except for the sums when `deferred` is given. When the database refuses
    /// the content of some event, returns the two halves of the batch to try next.
    async fn write_events<'a>(
        &mut self,
        connection: &mut PgConnection,
        events: &'a [Event],
        changes: Changes,
        deferred: Option<&mut AggregateChanges>,
    ) -> Result<Option<[&'a [Event]; 2]>, ReprojectionError> {
        let mut tx = connection.begin().await?;
        let written = match (bulk::write_chats_and_messages(&mut tx, &mut self.prices, changes).await, &deferred) {
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

    /// Takes a snapshot of the live tables in the transaction, which must not have read anything, and projects all events that the snapshot
    /// has. Then what the snapshot has and the shadow lacks is in no event of the log, although recorders go on writing.
    pub async fn reach_snapshot(&mut self, tx: &mut PgConnection, client: &Client) -> Result<(), ReprojectionError> {
        tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
        self.shadow.share_lock_live_tables(tx).await?;
        self.shadow.enter(tx).await?;
        // The first query takes the snapshot, before the end of the log is read: each event in the snapshot lies before the end.
        tx.execute("SELECT pg_current_snapshot()").await?;
        let last = LogReader::extent(client).await?.last_sequence;
        while let Some(events) = self.read(last).await? {
            self.project(tx, &events).await?;
        }
        Ok(())
    }

    /// Selects the events that the live tables already have. The caller's transaction must hold a snapshot.
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
        let rows = RecordedRows {
            chats: live.chats,
            conversations: live.conversations,
            admin: store::admin_rows::matching(connection, &changes.admin).await?,
        };
        self.shadow.enter(connection).await?;
        Ok(events.into_iter().filter(|event| is_recorded_in(event, &rows)).collect())
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
