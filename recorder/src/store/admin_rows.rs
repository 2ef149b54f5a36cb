//! Rows about the deployment: the tables together.

use sqlx::PgConnection;
use uuid::Uuid;

use super::stored_row::join_rows;
use super::{api_keys, audit_log, limits, price_lists, projects, repricings};
use crate::projection::admin_rows::AdminRows;
use crate::projection::row::{Row, Rows};
use crate::projection::tables::Table;

/// Joins facts with the rows of all tables but those of prices, in the order of [`Table::ALL`]. Returns the number of rows that
/// changed.
///
/// A change of prices concerns chats, too: see [`pricing`](super::pricing).
pub(super) async fn join_all_but_prices(tx: &mut PgConnection, facts: AdminRows) -> Result<usize, sqlx::Error> {
    let AdminRows { api_keys, limits, projects, price_lists: _, repricings: _, audit_log } = facts;
    Ok(join_rows(tx, api_keys).await?.len()
        + join_rows(tx, limits).await?.len()
        + join_rows(tx, projects).await?.len()
        + audit_log::join(tx, audit_log).await?)
}

/// Reads the rows that have the keys of the facts. Missing rows are left out.
pub async fn matching(connection: &mut PgConnection, facts: &AdminRows) -> Result<AdminRows, sqlx::Error> {
    fn keys<R: Row, K>(facts: &Rows<R>, column: impl Fn(&R::Key) -> K) -> Vec<K> {
        facts.keys().map(column).collect()
    }
    let AdminRows { api_keys, limits, projects, price_lists, repricings, audit_log } = facts;
    Ok(AdminRows {
        api_keys: api_keys::by_ids(connection, &keys(api_keys, |key| key.0)).await?,
        limits: limits::by_scopes(connection, &keys(limits, ToString::to_string)).await?,
        projects: projects::by_ids(connection, &keys(projects, |key| key.0)).await?,
        price_lists: price_lists::by_ids(connection, &keys(price_lists, |key| *key)).await?,
        repricings: repricings::by_ids(connection, &keys(repricings, |key| *key)).await?,
        audit_log: audit_log::by_ids(connection, &keys(audit_log, |key| *key)).await?,
    })
}

/// Reads rows of one of the tables whose keys are UUIDs. Missing rows are left out; other tables have none.
pub async fn by_ids(connection: &mut PgConnection, table: Table, ids: &[Uuid]) -> Result<AdminRows, sqlx::Error> {
    let mut rows = AdminRows::default();
    match table {
        Table::ApiKeys => rows.api_keys = api_keys::by_ids(connection, ids).await?,
        Table::Projects => rows.projects = projects::by_ids(connection, ids).await?,
        Table::PriceLists => rows.price_lists = price_lists::by_ids(connection, ids).await?,
        Table::Repricings => rows.repricings = repricings::by_ids(connection, ids).await?,
        Table::AuditLog => rows.audit_log = audit_log::by_ids(connection, ids).await?,
        _ => {}
    }
    Ok(rows)
}

/// Reads all rows of the tables.
pub(super) async fn read_all(connection: &mut PgConnection) -> Result<AdminRows, sqlx::Error> {
    Ok(AdminRows {
        api_keys: api_keys::read_all(connection).await?,
        limits: limits::read_all(connection).await?,
        projects: projects::read_all(connection).await?,
        price_lists: price_lists::read_all(connection).await?,
        repricings: repricings::read_all(connection).await?,
        audit_log: audit_log::read_all(connection).await?,
    })
}
