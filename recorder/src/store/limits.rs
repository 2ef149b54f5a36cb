//! Statements for the `limits` table. Limits change seldom, so each row has its own statements.

use std::collections::BTreeMap;

use serde_json::Value;
use shared::access::{Act, LimitState};
use shared::event::{LimitScope, UsageLimits};
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::read::{UnreadableColumn, limit_scope, utc};
use super::stored_row::StoredRow;

/// A query for whole rows; `$tail` follows the table's name.
macro_rules! rows_where {
    ($tail:tt $(, $argument:expr)*) => {
        sqlx::query_as!(
            LimitRow,
            "SELECT scope, change_id, changed_at, changed_by, requests_per_minute, tokens_per_minute, concurrent_chats,
                 budget
             FROM limits " + $tail
            $(, $argument)*
        )
    };
}

impl StoredRow for LimitState {
    async fn insert(&self, tx: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let inserted = sqlx::query!(
            "INSERT INTO limits (scope, change_id, changed_at, changed_by, requests_per_minute, tokens_per_minute,
                 concurrent_chats, budget)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (scope) DO NOTHING",
            self.scope.to_string(),
            self.change_id,
            self.changed.at,
            self.changed.by,
            to_column(self.limits.requests_per_minute),
            to_column(self.limits.tokens_per_minute),
            to_column(self.limits.concurrent_chats),
            budget_column(self)
        );
        Ok(inserted.execute(tx).await?.rows_affected() == 1)
    }

    async fn lock(tx: &mut PgConnection, key: &LimitScope) -> Result<Self, sqlx::Error> {
        Ok(rows_where!("WHERE scope = $1 FOR UPDATE", key.to_string()).fetch_one(tx).await?.read()?)
    }

    async fn update(&self, tx: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "UPDATE limits SET change_id = $2, changed_at = $3, changed_by = $4, requests_per_minute = $5,
                 tokens_per_minute = $6, concurrent_chats = $7, budget = $8
             WHERE scope = $1",
            self.scope.to_string(),
            self.change_id,
            self.changed.at,
            self.changed.by,
            to_column(self.limits.requests_per_minute),
            to_column(self.limits.tokens_per_minute),
            to_column(self.limits.concurrent_chats),
            budget_column(self)
        )
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// Reads rows by scope. Missing rows are left out.
pub async fn by_scopes(
    connection: &mut PgConnection,
    scopes: &[String],
) -> Result<BTreeMap<LimitScope, LimitState>, sqlx::Error> {
    let rows = rows_where!("WHERE scope = ANY($1)", scopes).fetch_all(connection).await?;
    by_scope(rows)
}

/// Reads up to `limit` rows after the scope `after`, in the order of the scopes' bytes; rows without any limit, too.
pub async fn page(pool: &PgPool, after: &str, limit: i64) -> Result<Vec<LimitState>, sqlx::Error> {
    let rows = rows_where!("WHERE scope > $1 ORDER BY scope LIMIT $2", after, limit).fetch_all(pool).await?;
    rows.into_iter().map(|row| Ok(row.read()?)).collect()
}

/// Reads up to `limit` rows that have a limit after the scope `after`, in the order of the scopes' bytes.
pub async fn page_in_force(pool: &PgPool, after: &str, limit: i64) -> Result<Vec<LimitState>, sqlx::Error> {
    let rows = rows_where!(
        "WHERE scope > $1 AND num_nonnulls(requests_per_minute, tokens_per_minute, concurrent_chats, budget) > 0
         ORDER BY scope LIMIT $2",
        after,
        limit
    );
    rows.fetch_all(pool).await?.into_iter().map(|row| Ok(row.read()?)).collect()
}

/// Reads all rows of the table.
pub(super) async fn read_all(connection: &mut PgConnection) -> Result<BTreeMap<LimitScope, LimitState>, sqlx::Error> {
    let rows = rows_where!("").fetch_all(connection).await?;
    by_scope(rows)
}

fn by_scope(rows: Vec<LimitRow>) -> Result<BTreeMap<LimitScope, LimitState>, sqlx::Error> {
    let states = rows.into_iter().map(LimitRow::read);
    states.map(|state| state.map(|state| (state.scope.clone(), state)).map_err(sqlx::Error::from)).collect()
}

/// A limit of a projected state is at most 10^12, so the conversion loses nothing.
fn to_column(limit: Option<u64>) -> Option<i64> {
    limit.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX))
}

/// A budget is an object of texts and numbers, so the conversion cannot fail.
fn budget_column(state: &LimitState) -> Option<Value> {
    state.limits.budget.as_ref().and_then(|budget| serde_json::to_value(budget).ok())
}

struct LimitRow {
    scope: String,
    change_id: Uuid,
    changed_at: OffsetDateTime,
    changed_by: String,
    requests_per_minute: Option<i64>,
    tokens_per_minute: Option<i64>,
    concurrent_chats: Option<i64>,
    budget: Option<Value>,
}

impl LimitRow {
    fn read(self) -> Result<LimitState, UnreadableColumn> {
        // The table's constraints allow no negative limit.
        let limit = |column: Option<i64>| column.map(i64::unsigned_abs);
        Ok(LimitState {
            scope: limit_scope(&self.scope)?,
            change_id: self.change_id,
            changed: Act { at: utc(self.changed_at), by: self.changed_by },
            limits: UsageLimits {
                requests_per_minute: limit(self.requests_per_minute),
                tokens_per_minute: limit(self.tokens_per_minute),
                concurrent_chats: limit(self.concurrent_chats),
                budget: self.budget.map(super::read::budget).transpose()?,
            },
        })
    }
}
