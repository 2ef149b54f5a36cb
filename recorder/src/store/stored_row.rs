//! The join of facts with existing rows, for tables whose rows change seldom, so that each row has its own statements.

use std::future::Future;

use sqlx::PgConnection;

use crate::projection::row::{Row, Rows};

/// The statements of a table whose rows are written one by one.
pub(super) trait StoredRow: Row<Key: Send + Sync> + Send + Sync {
    /// Inserts the row. Returns false if the table has a row with this key.
    fn insert(&self, tx: &mut PgConnection) -> impl Future<Output = Result<bool, sqlx::Error>> + Send;

    /// Reads the row with the key, and locks the row until the transaction ends.
    fn lock(tx: &mut PgConnection, key: &Self::Key) -> impl Future<Output = Result<Self, sqlx::Error>> + Send;

    /// Writes the row in place of the row with the same key.
    fn update(&self, tx: &mut PgConnection) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// Joins facts with the existing rows, in key order. Returns the rows that changed, as they were and as they are.
pub(super) async fn join_rows<R: StoredRow>(
    tx: &mut PgConnection,
    facts: Rows<R>,
) -> Result<Vec<(Option<R>, R)>, sqlx::Error> {
    let mut changed = Vec::new();
    for (key, fact) in facts {
        if fact.insert(tx).await? {
            changed.push((None, fact));
            continue;
        }
        let old = R::lock(tx, &key).await?;
        let mut new = old.clone();
        new.join(fact);
        if new != old {
            new.update(tx).await?;
            changed.push((Some(old), new));
        }
    }
    Ok(changed)
}
