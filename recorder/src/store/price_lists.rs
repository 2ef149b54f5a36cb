//! Statements for the `price_lists` table. Lists are published seldom, so each row has its own statements.

use std::collections::BTreeMap;

use shared::prices::history::PublishedList;
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::read::utc;
use super::stored_row::StoredRow;
use crate::projection::price_lists::PriceList;

/// A query for whole rows; `$tail` follows the table's name.
macro_rules! rows_where {
    ($tail:tt $(, $argument:expr)*) => {
        sqlx::query_as!(
            PriceListRow,
            "SELECT change_id, layer, in_force_from, in_force_until, published_at, published_by, sha256, list
             FROM price_lists " + $tail
            $(, $argument)*
        )
    };
}

/// A publication without the content of the list, for lists of publications.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The publication, without the author.
    pub list: PublishedList,
    /// The author.
    pub published_by: String,
    /// The size of the list in bytes.
    pub size: i64,
}

/// Locks prices against all pricing until the transaction ends. The transaction must not have read prices or written rows before.
pub(super) async fn lock_for_change(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("LOCK TABLE price_lists IN EXCLUSIVE MODE").execute(tx).await.map(drop)
}

/// Waits for transactions that change prices, and keeps others from changing them until the transaction ends. Any number of
/// transactions may hold this lock.
pub(super) async fn lock_for_pricing(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("LOCK TABLE price_lists IN ROW SHARE MODE").execute(tx).await.map(drop)
}

impl StoredRow for PriceList {
    async fn insert(&self, tx: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let inserted = sqlx::query!(
            "INSERT INTO price_lists (change_id, layer, in_force_from, in_force_until, published_at, published_by, sha256,
                 list)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (change_id) DO NOTHING",
            self.change_id,
            self.layer,
            self.in_force_from,
            self.in_force_until,
            self.published_at,
            self.published_by,
            self.sha256,
            &*self.list
        );
        Ok(inserted.execute(tx).await?.rows_affected() == 1)
    }

    async fn lock(tx: &mut PgConnection, key: &Uuid) -> Result<Self, sqlx::Error> {
        Ok(rows_where!("WHERE change_id = $1 FOR UPDATE", key).fetch_one(tx).await?.read())
    }

    async fn update(&self, tx: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "UPDATE price_lists SET layer = $2, in_force_from = $3, in_force_until = $4, published_at = $5,
                 published_by = $6, sha256 = $7, list = $8
             WHERE change_id = $1",
            self.change_id,
            self.layer,
            self.in_force_from,
            self.in_force_until,
            self.published_at,
            self.published_by,
            self.sha256,
            &*self.list
        )
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// Reads the content of lists by SHA-256.
pub async fn contents(
    connection: &mut PgConnection,
    sha256: &[String],
) -> Result<BTreeMap<String, String>, sqlx::Error> {
    let rows = sqlx::query!("SELECT DISTINCT ON (sha256) sha256, list FROM price_lists WHERE sha256 = ANY($1)", sha256);
    Ok(rows.fetch_all(connection).await?.into_iter().map(|row| (row.sha256, row.list)).collect())
}

/// Reads the greatest id of a publication or a repricing. None if there is neither.
pub async fn last_change(pool: &PgPool) -> Result<Option<Uuid>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT change_id FROM (
             (SELECT change_id FROM price_lists ORDER BY change_id DESC LIMIT 1)
             UNION ALL
             (SELECT change_id FROM repricings ORDER BY change_id DESC LIMIT 1)
         ) AS last_of_each ORDER BY change_id DESC LIMIT 1"
    );
    Ok(row.fetch_optional(pool).await?.and_then(|row| row.change_id))
}

/// Reads up to `limit` publications before the given one, the newest first.
pub async fn page(pool: &PgPool, before: Uuid, limit: i64) -> Result<Vec<Publication>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT change_id, layer, in_force_from, in_force_until, published_at, published_by, sha256,
             octet_length(list)::bigint AS "size!"
         FROM price_lists WHERE change_id < $1 ORDER BY change_id DESC LIMIT $2"#,
        before,
        limit
    );
    let publications = rows.fetch_all(pool).await?.into_iter().map(|row| Publication {
        list: PublishedList {
            change_id: row.change_id,
            layer: row.layer,
            from: utc(row.in_force_from),
            until: row.in_force_until.map(utc),
            published_at: utc(row.published_at),
            sha256: row.sha256,
        },
        published_by: row.published_by,
        size: row.size,
    });
    Ok(publications.collect())
}

/// Reads the content of the lists whose SHA-256 begins with the given digits: at most two, to tell one from several.
pub async fn by_version(pool: &PgPool, digits: &str) -> Result<Vec<(String, String)>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT DISTINCT ON (sha256) sha256, list FROM price_lists WHERE starts_with(sha256, $1) ORDER BY sha256 LIMIT 2",
        digits
    );
    Ok(rows.fetch_all(pool).await?.into_iter().map(|row| (row.sha256, row.list)).collect())
}

/// Reads rows by publication. Missing rows are left out.
pub async fn by_ids(connection: &mut PgConnection, ids: &[Uuid]) -> Result<BTreeMap<Uuid, PriceList>, sqlx::Error> {
    let rows = rows_where!("WHERE change_id = ANY($1)", ids).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|row| (row.change_id, row.read())).collect())
}

/// Reads all rows of the table.
pub(super) async fn read_all(connection: &mut PgConnection) -> Result<BTreeMap<Uuid, PriceList>, sqlx::Error> {
    let rows = rows_where!("").fetch_all(connection).await?;
    Ok(rows.into_iter().map(|row| (row.change_id, row.read())).collect())
}

struct PriceListRow {
    change_id: Uuid,
    layer: String,
    in_force_from: OffsetDateTime,
    in_force_until: Option<OffsetDateTime>,
    published_at: OffsetDateTime,
    published_by: String,
    sha256: String,
    list: String,
}

impl PriceListRow {
    fn read(self) -> PriceList {
        PriceList {
            change_id: self.change_id,
            layer: self.layer,
            in_force_from: utc(self.in_force_from),
            in_force_until: self.in_force_until.map(utc),
            published_at: utc(self.published_at),
            published_by: self.published_by,
            sha256: self.sha256,
            list: self.list.into(),
        }
    }
}
