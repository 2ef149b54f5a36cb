//! The tables compared with the log, row by row, while everything runs.
//!
//! The log is projected into a shadow; then a snapshot of the live tables is compared with it. What the snapshot has of the
//! log is found without stopping anyone: every event up to the consumer's acknowledgement floor, read before the snapshot is
//! taken, has been committed, so it is in the snapshot. Of the events behind it, those are counted in which the snapshot's
//! own ledger has: a row that already says all that an event does was written with it. The others are not recorded yet.

use async_nats::{Client, jetstream};
use shared::event::{Event, EventKind};
use shared::id::{ChatId, ConversationId, EventId};
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Executor as _};
use time::{Date, OffsetDateTime};
use tokio_util::sync::CancellationToken;

use super::error::ReprojectError;
use super::progress::{Phase, Tell};
use super::reprojection::{Done, Holding, Reprojection};
use crate::projection::project;
use crate::projection::tables::Table;
use crate::source::log::{Ending, Extent, Log, Span, Start};
use crate::source::retry::Patience;
use crate::source::setup::{self, SetupError};
use crate::store;
use crate::store::compare::{Comparison, Difference, compare};
use crate::store::shadow::{self, Keep, Shadow};
use crate::store::verifications::{self, Verification};

/// Where the shadow is. It belongs to whoever holds the right to verify.
const SCHEMA: &str = "stenograph_verify";
/// How much earlier than the first day to begin reading: a gateway's clock may be ahead of the broker's.
const SKEW: time::Duration = time::Duration::HOUR;
/// How many events are named for a row.
const NAMED: usize = 4;

/// What a comparison found.
#[derive(Debug)]
pub struct Verified {
    /// What was projected.
    pub done: Done,
    /// Events that the tables did not have yet.
    pub unrecorded: u64,
    /// Each table.
    pub tables: Vec<Comparison>,
    /// What the log has about the differences that are told.
    pub explained: Vec<Explained>,
}

/// A difference, and the events of the log that say what the row should be.
#[derive(Debug)]
pub struct Explained {
    /// The difference.
    pub difference: Difference,
    /// How many events there are.
    pub count: usize,
    /// The last few of them.
    pub events: Vec<Named>,
}

/// An event of the log.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// Where in the stream it is.
    pub sequence: u64,
    /// Which event.
    pub kind: EventKind,
    /// Its id.
    pub id: EventId,
}

/// Compares the tables with the log; with `since`, the days from that one on.
pub async fn verify(
    connection: &mut PgConnection,
    client: Client,
    since: Option<Date>,
    stop: CancellationToken,
    tell: &impl Tell,
) -> Result<Verified, ReprojectError> {
    shadow::only_one(connection, "verify").await?;
    match attempt(connection, &client, since, Holding::Many, &stop, tell).await {
        Err(ReprojectError::SumsRefused) => attempt(connection, &client, since, Holding::Each, &stop, tell).await,
        outcome => outcome,
    }
}

async fn attempt(
    connection: &mut PgConnection,
    client: &Client,
    since: Option<Date>,
    holding: Holding,
    stop: &CancellationToken,
    tell: &impl Tell,
) -> Result<Verified, ReprojectError> {
    let shadow = Shadow::create(connection, SCHEMA, Keep::Compare).await?;
    let start = since.map_or(Start::Beginning, |day| Start::Time(day.midnight().assume_utc() - SKEW));
    let verified = match Log::extent(client).await {
        Err(error) => Err(error.into()),
        Ok(extent) => {
            let from = (start, &extent);
            let reprojection = Reprojection::new(client.clone(), shadow.clone(), from, None, holding, stop.clone());
            compared(connection, client, (reprojection, &extent), since, tell).await
        }
    };
    if let Err(error) = shadow.drop(connection).await {
        tracing::warn!(error = store::describe(&error), "schema {SCHEMA} is left: the next verify drops it");
    }
    let mut verified = verified?;
    shadow.leave(connection).await?;
    explain(client, start, &mut verified.explained, stop).await?;
    verifications::insert(connection, &verified.result(since)).await?;
    Ok(verified)
}

async fn compared(
    connection: &mut PgConnection,
    client: &Client,
    (mut reprojection, extent): (Reprojection, &Extent),
    since: Option<Date>,
    tell: &impl Tell,
) -> Result<Verified, ReprojectError> {
    tell.phase(Phase::Projecting { events: extent.events });
    reprojection.advance(connection, floor(client).await?.min(extent.last), &|done| tell.done(done)).await?;

    tell.phase(Phase::Comparing);
    let shadow = reprojection.shadow().clone();
    let committed = floor(client).await?;
    let mut tx = connection.begin().await?;
    tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
    // A lock takes no snapshot: the tables are the ones that stay before one is taken.
    shadow.pin(&mut tx).await?;
    shadow.enter(&mut tx).await?;
    // The first query does, before it is asked where the log ends: what the snapshot has is not behind that.
    tx.execute("SELECT pg_current_snapshot()").await?;
    let last = Log::extent(client).await?.last;
    while let Some(events) = reprojection.read(committed.min(last)).await? {
        reprojection.project(&mut tx, &events).await?;
        tell.done(reprojection.done);
    }
    let mut unrecorded = 0;
    while let Some(events) = reprojection.read(last).await? {
        let all = events.len();
        let recorded = reprojection.recorded(&mut tx, events).await?;
        unrecorded += (all - recorded.len()) as u64;
        reprojection.project(&mut tx, &recorded).await?;
    }
    reprojection.look_in_quarantine(&mut tx).await?;
    reprojection.carry_over(&mut tx, extent, since).await?;
    let mut tables = Vec::new();
    for table in Table::ALL {
        tables.push(compare(&mut tx, &shadow, table, since).await?);
    }
    tx.rollback().await?;
    let explained = tables.iter().flat_map(|table| table.told.iter().cloned()).map(Explained::new).collect();
    Ok(Verified { done: reprojection.done, unrecorded, tables, explained })
}

/// Up to which sequence everything has been acknowledged, and so committed or put aside.
async fn floor(client: &Client) -> Result<u64, ReprojectError> {
    let jetstream = jetstream::new(client.clone());
    let patience = Patience::begin();
    let consumer = loop {
        match setup::consumer(&jetstream).await {
            Err(SetupError::Unavailable(error)) if patience.lasts(&error).await => {}
            outcome => break outcome?,
        }
    };
    // It was asked for just now.
    Ok(consumer.cached_info().ack_floor.stream_sequence)
}

/// Reads the log once more for what it has about these rows.
async fn explain(
    client: &Client,
    start: Start,
    rows: &mut [Explained],
    stop: &CancellationToken,
) -> Result<(), ReprojectError> {
    if rows.is_empty() {
        return Ok(());
    }
    let span = Span { from: start, to: None, subjects: Vec::new(), ending: Ending::Stop };
    let mut log = Log::open(client.clone(), span).await?;
    while let Some(Some(delivery)) = stop.run_until_cancelled(log.next()).await.transpose()? {
        let Ok(event) = delivery.read() else { continue };
        let named = Named { sequence: delivery.sequence(), kind: event.kind(), id: event.id() };
        let about = About::of(&event);
        for row in rows.iter_mut().filter(|row| about.is(&row.difference)) {
            row.count += 1;
            if row.events.len() == NAMED {
                row.events.remove(0);
            }
            row.events.push(named);
        }
    }
    if stop.is_cancelled() { Err(ReprojectError::Stopped) } else { Ok(()) }
}

/// What an event is about.
struct About {
    chat: Option<ChatId>,
    conversation: Option<ConversationId>,
    user: String,
    at: Option<OffsetDateTime>,
}

impl About {
    fn of(event: &Event) -> Self {
        let changes = project(std::slice::from_ref(event));
        let chat = changes.chats.values().next().map(|change| &change.row);
        let conversation = changes.conversations.values().next();
        let at = chat.map(|chat| chat.started_at).or(conversation.map(|conversation| conversation.created_at));
        Self {
            chat: chat.map(|chat| chat.chat_id),
            conversation: conversation.map(|conversation| conversation.conversation_id),
            user: event.user_id().to_string(),
            at,
        }
    }

    fn is(&self, row: &Difference) -> bool {
        match (row.chat_id, row.conversation_id) {
            (Some(chat), _) => self.chat == Some(ChatId(chat)),
            (None, Some(conversation)) => self.conversation == Some(ConversationId(conversation)),
            (None, None) => {
                let key = |name: &str| row.key.iter().find(|(column, _)| column == name)?.1.as_str();
                let day = key("date").or(key("slot_at")).and_then(|time| time.get(..10));
                let is_that_day = self.at.is_none_or(|at| day == Some(at.date().to_string().as_str()));
                row.user_id.as_deref() == Some(&self.user) && is_that_day
            }
        }
    }
}

// === impl Explained ===

impl Explained {
    fn new(difference: Difference) -> Self {
        Self { difference, count: 0, events: Vec::new() }
    }
}

// === impl Verified ===

impl Verified {
    /// How many rows are not what the log says.
    pub fn differences(&self) -> i64 {
        self.tables.iter().map(|table| table.differences).sum()
    }

    fn result(&self, since: Option<Date>) -> Verification {
        let rows: serde_json::Map<_, _> =
            self.tables.iter().map(|table| (table.table.name().to_owned(), table.rows.into())).collect();
        Verification {
            finished_at: OffsetDateTime::now_utc(),
            since,
            events: i64::try_from(self.done.events).unwrap_or(i64::MAX),
            rows: serde_json::Value::Object(rows).to_string(),
            differences: self.differences(),
        }
    }
}
