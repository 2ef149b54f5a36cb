//! Carrying the ends of sessions, and the disabling and enabling of users, from the tables of accounts to the bucket `ACCESS`.
//!
//! The statement that ends a session or disables a user notes the change in the table `access_changes`, in the same transaction. Every
//! `recorder serve` reads the notes twice a second, and at once after a change of its own, writes the entries and deletes the notes.
//! A broker that is away delays entries, and no request. The bucket is compared with the tables at the start, when it was made anew, and every
//! hour.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{StreamExt as _, TryStreamExt as _, iter};
use shared::access::{EndedSession, Entry, LONGEST_SESSION_TOKEN, UserState, user_name};
use shared::id::UserId;
use sqlx::postgres::PgPool;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::bucket::{AccessBucket, BucketError};
use crate::store::access_changes::{self, AccessChange, ChangedSubject};
use crate::store::{sessions, users};

/// The interval at which the notes of other processes are read.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The pause after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The interval between two comparisons of the tables with the bucket.
const COMPARE_INTERVAL: Duration = Duration::from_secs(3600);
/// The number of rows read at a time.
const PAGE_ROWS: i64 = 200;
/// The number of entries written at the same time.
const PARALLEL_WRITES: usize = 16;
/// The number of tries to write the state of a user while other programs write the same entry.
const MAX_TRIES: usize = 20;
/// The hours for which entries of expired sessions are searched: those that expired while no `recorder serve` was running, too.
const PURGED_HOURS: i64 = 14 * 24;

/// Carries changes of accounts to the bucket.
#[derive(Clone, Debug)]
pub struct AccountChanges {
    bucket: Arc<AccessBucket>,
    pool: PgPool,
    changed: Arc<Notify>,
}

/// The reason for which changes could not be carried. They stay noted.
#[derive(Debug, thiserror::Error)]
enum CarryError {
    #[error("{0}")]
    Bucket(#[from] BucketError),
    #[error("the database failed: {}", crate::store::describe(.0))]
    Database(#[from] sqlx::Error),
}

impl AccountChanges {
    /// Creates the task. `changed` is notified after a change of this process.
    pub fn new(bucket: Arc<AccessBucket>, pool: PgPool, changed: Arc<Notify>) -> Self {
        Self { bucket, pool, changed }
    }

    /// Carries changes until the process ends.
    pub async fn run(self) -> Infallible {
        let carrying = async {
            let mut has_reported = false;
            loop {
                let carried = self.carry_all().await;
                if report(
                    carried,
                    "ended sessions and disabled users could not be carried to the gateways",
                    &mut has_reported,
                ) {
                    // A change of this process ends the wait early. The notes themselves are in the table.
                    let _ = timeout(POLL_INTERVAL, self.changed.notified()).await;
                } else {
                    sleep(RETRY_INTERVAL).await;
                }
            }
        };
        let comparing = async {
            let mut has_reported = false;
            loop {
                let created = self.bucket.created().await;
                let compared = self.compare(OffsetDateTime::now_utc()).await;
                let is_done =
                    report(compared, "the bucket ACCESS could not be compared with the accounts", &mut has_reported);
                if is_done {
                    self.bucket.comparison_due(COMPARE_INTERVAL, created).await;
                } else {
                    sleep(RETRY_INTERVAL * 10).await;
                }
            }
        };
        // Neither of the two ends.
        tokio::select! { never = carrying => never, never = comparing => never }
    }

    /// Carries the noted changes, and deletes the notes.
    async fn carry_all(&self) -> Result<(), CarryError> {
        loop {
            let changes = access_changes::first(&self.pool, PAGE_ROWS).await?;
            if changes.is_empty() {
                return Ok(());
            }
            let carried = iter(changes).map(|change| self.carry(change)).buffer_unordered(PARALLEL_WRITES);
            let numbers: Vec<i64> = carried.try_collect().await?;
            access_changes::delete(&self.pool, &numbers).await?;
        }
    }

    async fn carry(&self, change: AccessChange) -> Result<i64, CarryError> {
        match change.subject {
            Some(ChangedSubject::Session(id)) => self.put_session(id, change.changed_at).await?,
            Some(ChangedSubject::User(user)) => self.put_user(&user).await?,
            None => tracing::warn!(number = change.number, "a noted change names no session and no user: left out"),
        }
        Ok(change.number)
    }

    async fn put_session(&self, session_id: Uuid, ended_at: OffsetDateTime) -> Result<(), CarryError> {
        let until = ended_at + LONGEST_SESSION_TOKEN;
        if until > OffsetDateTime::now_utc() {
            self.bucket.put(&Entry::Session(EndedSession { session_id, until })).await?;
        }
        Ok(())
    }

    /// Writes the present state of a user. The table is read after the entry: a state that is older than an entry of another program
    /// loses the compare-and-set, and is read again.
    async fn put_user(&self, user: &UserId) -> Result<(), CarryError> {
        for _ in 0..MAX_TRIES {
            let (entry, revision) = self.bucket.read(&user_name(user)).await?;
            let is_disabled = users::is_disabled(&self.pool, user).await?;
            let present = match entry {
                Some(Entry::User(present)) => Some(present),
                _ => None,
            };
            if present.as_ref().is_some_and(|present| present.is_disabled) == is_disabled {
                return Ok(());
            }
            let now = shared::event::now();
            let changed_at = present.map_or(now, |present| now.max(present.changed_at + time::Duration::MICROSECOND));
            let state = UserState { user_id: user.clone(), is_disabled, changed_at };
            if self.bucket.write(&Entry::User(state), revision).await? {
                tracing::info!(%user, is_disabled, "gateways were told that a user was disabled or enabled");
                return Ok(());
            }
        }
        Err(BucketError::Contended.into())
    }

    /// Writes what the bucket lacks, after the loss of the bucket and after changes by a version that noted none, and removes the
    /// entries of sessions whose tokens have all expired.
    async fn compare(&self, now: OffsetDateTime) -> Result<(), CarryError> {
        let mut after: Option<UserId> = None;
        loop {
            let page = users::disabled_after(&self.pool, after.as_ref(), PAGE_ROWS).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            let puts = iter(page).map(|user| async move { self.put_user(&user).await });
            puts.buffer_unordered(PARALLEL_WRITES).try_collect::<()>().await?;
        }
        let mut after = (now - LONGEST_SESSION_TOKEN, Uuid::nil());
        loop {
            let page = sessions::ended_after(&self.pool, after, PAGE_ROWS).await?;
            let Some(last) = page.last() else { break };
            after = *last;
            let puts = iter(page).map(|(ended_at, id)| self.put_session(id, ended_at));
            puts.buffer_unordered(PARALLEL_WRITES).try_collect::<()>().await?;
        }
        let hour = EndedSession::hour_of(now);
        for expired in hour - PURGED_HOURS..hour {
            self.bucket.purge(&EndedSession::names_of_hour(expired)).await?;
        }
        Ok(())
    }
}

/// Logs a failure once, until the next success. Returns true for a success.
fn report(result: Result<(), CarryError>, message: &'static str, has_reported: &mut bool) -> bool {
    match result {
        Ok(()) => *has_reported = false,
        Err(error) if !std::mem::replace(has_reported, true) => tracing::warn!(%error, "{message}: trying again"),
        Err(_) => {}
    }
    !*has_reported
}
