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

use super::error::ReprojectError;
use super::log_reader::{Ahead, Reader, Unreadable};
use crate::policy::disposition::Disposition;
use crate::projection::merge::Sums;
use crate::projection::{Changes, is_in, project};
use crate::source::log::{Extent, LogError, Start};
use crate::store;
use crate::store::bulk;
use crate::store::quarantine;
use crate::store::shadow::Shadow;

/// How many batches are read ahead.
const AHEAD: usize = 2;
/// How many rows of sums may be held back: some tens of megabytes.
const HELD: usize = 100_000;

/// A projection of the log into a shadow.
pub struct Reprojection {
    pub(super) shadow: Shadow,
    reader: Option<Reader>,
    /// Events of a later time are left out.
    pub(super) as_of: Option<OffsetDateTime>,
    pub(super) stop: CancellationToken,
    holding: Holding,
    /// Events that could not be read, and have not been looked for in quarantine yet.
    unreadable: Vec<Unreadable>,
    /// What was done so far.
    pub done: Done,
}

/// When conversations and usage are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// Once for many batches.
    Many,
    /// With each batch: an event whose rows are refused is then found, and left out whole, as the recorders do.
    Each,
}

/// How much was projected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
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
    pub carried: u64,
}

impl Reprojection {
    /// Of the whole log from `start` on, into this shadow.
    pub fn new(
        client: Client,
        shadow: Shadow,
        (start, extent): (Start, &Extent),
        as_of: Option<OffsetDateTime>,
        holding: Holding,
        stop: CancellationToken,
    ) -> Self {
        let reader = Reader::new(client, start, extent);
        Self { shadow, reader: Some(reader), as_of, stop, holding, unreadable: Vec::new(), done: Done::default() }
    }

    /// The shadow.
    pub fn shadow(&self) -> &Shadow {
        &self.shadow
    }

    /// Projects every event up to this sequence that has not been projected yet, and says after each batch how much is done.
    pub async fn advance(
        &mut self,
        connection: &mut PgConnection,
        until: u64,
        tell: &(dyn Fn(Done) + Sync),
    ) -> Result<(), ReprojectError> {
        self.shadow.enter(connection).await?;
        let mut reader = self.reader.take().ok_or(ReprojectError::Reader)?;
        let (sender, mut batches) = mpsc::channel(AHEAD);
        let as_of = self.as_of;
        let reading = tokio::spawn(async move {
            while let Some(batch) = reader.next(until).await? {
                if sender.send(Ahead::of(batch, as_of)).await.is_err() {
                    break;
                }
            }
            Ok::<_, LogError>(reader)
        });
        let mut held = Sums::default();
        while let Some(Some(batch)) = self.stop.run_until_cancelled(batches.recv()).await {
            self.write(connection, batch, &mut held).await?;
            if held.len() > HELD {
                write_held(connection, std::mem::take(&mut held)).await?;
            }
            tell(self.done);
        }
        if self.stop.is_cancelled() {
            return Err(ReprojectError::Stopped);
        }
        write_held(connection, held).await?;
        self.reader = Some(reading.await.map_err(|_| ReprojectError::Reader)??);
        Ok(())
    }

    /// The next batch up to this sequence, for who decides about every event.
    pub async fn read(&mut self, until: u64) -> Result<Option<Vec<Event>>, ReprojectError> {
        let reader = self.reader.as_mut().ok_or(ReprojectError::Reader)?;
        let Some(batch) = reader.next(until).await? else { return Ok(None) };
        let ahead = Ahead::of(batch, self.as_of);
        self.count(ahead.read, ahead.unreadable);
        Ok(Some(ahead.events))
    }

    fn count(&mut self, read: u64, unreadable: Vec<Unreadable>) {
        self.done.events += read;
        self.done.undecodable += unreadable.len() as u64;
        self.unreadable.extend(unreadable);
    }

    /// Looks in quarantine for the events that could not be read, and counts those that are not there.
    pub async fn look_in_quarantine(&mut self, connection: &mut PgConnection) -> Result<(), ReprojectError> {
        let unreadable = std::mem::take(&mut self.unreadable);
        if unreadable.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = unreadable.iter().map(|event| event.quarantine_id).collect();
        self.shadow.leave(connection).await?;
        let there = quarantine::those_there(connection, &ids).await?;
        self.shadow.enter(connection).await?;
        for event in unreadable.iter().filter(|event| !there.contains(&event.quarantine_id)) {
            self.done.lost += 1;
            self.done.first_lost.get_or_insert(event.sequence);
        }
        Ok(())
    }

    /// Projects these events.
    pub async fn project(&mut self, connection: &mut PgConnection, events: &[Event]) -> Result<(), ReprojectError> {
        let mut left = vec![events];
        while let Some(events) = left.pop() {
            if !events.is_empty()
                && let Some(halves) = self.write_part(connection, events, project(events), None).await?
            {
                left.extend(halves.into_iter().rev());
            }
        }
        Ok(())
    }

    async fn write(
        &mut self,
        connection: &mut PgConnection,
        batch: Ahead,
        held: &mut Sums,
    ) -> Result<(), ReprojectError> {
        self.count(batch.read, batch.unreadable);
        let holds = (self.holding == Holding::Many).then_some(&mut *held);
        match self.write_part(connection, &batch.events, batch.changes, holds).await? {
            None => Ok(()),
            Some(halves) => {
                // What is not held must meet what was.
                write_held(connection, std::mem::take(held)).await?;
                for half in halves {
                    self.project(connection, half).await?;
                }
                Ok(())
            }
        }
    }

    /// Writes all of it in one transaction, but for what is to be held back; or says what to try instead, where some event in
    /// it is refused for its content.
    async fn write_part<'a>(
        &mut self,
        connection: &mut PgConnection,
        events: &'a [Event],
        changes: Changes,
        held: Option<&mut Sums>,
    ) -> Result<Option<[&'a [Event]; 2]>, ReprojectError> {
        let mut tx = connection.begin().await?;
        let written = match (bulk::write_but_sums(&mut tx, changes).await, &held) {
            (Ok(sums), None) => bulk::write_sums(&mut tx, sums).await.map(|()| Sums::default()),
            (written, _) => written,
        };
        let error = match written {
            Ok(sums) => {
                tx.commit().await?;
                if let Some(held) = held {
                    held.add(sums);
                }
                return Ok(None);
            }
            Err(error) => error,
        };
        tx.rollback().await?;
        match Disposition::of(&store::fault(&error), events.len()) {
            Disposition::Split => {
                let (one, other) = events.split_at(events.len() / 2);
                Ok(Some([one, other]))
            }
            Disposition::Quarantine => {
                self.done.refused += 1;
                Ok(None)
            }
            Disposition::Wait | Disposition::Retry => Err(error.into()),
        }
    }

    /// Of these events, those that the live tables have. Who calls holds a snapshot.
    pub async fn recorded(
        &self,
        connection: &mut PgConnection,
        events: Vec<Event>,
    ) -> Result<Vec<Event>, ReprojectError> {
        let changes = project(&events);
        let (chats, conversations): (Vec<_>, Vec<_>) =
            (changes.chats.into_keys().collect(), changes.conversations.into_keys().collect());
        self.shadow.leave(connection).await?;
        let live = store::known(connection, &chats, &conversations).await?;
        self.shadow.enter(connection).await?;
        Ok(events.into_iter().filter(|event| is_in(event, &live.chats, &live.conversations)).collect())
    }
}

async fn write_held(connection: &mut PgConnection, held: Sums) -> Result<(), ReprojectError> {
    let mut tx = connection.begin().await?;
    let Err(error) = bulk::write_sums(&mut tx, held).await else { return Ok(tx.commit().await?) };
    tx.rollback().await?;
    match Disposition::of(&store::fault(&error), 1) {
        Disposition::Split | Disposition::Quarantine => Err(ReprojectError::SumsRefused),
        Disposition::Wait | Disposition::Retry => Err(error.into()),
    }
}
