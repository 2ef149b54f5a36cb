//! Statements for the `audit_log` table.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::read::utc;
use super::stored_row::{StoredRow, join_rows};
use super::write::column;
use crate::projection::audit_log::AuditEntry;
use crate::projection::row::Rows;

/// A query for whole rows; `$tail` follows the table's name.
macro_rules! rows_where {
    ($tail:tt $(, $argument:expr)*) => {
        sqlx::query_as!(
            AuditRow,
            "SELECT audit_id, recorded_at, actor, action, target_kind, target_id, outcome, address, count
             FROM audit_log " + $tail
            $(, $argument)*
        )
    };
}

/// Joins entries with the existing rows, in key order. Returns the number of rows that changed.
pub(super) async fn join(tx: &mut PgConnection, mut entries: Rows<AuditEntry>) -> Result<usize, sqlx::Error> {
    if entries.is_empty() {
        return Ok(0);
    }
    // One statement for all, because most entries are new.
    let inserted = insert(tx, &entries.values().collect::<Vec<_>>()).await?;
    entries.retain(|id, _| !inserted.contains(id));
    Ok(inserted.len() + join_rows(tx, entries).await?.len())
}

async fn insert(tx: &mut PgConnection, rows: &[&AuditEntry]) -> Result<BTreeSet<Uuid>, sqlx::Error> {
    let inserted = sqlx::query_scalar!(
        "INSERT INTO audit_log (audit_id, recorded_at, actor, action, target_kind, target_id, outcome, address, count)
         SELECT UNNEST($1::uuid[]) AS audit_id, UNNEST($2::timestamptz[]) AS recorded_at, UNNEST($3::text[]) AS actor,
             UNNEST($4::text[]) AS action, UNNEST($5::text[]) AS target_kind, UNNEST($6::text[]) AS target_id,
             UNNEST($7::text[]) AS outcome, UNNEST($8::text[]) AS address, UNNEST($9::bigint[]) AS count
         ON CONFLICT (audit_id) DO NOTHING RETURNING audit_id",
        &column(rows, |row| row.audit_id) as _,
        &column(rows, |row| row.recorded_at) as _,
        &column(rows, |row| row.actor.as_str()) as _,
        &column(rows, |row| row.action.as_str()) as _,
        &column(rows, |row| row.target.as_ref().map(|target| target.0.as_str())) as _,
        &column(rows, |row| row.target.as_ref().map(|target| target.1.as_str())) as _,
        &column(rows, |row| row.outcome.as_str()) as _,
        &column(rows, |row| row.address.as_deref()) as _,
        &column(rows, |row| row.count) as _
    );
    Ok(inserted.fetch_all(tx).await?.into_iter().collect())
}

impl StoredRow for AuditEntry {
    async fn insert(&self, tx: &mut PgConnection) -> Result<bool, sqlx::Error> {
        Ok(!insert(tx, &[self]).await?.is_empty())
    }

    async fn lock(tx: &mut PgConnection, key: &Uuid) -> Result<Self, sqlx::Error> {
        Ok(rows_where!("WHERE audit_id = $1 FOR UPDATE", key).fetch_one(tx).await?.read())
    }

    async fn update(&self, tx: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "UPDATE audit_log SET recorded_at = $2, actor = $3, action = $4, target_kind = $5, target_id = $6, outcome = $7,
                 address = $8, count = $9
             WHERE audit_id = $1",
            self.audit_id,
            self.recorded_at,
            self.actor,
            self.action,
            self.target.as_ref().map(|target| target.0.as_str()),
            self.target.as_ref().map(|target| target.1.as_str()),
            self.outcome,
            self.address,
            self.count
        )
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// Reads rows by entry. Missing rows are left out.
pub async fn by_ids(connection: &mut PgConnection, ids: &[Uuid]) -> Result<BTreeMap<Uuid, AuditEntry>, sqlx::Error> {
    let rows = rows_where!("WHERE audit_id = ANY($1)", ids).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|row| (row.audit_id, row.read())).collect())
}

/// Reads all rows of the table.
pub(super) async fn read_all(connection: &mut PgConnection) -> Result<BTreeMap<Uuid, AuditEntry>, sqlx::Error> {
    let rows = rows_where!("").fetch_all(connection).await?;
    Ok(rows.into_iter().map(|row| (row.audit_id, row.read())).collect())
}

struct AuditRow {
    audit_id: Uuid,
    recorded_at: OffsetDateTime,
    actor: String,
    action: String,
    target_kind: Option<String>,
    target_id: Option<String>,
    outcome: String,
    address: Option<String>,
    count: i64,
}

impl AuditRow {
    fn read(self) -> AuditEntry {
        AuditEntry {
            audit_id: self.audit_id,
            recorded_at: utc(self.recorded_at),
            actor: self.actor,
            action: self.action,
            target: self.target_kind.zip(self.target_id),
            outcome: self.outcome,
            address: self.address,
            count: self.count,
        }
    }
}
