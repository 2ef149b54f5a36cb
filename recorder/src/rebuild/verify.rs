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

use super::error::ReprojectionError;
use super::progress::{ProgressListener, RebuildPhase};
use super::reprojection::{AggregateFlush, Reprojection, ReprojectionStats};
use crate::projection::project;
use crate::projection::tables::Table;
use crate::source::log::{LogExtent, LogRange, LogReader, RangeEnd, RangeStart};
use crate::source::retry::RetryUntil;
use crate::source::setup::{self, SetupError};
use crate::store;
use crate::store::compare::{RowDifference, TableComparison, compare};
use crate::store::shadow::{self, ShadowPurpose, ShadowSchema};
use crate::store::verifications::{self, Verification};

/// Where the shadow is. It belongs to whoever holds the right to verify.
const SHADOW_SCHEMA: &str = "stenograph_verify";
/// How much earlier than the first day to begin reading: a gateway's clock may be ahead of the broker's.
const MAX_CLOCK_SKEW: time::Duration = time::Duration::HOUR;
/// How many events are named for a row.
const MAX_LISTED_EVENTS: usize = 4;

/// What a comparison found.
#[derive(Debug)]
pub struct VerifyReport {
    /// What was projected.
    pub stats: ReprojectionStats,
    /// Events that the tables did not have yet.
    pub unrecorded: u64,
    /// Each table.
    pub tables: Vec<TableComparison>,
    /// What the log has about the differences that are told.
    pub explained: Vec<ExplainedDifference>,
}

/// A difference, and the events of the log that say what the row should be.
#[derive(Debug)]
pub struct ExplainedDifference {
    /// The difference.
    pub difference: RowDifference,
    /// How many events there are.
    pub count: usize,
    /// The last few of them.
    pub events: Vec<EventReference>,
}

/// An event of the log.
#[derive(Clone, Copy, Debug)]
pub struct EventReference {
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
    progress: &impl ProgressListener,
) -> Result<VerifyReport, ReprojectionError> {
    shadow::lock_exclusive_run(connection, "verify").await?;
    match run_once(connection, &client, since, AggregateFlush::Deferred, &stop, progress).await {
        Err(ReprojectionError::SumsRefused) => {
            run_once(connection, &client, since, AggregateFlush::PerBatch, &stop, progress).await
        }
        outcome => outcome,
    }
}

async fn run_once(
    connection: &mut PgConnection,
    client: &Client,
    since: Option<Date>,
    flush: AggregateFlush,
    stop: &CancellationToken,
    progress: &impl ProgressListener,
) -> Result<VerifyReport, ReprojectionError> {
    let shadow = ShadowSchema::create(connection, SHADOW_SCHEMA, ShadowPurpose::Compare).await?;
    let start =
        since.map_or(RangeStart::Beginning, |day| RangeStart::Time(day.midnight().assume_utc() - MAX_CLOCK_SKEW));
    let verified = match LogReader::extent(client).await {
        Err(error) => Err(error.into()),
        Ok(extent) => {
            let from = (start, &extent);
            let reprojection = Reprojection::new(client.clone(), shadow.clone(), from, None, flush, stop.clone());
            compare_with_log(connection, client, (reprojection, &extent), since, progress).await
        }
    };
    if let Err(error) = shadow.drop(connection).await {
        tracing::warn!(error = store::describe(&error), "schema {SHADOW_SCHEMA} is left: the next verify drops it");
    }
    let mut verified = verified?;
    shadow.leave(connection).await?;
    explain(client, start, &mut verified.explained, stop).await?;
    verifications::insert(connection, &verified.result(since)).await?;
    Ok(verified)
}

async fn compare_with_log(
    connection: &mut PgConnection,
    client: &Client,
    (mut reprojection, extent): (Reprojection, &LogExtent),
    since: Option<Date>,
    progress: &impl ProgressListener,
) -> Result<VerifyReport, ReprojectionError> {
    progress.phase_started(RebuildPhase::Projecting { events: extent.events });
    reprojection
        .advance(connection, acknowledged_floor(client).await?.min(extent.last_sequence), &|stats| {
            progress.advanced(stats);
        })
        .await?;

    progress.phase_started(RebuildPhase::Comparing);
    let shadow = reprojection.shadow().clone();
    let committed = acknowledged_floor(client).await?;
    let mut tx = connection.begin().await?;
    tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
    // A lock takes no snapshot: the tables are the ones that stay before one is taken.
    shadow.share_lock_live_tables(&mut tx).await?;
    shadow.enter(&mut tx).await?;
    // The first query does, before it is asked where the log ends: what the snapshot has is not behind that.
    tx.execute("SELECT pg_current_snapshot()").await?;
    let last = LogReader::extent(client).await?.last_sequence;
    while let Some(events) = reprojection.read(committed.min(last)).await? {
        reprojection.project(&mut tx, &events).await?;
        progress.advanced(reprojection.stats);
    }
    let mut unrecorded = 0;
    while let Some(events) = reprojection.read(last).await? {
        let all = events.len();
        let recorded = reprojection.filter_recorded(&mut tx, events).await?;
        unrecorded += (all - recorded.len()) as u64;
        reprojection.project(&mut tx, &recorded).await?;
    }
    reprojection.check_quarantine(&mut tx).await?;
    reprojection.carry_over(&mut tx, extent, since).await?;
    let mut tables = Vec::new();
    for table in Table::ALL {
        tables.push(compare(&mut tx, &shadow, table, since).await?);
    }
    tx.rollback().await?;
    let explained =
        tables.iter().flat_map(|table| table.listed.iter().cloned()).map(ExplainedDifference::new).collect();
    Ok(VerifyReport { stats: reprojection.stats, unrecorded, tables, explained })
}

/// Up to which sequence everything has been acknowledged, and so committed or put aside.
async fn acknowledged_floor(client: &Client) -> Result<u64, ReprojectionError> {
    let jetstream = jetstream::new(client.clone());
    let retry_until = RetryUntil::start();
    let consumer = loop {
        match setup::verified_consumer(&jetstream).await {
            Err(SetupError::Unavailable(error)) if retry_until.wait_before_retry(&error).await => {}
            outcome => break outcome?,
        }
    };
    // It was asked for just now.
    Ok(consumer.cached_info().ack_floor.stream_sequence)
}

/// Reads the log once more for what it has about these rows.
async fn explain(
    client: &Client,
    start: RangeStart,
    rows: &mut [ExplainedDifference],
    stop: &CancellationToken,
) -> Result<(), ReprojectionError> {
    if rows.is_empty() {
        return Ok(());
    }
    let range = LogRange { from: start, to: None, subjects: Vec::new(), end: RangeEnd::Stop };
    let mut log = LogReader::open(client.clone(), range).await?;
    while let Some(Some(delivery)) = stop.run_until_cancelled(log.next()).await.transpose()? {
        let Ok(event) = delivery.decode() else { continue };
        let reference = EventReference { sequence: delivery.sequence(), kind: event.kind(), id: event.id() };
        let subject = EventSubject::of(&event);
        for row in rows.iter_mut().filter(|row| subject.matches(&row.difference)) {
            row.count += 1;
            if row.events.len() == MAX_LISTED_EVENTS {
                row.events.remove(0);
            }
            row.events.push(reference);
        }
    }
    if stop.is_cancelled() { Err(ReprojectionError::Stopped) } else { Ok(()) }
}

/// What an event is about.
struct EventSubject {
    chat: Option<ChatId>,
    conversation: Option<ConversationId>,
    user: String,
    at: Option<OffsetDateTime>,
}

impl EventSubject {
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

    fn matches(&self, row: &RowDifference) -> bool {
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

impl ExplainedDifference {
    fn new(difference: RowDifference) -> Self {
        Self { difference, count: 0, events: Vec::new() }
    }
}

// === impl Verified ===

impl VerifyReport {
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
            events: i64::try_from(self.stats.events).unwrap_or(i64::MAX),
            rows: serde_json::Value::Object(rows).to_string(),
            differences: self.differences(),
        }
    }
}
