//! The comparison of the tables with the log, row by row, while recorders and readers keep running.
//!
//! The log is projected into a shadow, and a snapshot of the live tables is compared with the shadow. The events in the
//! snapshot are found without stopping a recorder. Every event up to the consumer's acknowledgement floor, read before
//! the snapshot is taken, has been committed and is therefore in the snapshot. An event behind the floor counts as
//! recorded when the rows of the snapshot already contain all facts of the event. All other events are not recorded
//! yet.

use std::time::Duration;

use async_nats::{Client, jetstream};
use shared::event::{Event, EventType};
use shared::id::{ChatId, ConversationId, EventId};
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Executor as _};
use time::{Date, OffsetDateTime};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

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

/// The schema of the shadow. Only the holder of the `verify` lock uses this schema.
const SHADOW_SCHEMA: &str = "stenograph_verify";
/// The time before the first day at which reading begins: a gateway's clock may be ahead of the broker's.
const MAX_CLOCK_SKEW: time::Duration = time::Duration::HOUR;
/// The maximum time to wait for recorders that price chats anew, and the pause between two looks.
const MAX_REPRICING_WAIT: Duration = Duration::from_secs(3600);
const REPRICING_INTERVAL: Duration = Duration::from_secs(1);
/// The maximum number of events listed for a differing row.
const MAX_LISTED_EVENTS: usize = 4;

/// The result of a comparison.
#[derive(Debug)]
pub struct VerifyReport {
    /// The totals of the projection.
    pub stats: ReprojectionStats,
    /// The number of events that the tables did not have yet.
    pub unrecorded: u64,
    /// The comparison of each table.
    pub tables: Vec<TableComparison>,
    /// The listed differences, with the events of the log about each row.
    pub explained: Vec<ExplainedDifference>,
}

/// A differing row, with the events of the log that determine the row.
#[derive(Debug)]
pub struct ExplainedDifference {
    /// The difference between the live row and the log.
    pub difference: RowDifference,
    /// The number of events about the row.
    pub count: usize,
    /// The last events about the row, at most 4.
    pub events: Vec<EventReference>,
}

/// A reference to an event of the log.
#[derive(Clone, Copy, Debug)]
pub struct EventReference {
    /// The sequence in the stream.
    pub sequence: u64,
    /// The type of the event.
    pub event_type: EventType,
    /// The id of the event.
    pub id: EventId,
}

/// Compares the tables with the log; with `since`, only UTC days from `since` on. The result is stored in
/// `verifications`.
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
        tracing::warn!(
            error = store::describe(&error),
            "cannot drop schema {SHADOW_SCHEMA}: the next verify will drop the schema"
        );
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
    let deadline = Instant::now() + MAX_REPRICING_WAIT;
    let mut tx = loop {
        let mut tx = connection.begin().await?;
        tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
        // A lock statement takes no snapshot. From here on no rebuild can replace the live tables, and the snapshot is
        // taken later.
        shadow.share_lock_live_tables(&mut tx).await?;
        // The first query takes the snapshot, before the end of the log is read. Therefore each event in the snapshot
        // lies at or before `last`. While chats are being priced anew, the snapshot would have only a part of the event.
        shadow.leave(&mut tx).await?;
        if !store::repricings::is_any_pending(&mut tx).await? {
            break tx;
        }
        tx.rollback().await?;
        if reprojection.stop.is_cancelled() {
            return Err(ReprojectionError::Stopped);
        }
        if Instant::now() > deadline {
            return Err(ReprojectionError::Repricing);
        }
        sleep(REPRICING_INTERVAL).await;
    };
    shadow.enter(&mut tx).await?;
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

/// The sequence up to which all events have been acknowledged, and therefore committed or put into quarantine.
async fn acknowledged_floor(client: &Client) -> Result<u64, ReprojectionError> {
    let jetstream = jetstream::new(client.clone());
    let retry_until = RetryUntil::start();
    let consumer = loop {
        match setup::verified_consumer(&jetstream).await {
            Err(SetupError::Unavailable(error)) if retry_until.wait_before_retry(&error).await => {}
            outcome => break outcome?,
        }
    };
    // The cached state is current: the consumer was read from the broker just now.
    Ok(consumer.cached_info().ack_floor.stream_sequence)
}

/// Reads the log again to find the events about the differing rows.
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
        let event_type = delivery.event_type().unwrap_or(event.kind().latest());
        let reference = EventReference { sequence: delivery.sequence(), event_type, id: event.id() };
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

/// The keys by which an event is matched to a row.
struct EventSubject {
    chat: Option<ChatId>,
    conversation: Option<ConversationId>,
    scope: Option<String>,
    /// The publication, the repricing, the project or the entry of the audit log.
    change: Option<Uuid>,
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
            scope: changes.admin.limits.keys().next().map(ToString::to_string),
            change: {
                let prices = changes.admin.price_lists.keys().chain(changes.admin.repricings.keys());
                let projects = changes.admin.projects.keys().map(|id| &id.0);
                prices.chain(changes.admin.audit_log.keys()).chain(projects).next().copied()
            },
            user: event.user_id().to_string(),
            at,
        }
    }

    fn matches(&self, row: &RowDifference) -> bool {
        match (row.chat_id, row.conversation_id) {
            (Some(chat), _) => self.chat == Some(ChatId(chat)),
            (None, Some(conversation)) => self.conversation == Some(ConversationId(conversation)),
            (None, None) if row.table == Table::Limits => {
                row.key.iter().any(|(_, scope)| scope.as_str() == self.scope.as_deref())
            }
            (None, None)
                if matches!(row.table, Table::PriceLists | Table::Repricings | Table::Projects | Table::AuditLog) =>
            {
                let change = self.change.map(|id| id.to_string());
                row.key.iter().any(|(_, id)| id.as_str() == change.as_deref())
            }
            (None, None) => {
                let key = |name: &str| row.key.iter().find(|(column, _)| column == name)?.1.as_str();
                let day = key("date").or(key("slot_at")).and_then(|time| time.get(..10));
                let is_that_day = self.at.is_none_or(|at| day == Some(at.date().to_string().as_str()));
                row.user_id.as_deref() == Some(&self.user) && is_that_day
            }
        }
    }
}

// === impl ExplainedDifference ===

impl ExplainedDifference {
    fn new(difference: RowDifference) -> Self {
        Self { difference, count: 0, events: Vec::new() }
    }
}

// === impl VerifyReport ===

impl VerifyReport {
    /// The number of rows that differ from the projection of the log.
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
