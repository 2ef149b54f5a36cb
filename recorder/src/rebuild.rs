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

mod carry_over;
mod log_reader;

use std::time::Duration;

use async_nats::Client;
use shared::event::Event;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::policy::disposition::{Disposition, Fault};
use crate::source::log::{Extent, Log, Start};
use crate::store;
use crate::store::shadow::{self, Keep, Shadow, ShadowError};
use error::ReprojectError;
use reprojection::{Done, Holding, Reprojection};

pub use progress::{Phase, Tell};

/// Where the shadow is. It belongs to whoever holds the right to rebuild.
const SCHEMA: &str = "stenograph_rebuild";
/// How long the fence may stand.
const FENCED: Duration = Duration::from_secs(2);
/// Between two tries to swap.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What to make.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The schema to make; the live tables' place if there is none.
    pub into: Option<String>,
    /// The record as of this time.
    pub as_of: Option<OffsetDateTime>,
    /// Whether the live tables may go although they may have what cannot be read in the log any more.
    pub without_unreadable: bool,
}

/// How a try to swap ended.
enum Swap {
    Done,
    /// Someone was busy with the tables for too long, or the log grew too fast.
    Busy,
}

/// Makes the record anew. Says how much was projected.
pub async fn rebuild(
    connection: &mut PgConnection,
    client: Client,
    plan: &Plan,
    stop: CancellationToken,
    tell: &impl Tell,
) -> Result<Done, ReprojectError> {
    shadow::only_one(connection, "rebuild").await?;
    if let Some(name) = &plan.into
        && shadow::exists(connection, name).await?
    {
        return Err(ShadowError::Exists(name.clone()).into());
    }
    match attempt(connection, client.clone(), plan, Holding::Many, stop.clone(), tell).await {
        Err(ReprojectError::SumsRefused) => attempt(connection, client, plan, Holding::Each, stop, tell).await,
        outcome => outcome,
    }
}

async fn attempt(
    connection: &mut PgConnection,
    client: Client,
    plan: &Plan,
    holding: Holding,
    stop: CancellationToken,
    tell: &impl Tell,
) -> Result<Done, ReprojectError> {
    let keep = if plan.into.is_some() { Keep::Apart } else { Keep::InPlace };
    let shadow = Shadow::create(connection, SCHEMA, keep).await?;
    let rebuilt = match Log::extent(&client).await {
        Err(error) => Err(error.into()),
        Ok(extent) => {
            let from = (Start::Beginning, &extent);
            let reprojection =
                Reprojection::new(client.clone(), shadow.clone(), from, plan.as_of, holding, stop.clone());
            let may_lose = plan.into.is_some() || plan.without_unreadable;
            let mut rebuilding = Rebuilding { client, reprojection, stop, may_lose, uncommitted: Vec::new() };
            rebuilding.run(connection, plan, &extent, tell).await
        }
    };
    if rebuilt.is_err()
        && let Err(error) = shadow.drop(connection).await
    {
        tracing::warn!(error = store::describe(&error), "schema {SCHEMA} is left: the next rebuild drops it");
    }
    rebuilt
}

struct Rebuilding {
    client: Client,
    reprojection: Reprojection,
    stop: CancellationToken,
    /// Whether to go on without what cannot be read and is not in quarantine.
    may_lose: bool,
    /// What was read behind a fence whose transaction came to nothing.
    uncommitted: Vec<Event>,
}

impl Rebuilding {
    async fn run(
        &mut self,
        connection: &mut PgConnection,
        plan: &Plan,
        extent: &Extent,
        tell: &impl Tell,
    ) -> Result<Done, ReprojectError> {
        tell.phase(Phase::Projecting { events: extent.events });
        self.reprojection.advance(connection, extent.last, &|done| tell.done(done)).await?;
        self.keep_what_cannot_be_read(connection).await?;
        tell.phase(Phase::CarryingOver);
        self.reprojection.carry_over(connection, extent, None).await?;
        tell.phase(Phase::Indexing);
        self.reprojection.shadow().finish(connection).await?;
        match &plan.into {
            Some(name) => self.reprojection.shadow().rename(connection, name).await?,
            None => {
                tell.phase(Phase::Swapping);
                self.take_over(connection, &|done| tell.done(done)).await?;
            }
        }
        self.reprojection.shadow().leave(connection).await?;
        Ok(self.reprojection.done)
    }

    /// Catches up and tries to swap, until it works.
    async fn take_over(
        &mut self,
        connection: &mut PgConnection,
        tell: &(dyn Fn(Done) + Sync),
    ) -> Result<(), ReprojectError> {
        let mut pause = PAUSE;
        loop {
            let events = std::mem::take(&mut self.uncommitted);
            self.reprojection.project(connection, &events).await?;
            let extent = Log::extent(&self.client).await?;
            self.reprojection.advance(connection, extent.last, tell).await?;
            match self.swap(connection).await? {
                Swap::Done => return Ok(()),
                Swap::Busy => tracing::info!("the tables are in use: trying again"),
            }
            if self.stop.run_until_cancelled(sleep(pause)).await.is_none() {
                return Err(ReprojectError::Stopped);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn swap(&mut self, connection: &mut PgConnection) -> Result<Swap, ReprojectError> {
        let mut tx = connection.begin().await?;
        let shadow = self.reprojection.shadow().clone();
        if let Err(error) = shadow.fence(&mut tx).await {
            tx.rollback().await?;
            return if is_in_the_way(&error) { Ok(Swap::Busy) } else { Err(error.into()) };
        }
        let deadline = Instant::now() + FENCED;
        match self.catch_up(&mut tx, deadline).await {
            Ok(true) => {}
            Ok(false) => {
                tx.rollback().await?;
                return Ok(Swap::Busy);
            }
            Err(ReprojectError::Database(error)) if is_in_the_way(&error) => {
                tx.rollback().await?;
                return Ok(Swap::Busy);
            }
            Err(error) => return Err(error),
        }
        shadow.take_over(&mut tx).await?;
        tx.commit().await?;
        Ok(Swap::Done)
    }

    /// Adds what the log got until now, if that is soon done.
    async fn catch_up(&mut self, tx: &mut PgConnection, deadline: Instant) -> Result<bool, ReprojectError> {
        let Ok(extent) = timeout_at(deadline, Log::extent(&self.client)).await else { return Ok(false) };
        let last = extent?.last;
        loop {
            let Ok(events) = timeout_at(deadline, self.reprojection.read(last)).await else { return Ok(false) };
            let Some(events) = events? else { break };
            self.uncommitted.extend(events.iter().cloned());
            self.reprojection.project(tx, &events).await?;
        }
        self.keep_what_cannot_be_read(tx).await?;
        Ok(true)
    }

    /// Fails if the tables may have what the log does not say any more.
    async fn keep_what_cannot_be_read(&mut self, connection: &mut PgConnection) -> Result<(), ReprojectError> {
        self.reprojection.look_in_quarantine(connection).await?;
        match self.reprojection.done {
            Done { lost: count, first_lost: Some(first), .. } if !self.may_lose => {
                Err(ReprojectError::Unreadable { count, first })
            }
            _ => Ok(()),
        }
    }
}

/// Whether others are to be waited for.
fn is_in_the_way(error: &sqlx::Error) -> bool {
    let fault = store::fault(error);
    // A statement that took too long (57014) waited behind others, too.
    Disposition::of(&fault, 1) == Disposition::Retry || fault == Fault::Sqlstate("57014".to_owned())
}
