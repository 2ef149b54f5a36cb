//! From the log into a shadow of the tables: what `rebuild` and `verify` have in common.
//!
//! The projection is the recorders' own, and so is the store: only the search path of the connection differs. One task reads,
//! decodes and projects ahead while the database works; a bounded number of batches is between the two.

use async_nats::Client;
use shared::event::Event;
use shared::id::{ChatId, ConversationId};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use time::{Date, OffsetDateTime};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::batch::{Fill, Limits};
use crate::disposition::Disposition;
use crate::projection::settle::Sums;
use crate::projection::tables::Table;
use crate::projection::{Changes, is_in, project};
use crate::source::Batch;
use crate::source::delivery::Delivery;
use crate::source::log::{Ending, Extent, Log, LogError, Span, Start};
use crate::source::setup::SetupError;
use crate::store;
use crate::store::alone;
use crate::store::quarantine::{self, Reason};
use crate::store::shadow::{Shadow, ShadowError};

/// Batches are larger than the recorders' own: nobody waits for what is in them, and a chat's start and end that come in the
/// same one are written once.
const LIMITS: Limits = Limits { events: 4000, bytes: 16 << 20, linger: std::time::Duration::ZERO };
/// How many batches are read ahead.
const AHEAD: usize = 2;
/// How many rows of sums may be held back: some tens of megabytes.
const HELD: usize = 100_000;
/// How many rows are carried over at a time.
const CARRIED: i64 = 1000;
/// How far the clocks of gateways and of the broker may be apart, where events from before the log's first one are gone.
const SKEW: time::Duration = time::Duration::minutes(5);

/// A projection of the log into a shadow.
pub struct Reprojection {
    shadow: Shadow,
    reader: Option<Reader>,
    /// Events of a later time are left out.
    as_of: Option<OffsetDateTime>,
    stop: CancellationToken,
    holding: Holding,
    /// Events that could not be read, and have not been looked for in quarantine yet.
    unreadable: Vec<Unreadable>,
    /// What was done so far.
    pub done: Done,
}

/// An event that cannot be read.
#[derive(Clone, Copy, Debug)]
struct Unreadable {
    sequence: u64,
    /// Its id in quarantine, if it is there.
    quarantine_id: Uuid,
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

/// Why a projection was given up.
#[derive(Debug, thiserror::Error)]
pub enum ReprojectError {
    /// It was told to stop.
    #[error("stopped: the tables are as they were")]
    Stopped,
    /// The log cannot be read.
    #[error("the log: {0}")]
    Log(#[from] LogError),
    /// The recorders' consumer cannot be asked.
    #[error("the log: {0}")]
    Consumer(#[from] SetupError),
    /// The shadow cannot be made, or cannot be used.
    #[error(transparent)]
    Shadow(#[from] ShadowError),
    /// The database's own trouble.
    #[error("the database: {}", store::describe(.0))]
    Database(#[from] sqlx::Error),
    /// The database refuses for its content what was held back of many batches: of which event's it is cannot be told.
    #[error("the database refuses the sums of many events")]
    SumsRefused,
    /// The task that reads died.
    #[error("the reader of the log died")]
    Reader,
    /// The tables may have what the log does not say any more.
    #[error(
        "{count} events of the log cannot be read, the first at sequence {first}, and are not in quarantine: what the tables \
         have of them would be gone, so the tables are as they were. Put back what bucket BODIES has lost, use a recorder of a \
         version that can read them, or wait until the recorders have come to them; --without-unreadable gives them up"
    )]
    Unreadable {
        /// How many.
        count: u64,
        /// Where the first one is.
        first: u64,
    },
}

/// Reads the log on from where it was left, each time up to what is known to be there.
struct Reader {
    client: Client,
    start: Start,
    made_at: OffsetDateTime,
    log: Option<Log>,
    /// A batch in the making: kept here so that giving up waiting for more loses nothing.
    gathered: Vec<Delivery>,
}

/// A batch that was read ahead.
struct Ahead {
    events: Vec<Event>,
    changes: Changes,
    read: u64,
    unreadable: Vec<Unreadable>,
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
        let reader = Reader { client, start, made_at: extent.made_at, log: None, gathered: Vec::new() };
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
        let written = match (alone::write_but_sums(&mut tx, changes).await, &held) {
            (Ok(sums), None) => alone::write_sums(&mut tx, sums).await.map(|()| Sums::default()),
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

    /// Takes over from the live tables what is older than the log's first event, as far as the log does not have it. Where only
    /// the days from `since` on are projected, that is what belongs to them; and of older conversations that they touch, the log
    /// was not asked when they were opened.
    pub async fn carry_over(
        &mut self,
        connection: &mut PgConnection,
        extent: &Extent,
        since: Option<Date>,
    ) -> Result<(), ReprojectError> {
        let begins = extent.begins_at.map(|at| if extent.is_cut { at + SKEW } else { at });
        let before = [begins, self.as_of].into_iter().flatten().min();
        let from = since.map(|day| day.midnight().assume_utc());
        let opened_before = before.map(|before| from.map_or(before, |from| before.max(from)));
        // Chats that are older than the log and yet belong to these days, if there can be any.
        let any = from.zip(before).is_none_or(|(from, before)| from < before);
        let (mut chat, mut conversation) = (Uuid::nil(), Uuid::nil());
        loop {
            if !any {
                break;
            }
            let ids = self.lacking(connection, &self.lacking_chats(), chat, (from, before)).await?;
            let Some(last) = ids.last() else { break };
            chat = *last;
            self.done.carried += ids.len() as u64;
            self.carry(connection, &ids.into_iter().map(ChatId).collect::<Vec<_>>(), &[]).await?;
        }
        loop {
            let ids =
                self.lacking(connection, &self.lacking_conversations(), conversation, (from, opened_before)).await?;
            let Some(last) = ids.last() else { break };
            conversation = *last;
            self.carry(connection, &[], &ids.into_iter().map(ConversationId).collect::<Vec<_>>()).await?;
        }
        if self.stop.is_cancelled() { Err(ReprojectError::Stopped) } else { Ok(()) }
    }

    async fn carry(
        &self,
        connection: &mut PgConnection,
        chats: &[ChatId],
        conversations: &[ConversationId],
    ) -> Result<(), ReprojectError> {
        self.shadow.leave(connection).await?;
        let mut live = store::known(connection, chats, conversations).await?;
        self.shadow.enter(connection).await?;
        if let Some(as_of) = self.as_of {
            live.as_of(as_of);
        }
        let projected = store::known(connection, chats, &[]).await?.chats;
        let mut tx = connection.begin().await?;
        let changes = Changes::of_rows(live.chats, live.messages, live.conversations, &projected);
        let sums = alone::write_but_sums(&mut tx, changes).await?;
        alone::write_sums(&mut tx, sums).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn lacking(
        &self,
        connection: &mut PgConnection,
        sql: &str,
        after: Uuid,
        (from, before): (Option<OffsetDateTime>, Option<OffsetDateTime>),
    ) -> Result<Vec<Uuid>, sqlx::Error> {
        if self.stop.is_cancelled() {
            return Ok(Vec::new());
        }
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .bind(after)
            .bind(before)
            .bind(CARRIED)
            .bind(from)
            .fetch_all(connection)
            .await
    }

    fn lacking_chats(&self) -> String {
        let (live, own) = (self.shadow.live(Table::Chats), self.shadow.own(Table::Chats));
        format!(
            "SELECT l.chat_id FROM {live} l LEFT JOIN {own} s USING (chat_id)
             WHERE l.chat_id > $1 AND ($2::timestamptz IS NULL OR l.started_at < $2)
               AND ($4::timestamptz IS NULL OR l.started_at >= $4)
               AND (s.chat_id IS NULL
                    OR l.request_digest IS NOT NULL AND s.request_digest IS NULL
                    OR l.ending_digest IS NOT NULL AND s.ending_digest IS NULL)
             ORDER BY l.chat_id LIMIT $3"
        )
    }

    /// Where the log lacks the event that opened the conversation, or was not asked for it.
    fn lacking_conversations(&self) -> String {
        let (live, own) = (self.shadow.live(Table::Conversations), self.shadow.own(Table::Conversations));
        format!(
            "SELECT l.conversation_id FROM {live} l LEFT JOIN {own} s USING (conversation_id)
             WHERE l.conversation_id > $1 AND ($2::timestamptz IS NULL OR l.created_at < $2)
               AND (s.conversation_id IS NULL AND ($4::timestamptz IS NULL OR l.created_at >= $4)
                    OR s.created_at > l.created_at)
             ORDER BY l.conversation_id LIMIT $3"
        )
    }
}

async fn write_held(connection: &mut PgConnection, held: Sums) -> Result<(), ReprojectError> {
    let mut tx = connection.begin().await?;
    let Err(error) = alone::write_sums(&mut tx, held).await else { return Ok(tx.commit().await?) };
    tx.rollback().await?;
    match Disposition::of(&store::fault(&error), 1) {
        Disposition::Split | Disposition::Quarantine => Err(ReprojectError::SumsRefused),
        Disposition::Wait | Disposition::Retry => Err(error.into()),
    }
}

// === impl Reader ===

impl Reader {
    /// The next batch of the events up to this sequence, which must be one that the log has or had; none after the last. May
    /// be given up at any moment, and asked again.
    async fn next(&mut self, until: u64) -> Result<Option<Batch>, LogError> {
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
    fn of(batch: Batch, as_of: Option<OffsetDateTime>) -> Self {
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
