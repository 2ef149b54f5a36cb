//! The rebuild: makes the record again from the log, while recorders and readers keep running.
//!
//! The log is projected into a shadow of the tables. Then a fence locks all sessions out of the live tables for a
//! moment. Behind the fence, the newest events of the log are projected too, and the shadow replaces the live tables,
//! all in one transaction. An event written by a recorder before the fence is in the log, and therefore in the shadow;
//! an event still in a recorder's hands is written after the fence, and joins the new rows.
//!
//! An undecodable event is left out when the event is in quarantine, because the live tables leave the event out too.
//! When such an event is not in quarantine, the live tables may be the only place that has the event's rows: the
//! rebuild then stops, and the live tables stay.
//!
//! The log can have lost events whose rows are in the live tables, as after the restore of an older copy of the broker.
//! Before the swap, a snapshot of the live tables is therefore compared with a shadow that has every event in the
//! snapshot. The rebuild stops when the shadow lacks a row or a fact; only `drop_missing` lets it go on. A row that a
//! recorder writes after the snapshot needs no comparison: its event is in the log behind the snapshot, and is projected
//! before the swap.
//!
//! A rebuild killed at any moment leaves either the old or the new tables, complete. A shadow that remains is dropped
//! by the next run.

pub mod error;
pub mod progress;
pub mod reprojection;
pub mod restore;
pub mod verify;

mod batch_reader;
mod carry_over;

use std::time::Duration;

use async_nats::Client;
use shared::event::Event;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::policy::disposition::{DatabaseFault, Disposition};
use crate::source::log::{LogExtent, LogReader, RangeStart};
use crate::store;
use crate::store::losses::{self, Losses};
use crate::store::shadow::{self, ShadowError, ShadowPurpose, ShadowSchema};
use error::ReprojectionError;
use reprojection::{AggregateFlush, Reprojection, ReprojectionStats};

pub use progress::{ProgressListener, RebuildPhase};

/// The schema of the shadow. Only the holder of the `rebuild` lock uses this schema.
const SHADOW_SCHEMA: &str = "stenograph_rebuild";
/// The maximum duration of the fence, measured from the lock on the live tables.
const MAX_FENCE_DURATION: Duration = Duration::from_secs(2);
/// The bounds of the pause between two attempts to swap. The pause doubles after each attempt.
const MIN_SWAP_INTERVAL: Duration = Duration::from_millis(500);
const MAX_SWAP_INTERVAL: Duration = Duration::from_secs(5);

/// The options of a rebuild.
#[derive(Clone, Debug, Default)]
pub struct RebuildOptions {
    /// The name of a new schema for the tables; none to replace the live tables.
    pub into: Option<String>,
    /// The latest time of an event to project; none for the whole log.
    pub as_of: Option<OffsetDateTime>,
    /// True to replace the live tables even when undecodable events are not in quarantine. The rows of such events are
    /// then lost.
    pub without_unreadable: bool,
    /// True to replace the live tables even when the log lacks rows or facts of the live tables, which are then lost.
    pub drop_missing: bool,
}

/// The result of a rebuild.
#[derive(Clone, Debug)]
pub struct RebuildReport {
    /// The totals of the projection.
    pub stats: ReprojectionStats,
    /// The rows and facts of the replaced tables that the log lacked. Empty unless
    /// [`drop_missing`](RebuildOptions::drop_missing) was set.
    pub lost: Losses,
}

/// The outcome of an attempt to swap the tables.
enum SwapOutcome {
    Done,
    /// Another session used the tables for too long, or the log grew faster than the rebuild could follow.
    Busy,
}

/// Rebuilds the record from the log.
///
/// An error before the swap leaves the live tables unchanged. When the database refuses the sums of many batches, the
/// rebuild runs a second time and writes the sums with each batch, so that the refused event can be found and left out.
pub async fn rebuild(
    connection: &mut PgConnection,
    client: Client,
    options: &RebuildOptions,
    stop: CancellationToken,
    progress: &impl ProgressListener,
) -> Result<RebuildReport, ReprojectionError> {
    shadow::lock_exclusive_run(connection, "rebuild").await?;
    if let Some(name) = &options.into
        && shadow::exists(connection, name).await?
    {
        return Err(ShadowError::Exists(name.clone()).into());
    }
    match run_once(connection, client.clone(), options, AggregateFlush::Deferred, stop.clone(), progress).await {
        Err(ReprojectionError::SumsRefused) => {
            run_once(connection, client, options, AggregateFlush::PerBatch, stop, progress).await
        }
        outcome => outcome,
    }
}

async fn run_once(
    connection: &mut PgConnection,
    client: Client,
    options: &RebuildOptions,
    flush: AggregateFlush,
    stop: CancellationToken,
    progress: &impl ProgressListener,
) -> Result<RebuildReport, ReprojectionError> {
    let purpose = if options.into.is_some() { ShadowPurpose::Separate } else { ShadowPurpose::Replace };
    let shadow = ShadowSchema::create(connection, SHADOW_SCHEMA, purpose).await?;
    let rebuilt = match LogReader::extent(&client).await {
        Err(error) => Err(error.into()),
        Ok(extent) => {
            let from = (RangeStart::Beginning, &extent);
            let reprojection =
                Reprojection::new(client.clone(), shadow.clone(), from, options.as_of, flush, stop.clone());
            let without_unreadable = options.into.is_some() || options.without_unreadable;
            let mut rebuilding = RebuildRun { client, reprojection, stop, without_unreadable, uncommitted: Vec::new() };
            rebuilding.run(connection, options, &extent, progress).await
        }
    };
    if rebuilt.is_err()
        && let Err(error) = shadow.drop(connection).await
    {
        tracing::warn!(
            error = store::describe(&error),
            "cannot drop schema {SHADOW_SCHEMA}: the next rebuild will drop the schema"
        );
    }
    rebuilt
}

struct RebuildRun {
    client: Client,
    reprojection: Reprojection,
    stop: CancellationToken,
    /// True to go on without undecodable events that are not in quarantine.
    without_unreadable: bool,
    /// Events read behind a fence whose transaction was rolled back. The next attempt projects these events first.
    uncommitted: Vec<Event>,
}

impl RebuildRun {
    async fn run(
        &mut self,
        connection: &mut PgConnection,
        options: &RebuildOptions,
        extent: &LogExtent,
        progress: &impl ProgressListener,
    ) -> Result<RebuildReport, ReprojectionError> {
        progress.phase_started(RebuildPhase::Projecting { events: extent.events });
        self.reprojection.advance(connection, extent.last_sequence, &|stats| progress.advanced(stats)).await?;
        self.check_unreadable(connection).await?;
        progress.phase_started(RebuildPhase::CarryingOver);
        self.reprojection.carry_over(connection, extent, None).await?;
        let mut lost = Losses::default();
        if options.into.is_none() {
            progress.phase_started(RebuildPhase::Comparing);
            lost = self.losses(connection).await?;
            if !lost.is_empty() && !options.drop_missing {
                return Err(ReprojectionError::WouldLose(lost));
            }
        }
        progress.phase_started(RebuildPhase::Indexing);
        self.reprojection.shadow().create_indexes(connection).await?;
        match &options.into {
            Some(name) => self.reprojection.shadow().rename(connection, name).await?,
            None => {
                progress.phase_started(RebuildPhase::Swapping);
                self.swap_until_done(connection, &|stats| progress.advanced(stats)).await?;
            }
        }
        self.reprojection.shadow().leave(connection).await?;
        Ok(RebuildReport { stats: self.reprojection.stats, lost })
    }

    /// Counts what the live tables have and the shadow lacks.
    async fn losses(&mut self, connection: &mut PgConnection) -> Result<Losses, ReprojectionError> {
        // Most events that came meanwhile are projected first, so that the transaction is short.
        let last = LogReader::extent(&self.client).await?.last_sequence;
        self.reprojection.advance(connection, last, &|_| {}).await?;
        let mut tx = connection.begin().await?;
        self.reprojection.reach_snapshot(&mut tx, &self.client).await?;
        self.check_unreadable(&mut tx).await?;
        let losses = losses::count(&mut tx, self.reprojection.shadow()).await?;
        tx.commit().await?;
        Ok(losses)
    }

    /// Catches up with the log and attempts the swap, until a swap succeeds or the rebuild is stopped.
    async fn swap_until_done(
        &mut self,
        connection: &mut PgConnection,
        progress: &(dyn Fn(ReprojectionStats) + Sync),
    ) -> Result<(), ReprojectionError> {
        let mut pause = MIN_SWAP_INTERVAL;
        loop {
            let events = std::mem::take(&mut self.uncommitted);
            self.reprojection.project(connection, &events).await?;
            let extent = LogReader::extent(&self.client).await?;
            self.reprojection.advance(connection, extent.last_sequence, progress).await?;
            match self.swap(connection).await? {
                SwapOutcome::Done => return Ok(()),
                SwapOutcome::Busy => tracing::info!("the tables are in use by other sessions: trying to swap again"),
            }
            if self.stop.run_until_cancelled(sleep(pause)).await.is_none() {
                return Err(ReprojectionError::Stopped);
            }
            pause = (pause * 2).min(MAX_SWAP_INTERVAL);
        }
    }

    async fn swap(&mut self, connection: &mut PgConnection) -> Result<SwapOutcome, ReprojectionError> {
        let mut tx = connection.begin().await?;
        let shadow = self.reprojection.shadow().clone();
        if let Err(error) = shadow.fence(&mut tx).await {
            tx.rollback().await?;
            return if is_lock_conflict(&error) { Ok(SwapOutcome::Busy) } else { Err(error.into()) };
        }
        let deadline = Instant::now() + MAX_FENCE_DURATION;
        match self.catch_up(&mut tx, deadline).await {
            Ok(true) => {}
            Ok(false) => {
                tx.rollback().await?;
                return Ok(SwapOutcome::Busy);
            }
            Err(ReprojectionError::Database(error)) if is_lock_conflict(&error) => {
                tx.rollback().await?;
                return Ok(SwapOutcome::Busy);
            }
            Err(error) => return Err(error),
        }
        shadow.replace_live_tables(&mut tx).await?;
        shadow.leave(&mut tx).await?;
        self.reprojection.release_from_quarantine(&mut tx).await?;
        // The new tables have the prices of the log.
        store::repricings::clear_pending(&mut tx).await?;
        tx.commit().await?;
        Ok(SwapOutcome::Done)
    }

    /// Projects the newest events of the log behind the fence. Returns false when the deadline passes first.
    async fn catch_up(&mut self, tx: &mut PgConnection, deadline: Instant) -> Result<bool, ReprojectionError> {
        let Ok(extent) = timeout_at(deadline, LogReader::extent(&self.client)).await else { return Ok(false) };
        let last = extent?.last_sequence;
        loop {
            let Ok(events) = timeout_at(deadline, self.reprojection.read(last)).await else { return Ok(false) };
            let Some(events) = events? else { break };
            self.uncommitted.extend(events.iter().cloned());
            self.reprojection.project(tx, &events).await?;
        }
        self.check_unreadable(tx).await?;
        Ok(true)
    }

    /// Fails when undecodable events are not in quarantine, because the live tables may still have the rows of such
    /// events.
    async fn check_unreadable(&mut self, connection: &mut PgConnection) -> Result<(), ReprojectionError> {
        self.reprojection.check_quarantine(connection).await?;
        match self.reprojection.stats {
            ReprojectionStats { lost: count, first_lost: Some(first), .. } if !self.without_unreadable => {
                Err(ReprojectionError::Unreadable { count, first })
            }
            _ => Ok(()),
        }
    }
}

/// Returns true when a statement failed because of another session's locks, so that a later attempt can succeed.
fn is_lock_conflict(error: &sqlx::Error) -> bool {
    let fault = store::classify(error);
    // A statement over the statement timeout (57014) was waiting for other sessions too.
    Disposition::for_fault(&fault, 1) == Disposition::Retry || fault == DatabaseFault::Sqlstate("57014".to_owned())
}
