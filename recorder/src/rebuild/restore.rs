//! The way back: publishes again the events that the log has lost and whose rows the tables have, as after the broker was put back from an
//! older copy.
//!
//! The log is projected into a shadow, and a snapshot of the live tables is compared with the shadow, as before a rebuild: the shadow has
//! every event that is in the snapshot, so a row or a fact that it lacks is in no event of the log. The events of such rows are made again,
//! published, and projected into the shadow, page by page. Memory use is bounded by the size of a page.
//!
//! An event that is made again gives the rows that exist, so recorders that consume it meanwhile change no row and count nothing twice. The
//! comparison alone decides what is lost. So a second run publishes nothing, and a run after a killed one publishes the rest.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::Client;
use futures_util::stream::{StreamExt as _, TryStreamExt as _, iter};
use shared::event::{Event, EventKind};
use shared::id::{ChatId, ConversationId};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::error::ReprojectionError;
use super::progress::{ProgressListener, RebuildPhase};
use super::reprojection::{AggregateFlush, Reprojection, ReprojectionStats};
use crate::access::publication;
use crate::projection::chat::Chat;
use crate::projection::message::{Message, Position};
use crate::projection::restoration::{
    ChatRows, audit_event, chat_events, conversation_events, key_events, limits_event, price_list_event, project_event,
    repricing_event,
};
use crate::projection::tables::Table;
use crate::source::log::{LogExtent, LogReader, RangeStart};
use crate::source::retry::RetryUntil;
use crate::store;
use crate::store::losses::{self, Losses, LostRow};
use crate::store::shadow::{self, ShadowPurpose, ShadowSchema};

/// The schema of the shadow. Only the holder of the `restore-events` lock uses this schema.
const SHADOW_SCHEMA: &str = "stenograph_restore";
/// The number of keys read at a time.
const PAGE_ROWS: i64 = 1000;
/// The maximum number of rows from which events are made at a time.
const PART_ROWS: usize = 200;
/// The size of texts from which on a part ends, in bytes. One chat can be larger than that.
const PART_BYTES: i64 = 16 << 20;
/// The number of events published at the same time.
const PARALLEL_PUBLICATIONS: usize = 32;
/// The time within which the broker forgets the id of an event that is gone: its two minutes, and some more.
const ID_MEMORY: Duration = Duration::from_secs(150);
/// The pause before an event whose id the broker knows is published again.
const FORGETTING_INTERVAL: Duration = Duration::from_secs(1);
/// The tables in the order in which their events are made again. Prices come first, so that chats get their costs once; conversations come
/// after the chats, which give most of their facts. The facts of messages are those of their chats.
const ORDER: [Table; 8] = [
    Table::PriceLists,
    Table::Repricings,
    Table::Chats,
    Table::Conversations,
    Table::ApiKeys,
    Table::Projects,
    Table::Limits,
    Table::AuditLog,
];

/// The options of a restoration.
#[derive(Clone, Copy, Debug, Default)]
pub struct RestoreOptions {
    /// True to publish nothing.
    pub dry_run: bool,
    /// True to take undecodable events that are not in quarantine for lost.
    pub unreadable_as_lost: bool,
    /// True to take rows for lost that are older than the first event of a log whose oldest events were removed.
    pub older_as_lost: bool,
}

/// The result of a restoration.
#[derive(Clone, Debug)]
pub struct RestoreReport {
    /// The totals of the projection; events that were made again do not count.
    pub stats: ReprojectionStats,
    /// The number of events of each kind that were published, or would be.
    pub restored: BTreeMap<EventKind, u64>,
    /// The rows and facts that the log still lacks, because no event gives them.
    pub left: Losses,
}

/// Publishes again the events that the log has lost and whose rows the tables have.
pub async fn restore_events(
    connection: &mut PgConnection,
    client: Client,
    options: &RestoreOptions,
    stop: CancellationToken,
    progress: &impl ProgressListener,
) -> Result<RestoreReport, ReprojectionError> {
    shadow::lock_exclusive_run(connection, "restore-events").await?;
    match run_once(connection, &client, options, AggregateFlush::Deferred, &stop, progress).await {
        Err(ReprojectionError::SumsRefused) => {
            run_once(connection, &client, options, AggregateFlush::PerBatch, &stop, progress).await
        }
        outcome => outcome,
    }
}

async fn run_once(
    connection: &mut PgConnection,
    client: &Client,
    options: &RestoreOptions,
    flush: AggregateFlush,
    stop: &CancellationToken,
    progress: &impl ProgressListener,
) -> Result<RestoreReport, ReprojectionError> {
    let shadow = ShadowSchema::create(connection, SHADOW_SCHEMA, ShadowPurpose::Compare).await?;
    let restored = match LogReader::extent(client).await {
        Err(error) => Err(error.into()),
        Ok(extent) => {
            let from = (RangeStart::Beginning, &extent);
            let reprojection = Reprojection::new(client.clone(), shadow.clone(), from, None, flush, stop.clone());
            let (client, restored_at) = (client.clone(), shared::event::now());
            let run = RestoreRun { client, options: *options, reprojection, restored_at, restored: BTreeMap::new() };
            run.run(connection, &extent, progress).await
        }
    };
    if let Err(error) = shadow.drop(connection).await {
        tracing::warn!(
            error = store::describe(&error),
            "cannot drop schema {SHADOW_SCHEMA}: the next restore-events will drop the schema"
        );
    }
    restored
}

struct RestoreRun {
    client: Client,
    options: RestoreOptions,
    reprojection: Reprojection,
    /// The time in the mark of all events of the run.
    restored_at: OffsetDateTime,
    restored: BTreeMap<EventKind, u64>,
}

impl RestoreRun {
    async fn run(
        mut self,
        connection: &mut PgConnection,
        extent: &LogExtent,
        progress: &impl ProgressListener,
    ) -> Result<RestoreReport, ReprojectionError> {
        progress.phase_started(RebuildPhase::Projecting { events: extent.events });
        self.reprojection.advance(connection, extent.last_sequence, &|stats| progress.advanced(stats)).await?;
        self.check_unreadable(connection).await?;
        // A log that begins with sequence 1 has removed nothing: what it lacks is lost.
        if extent.is_truncated && !self.options.older_as_lost {
            progress.phase_started(RebuildPhase::CarryingOver);
            self.reprojection.carry_over(connection, extent, None).await?;
        }
        progress.phase_started(RebuildPhase::Comparing);
        let mut tx = connection.begin().await?;
        self.reprojection.reach_snapshot(&mut tx, &self.client).await?;
        let shadow = self.reprojection.shadow().clone();
        self.check_unreadable(&mut tx).await?;
        progress.phase_started(RebuildPhase::Restoring);
        let stats = self.reprojection.stats;
        for table in ORDER {
            self.restore_table(&mut tx, &shadow, table).await?;
        }
        let left = losses::count(&mut tx, &shadow).await?;
        tx.rollback().await?;
        shadow.leave(connection).await?;
        Ok(RestoreReport { stats, restored: self.restored, left })
    }

    /// Fails when undecodable events are not in quarantine, unless such events are to be taken for lost.
    async fn check_unreadable(&mut self, connection: &mut PgConnection) -> Result<(), ReprojectionError> {
        self.reprojection.check_quarantine(connection).await?;
        match self.reprojection.stats {
            ReprojectionStats { lost: count, first_lost: Some(first), .. } if !self.options.unreadable_as_lost => {
                Err(ReprojectionError::UnreadableInLog { count, first })
            }
            _ => Ok(()),
        }
    }

    async fn restore_table(
        &mut self,
        tx: &mut PgConnection,
        shadow: &ShadowSchema,
        table: Table,
    ) -> Result<(), ReprojectionError> {
        let mut after: Option<String> = None;
        loop {
            let page = losses::page(tx, shadow, table, after.as_deref(), PAGE_ROWS).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.key.clone());
            for keys in parts(page) {
                if self.reprojection.stop.is_cancelled() {
                    return Err(ReprojectionError::Stopped);
                }
                let events = self.events(tx, shadow, table, &keys).await?;
                self.publish(tx, events).await?;
            }
        }
    }

    /// Makes the events of some rows of a table. A row that no event gives is left out.
    async fn events(
        &self,
        tx: &mut PgConnection,
        shadow: &ShadowSchema,
        table: Table,
        keys: &[String],
    ) -> Result<Vec<Event>, ReprojectionError> {
        let ids: Vec<Uuid> = keys.iter().filter_map(|key| key.parse().ok()).collect();
        let at = self.restored_at;
        shadow.leave(tx).await?;
        let events: Vec<Option<Event>> = match table {
            Table::Chats => {
                let ids: Vec<_> = ids.into_iter().map(ChatId).collect();
                let live = store::read_related(tx, &ids, &[]).await?;
                shadow.enter(tx).await?;
                let projected = store::read_related(tx, &ids, &[]).await?.chats;
                let message = |chat, position: Position| live.messages.get(&position.message_of(chat));
                let of_chat = |(id, chat): (&ChatId, &Chat)| {
                    let number = chat.request.as_ref().map_or(0, |request| request.new_messages);
                    let new_messages: Vec<&Message> =
                        Position::of_new(number).filter_map(|position| message(*id, position)).collect();
                    let conversation = chat.conversation_id.and_then(|id| live.conversations.get(&id));
                    let rows = ChatRows { chat, new_messages, answer: message(*id, Position::Assistant), conversation };
                    chat_events(&rows, projected.get(id), at)
                };
                live.chats.iter().flat_map(of_chat).collect()
            }
            Table::Conversations => {
                let ids: Vec<_> = ids.into_iter().map(ConversationId).collect();
                let live = store::read_related(tx, &[], &ids).await?.conversations;
                shadow.enter(tx).await?;
                let projected = store::read_related(tx, &[], &ids).await?.conversations;
                let events = live.iter().flat_map(|(id, row)| conversation_events(row, projected.get(id), at));
                events.map(Some).collect()
            }
            Table::ApiKeys => {
                let live = store::api_keys::by_ids(tx, &ids).await?;
                shadow.enter(tx).await?;
                let projected = store::api_keys::by_ids(tx, &ids).await?;
                live.iter().flat_map(|(id, row)| key_events(row, projected.get(id), at)).collect()
            }
            Table::Limits => {
                let live = store::limits::by_scopes(tx, keys).await?;
                live.values().map(|row| limits_event(row, at)).collect()
            }
            Table::Projects => {
                let live = store::projects::by_ids(tx, &ids).await?;
                live.values().map(|row| project_event(row, at)).collect()
            }
            Table::PriceLists => {
                let live = store::price_lists::by_ids(tx, &ids).await?;
                live.values().map(|row| price_list_event(row, at)).collect()
            }
            Table::Repricings => {
                let live = store::repricings::by_ids(tx, &ids).await?;
                live.values().map(|row| repricing_event(row, at)).collect()
            }
            Table::AuditLog => {
                let live = store::audit_log::by_ids(tx, &ids).await?;
                live.values().map(|row| audit_event(row, at)).collect()
            }
            Table::Messages | Table::UsageStats | Table::UsageSlots | Table::OperationSlots | Table::KeySlots => {
                Vec::new()
            }
        };
        shadow.enter(tx).await?;
        Ok(events.into_iter().flatten().collect())
    }

    async fn publish(&mut self, tx: &mut PgConnection, events: Vec<Event>) -> Result<(), ReprojectionError> {
        if !self.options.dry_run {
            let client = &self.client;
            iter(&events)
                .map(|event| publish_patiently(client, event))
                .buffer_unordered(PARALLEL_PUBLICATIONS)
                .try_collect::<()>()
                .await?;
        }
        for event in &events {
            *self.restored.entry(event.kind()).or_default() += 1;
        }
        self.reprojection.project(tx, &events).await
    }
}

/// Splits a page into parts of bounded size, and takes the keys.
fn parts(page: Vec<LostRow>) -> Vec<Vec<String>> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for row in page {
        if !part.is_empty() && (part.len() >= PART_ROWS || bytes + row.bytes > PART_BYTES) {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += row.bytes;
        part.push(row.key);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

/// Publishes an event, and tries again for up to a minute. An event that was stored by an earlier try is the same event for the broker. A
/// broker that knows the event's id, although the event is gone, forgets the id within two minutes.
async fn publish_patiently(client: &Client, event: &Event) -> Result<(), ReprojectionError> {
    let (retry_until, forgotten_by) = (RetryUntil::start(), Instant::now() + ID_MEMORY);
    loop {
        match publication::publish_restored(client, event).await {
            Ok(true) => return Ok(()),
            Ok(false) if Instant::now() < forgotten_by => sleep(FORGETTING_INTERVAL).await,
            Ok(false) => {
                let error = format!("it takes event {} for a repetition, and does not have the event", event.id().0);
                return Err(ReprojectionError::Publication(error));
            }
            Err(error) if retry_until.wait_before_retry(&error).await => {}
            Err(error) => return Err(ReprojectionError::Publication(format!("{error:#}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_ends_with_many_rows_or_with_large_ones() {
        let page = |sizes: &[i64]| {
            let rows =
                sizes.iter().enumerate().map(|(n, bytes)| LostRow { key: n.to_string(), bytes: *bytes }).collect();
            parts(rows).iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(page(&[]), Vec::<usize>::new());
        assert_eq!(page(&[1, PART_BYTES, 5, PART_BYTES * 3, PART_BYTES / 2, PART_BYTES / 2, 1]), [1, 1, 1, 1, 2, 1]);
        assert_eq!(page(&[0; PART_ROWS * 2 + 1]), [PART_ROWS, PART_ROWS, 1]);
    }
}
