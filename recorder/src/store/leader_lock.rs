//! Leader locks: tasks that only one recorder performs at a time, among all recorders on a database.

use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{Postgres, Transaction};

/// The key of the lock for ending the chats of lost gateways.
pub const ORPHANS_LOCK: i64 = 0x7374_656e_6f01;

/// The key of the lock for watching the recorders' consumer.
pub const WATCHDOG_LOCK: i64 = 0x7374_656e_6f02;

/// The key of the lock for settling budgets.
pub const BUDGETS_LOCK: i64 = 0x7374_656e_6f03;

/// An advisory lock of PostgreSQL, held by one recorder at a time. The lock lives as long as the transaction inside.
#[derive(Debug)]
pub struct LeaderLock(Transaction<'static, Postgres>);

impl LeaderLock {
    /// Takes the lock; returns none when another recorder holds the lock. The lock is released when the transaction
    /// ends, also when the connection breaks.
    pub async fn try_acquire(pool: &PgPool, key: i64) -> Result<Option<Self>, sqlx::Error> {
        let mut tx = pool.begin().await?;
        let is_ours = sqlx::query_scalar!(r#"SELECT pg_try_advisory_xact_lock($1) AS "taken!""#, key);
        Ok(is_ours.fetch_one(&mut *tx).await?.then_some(Self(tx)))
    }

    /// The transaction that holds the lock.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.0
    }

    /// Commits the writes made in the transaction, and releases the lock.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.0.commit().await
    }
}
