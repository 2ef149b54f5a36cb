//! Turns: what one recorder does at a time, of all on a database.

use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{Postgres, Transaction};

/// The turn of whoever ends the chats of lost gateways.
pub const ORPHANS_LOCK: i64 = 0x7374_656e_6f01;

/// The turn of whoever looks after the consumer.
pub const WATCHDOG_LOCK: i64 = 0x7374_656e_6f02;

/// A turn: of all recorders on this database, one at a time has it.
#[derive(Debug)]
pub struct LeaderLock(Transaction<'static, Postgres>);

impl LeaderLock {
    /// Takes it, unless another has it. It is over when the transaction is, however that ends.
    pub async fn try_acquire(pool: &PgPool, key: i64) -> Result<Option<Self>, sqlx::Error> {
        let mut tx = pool.begin().await?;
        let is_ours = sqlx::query_scalar!(r#"SELECT pg_try_advisory_xact_lock($1) AS "taken!""#, key);
        Ok(is_ours.fetch_one(&mut *tx).await?.then_some(Self(tx)))
    }

    /// The transaction that holds it.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.0
    }

    /// Gives it up, and commits what was written in its transaction.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.0.commit().await
    }
}
