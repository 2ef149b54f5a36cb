//! The record made anew from the log, while everything runs.
//!
//! The log is projected into a shadow of the tables; then, behind a fence that keeps everyone from the live tables for a
//! moment, what the log got meanwhile is added, and the shadow takes their place, all in one transaction. Whatever a recorder
//! has written by then is in the log, and so in the shadow; whatever it had in hand comes after the fence, and joins.
//!
//! What the log has, but nobody can read, is left out if it is in quarantine, where it was left out too. If it is not, the tables
//! may be all that is left of it: then they stay.
//!
//! Killed at any moment, the tables are as they were or as they shall be; what is left of a shadow is dropped by the next run.

pub mod error;
pub mod progress;
pub mod reprojection;
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
use crate::store::shadow::{self, ShadowError, ShadowPurpose, ShadowSchema};
use error::ReprojectionError;
use reprojection::{AggregateFlush, Reprojection, ReprojectionStats};

pub use progress::{ProgressListener, RebuildPhase};

/// Where the shadow is. It belongs to whoever holds the right to rebuild.
const SHADOW_SCHEMA: &str = "stenograph_rebuild";
/// How long the fence may stand.
const MAX_FENCE_DURATION: Duration = Duration::from_secs(2);
/// Between two tries to swap.
const MIN_SWAP_INTERVAL: Duration = Duration::from_millis(500);
const MAX_SWAP_INTERVAL: Duration = Duration::from_secs(5);

/// What to make.
#[derive(Clone, Debug, Default)]
pub struct RebuildOptions {
    /// The schema to make; the live tables' place if there is none.
    pub into: Option<String>,
    /// The record as of this time.
    pub as_of: Option<OffsetDateTime>,
    /// Whether the live tables may go although they may have what cannot be read in the log any more.
    pub without_unreadable: bool,
}

/// How a try to swap ended.
enum SwapOutcome {
    Done,
    /// Someone was busy with the tables for too long, or the log grew too fast.
    Busy,
}

/// Makes the record anew. Says how much was projected.
pub async fn rebuild(
    connection: &mut PgConnection,
    client: Client,
    options: &RebuildOptions,
    stop: CancellationToken,
    progress: &impl ProgressListener,
) -> Result<ReprojectionStats, ReprojectionError> {
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
) -> Result<ReprojectionStats, ReprojectionError> {
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
        tracing::warn!(error = store::describe(&error), "schema {SHADOW_SCHEMA} is left: the next rebuild drops it");
    }
    rebuilt
}

struct RebuildRun {
    client: Client,
    reprojection: Reprojection,
    stop: CancellationToken,
    /// Whether to go on without what cannot be read and is not in quarantine.
    without_unreadable: bool,
    /// What was read behind a fence whose transaction came to nothing.
    uncommitted: Vec<Event>,
}

impl RebuildRun {
    async fn run(
        &mut self,
        connection: &mut PgConnection,
        options: &RebuildOptions,
        extent: &LogExtent,
        progress: &impl ProgressListener,
    ) -> Result<ReprojectionStats, ReprojectionError> {
        progress.phase_started(RebuildPhase::Projecting { events: extent.events });
        self.reprojection.advance(connection, extent.last_sequence, &|stats| progress.advanced(stats)).await?;
        self.check_unreadable(connection).await?;
        progress.phase_started(RebuildPhase::CarryingOver);
        self.reprojection.carry_over(connection, extent, None).await?;
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
        Ok(self.reprojection.stats)
    }

    /// Catches up and tries to swap, until it works.
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
                SwapOutcome::Busy => tracing::info!("the tables are in use: trying again"),
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
        tx.commit().await?;
        Ok(SwapOutcome::Done)
    }

    /// Adds what the log got until now, if that is soon done.
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

    /// Fails if the tables may have what the log does not say any more.
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

/// Whether others are to be waited for.
fn is_lock_conflict(error: &sqlx::Error) -> bool {
    let fault = store::classify(error);
    // A statement that took too long (57014) waited behind others, too.
    Disposition::for_fault(&fault, 1) == Disposition::Retry || fault == DatabaseFault::Sqlstate("57014".to_owned())
}
