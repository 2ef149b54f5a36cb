//! The comparison of the live tables with a shadow, row by row. PostgreSQL joins both tables by key, so that memory use
//! does not depend on the number of rows.

use serde_json::{Map, Value};
use sqlx::postgres::PgConnection;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, Row as _};
use time::Date;
use uuid::{Builder, Uuid};

use super::shadow::ShadowSchema;
use crate::projection::tables::Table;

/// The maximum number of differences listed for each table. Further differences are only counted.
const MAX_LISTED: i64 = 100;

/// The result of comparing one table.
#[derive(Clone, Debug)]
pub struct TableComparison {
    /// The table that was compared.
    pub table: Table,
    /// The number of rows compared in the live table.
    pub rows: i64,
    /// The number of rows that differ.
    pub differences: i64,
    /// The first differences in key order, at most 100.
    pub listed: Vec<RowDifference>,
}

/// A row of a live table that differs from the projection of the log.
#[derive(Clone, Debug)]
pub struct RowDifference {
    /// The table of the row.
    pub table: Table,
    /// The primary key of the row: each column with its value.
    pub key: Vec<(String, Value)>,
    /// The kind of difference. In a missing or an extra row, one side does not exist.
    pub kind: DifferenceKind,
    /// The row's `user_id`: the owner.
    pub user_id: Option<String>,
    /// The row's `chat_id`; none where the table has no such column.
    pub chat_id: Option<Uuid>,
    /// The row's `conversation_id`; none where the table has no such column.
    pub conversation_id: Option<Uuid>,
}

/// The kind of difference between a live row and the projection of the log.
#[derive(Clone, Debug, PartialEq)]
pub enum DifferenceKind {
    /// A row in the live table without a counterpart in the projection.
    Extra,
    /// A row of the projection that the live table does not have.
    Missing,
    /// Columns with different values: the name, the value in the live table, the value in the projection.
    Columns(Vec<(String, Value, Value)>),
}

/// Compares a live table with its shadow. With `since`, only rows that belong to UTC days from `since` on are compared,
/// because only such days were projected.
pub async fn compare(
    connection: &mut PgConnection,
    shadow: &ShadowSchema,
    table: Table,
    since: Option<Date>,
) -> Result<TableComparison, sqlx::Error> {
    let key = primary_key(connection, &shadow.live_table(table)).await?;
    let using = key.iter().map(|column| format!("\"{column}\"")).collect::<Vec<_>>().join(", ");
    let (live, own) = (
        rows_since(shadow, table, shadow.live_table(table), since),
        rows_since(shadow, table, shadow.shadow_table(table), since),
    );
    let rows: i64 =
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {live} l"))).fetch_one(&mut *connection).await?;
    let join = format!("FROM {live} l FULL JOIN {own} s USING ({using}) WHERE l IS DISTINCT FROM s");
    let differences: i64 =
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) {join}"))).fetch_one(&mut *connection).await?;
    let mut listed = Vec::new();
    if differences > 0 {
        let sql = format!("SELECT to_jsonb(l), to_jsonb(s) {join} ORDER BY {using} LIMIT {MAX_LISTED}");
        for row in sqlx::query(AssertSqlSafe(sql)).fetch_all(connection).await? {
            let [live, log] = [0, 1].map(|side| row.try_get::<Option<Json<Map<String, Value>>>, _>(side));
            listed.extend(RowDifference::of(table, &key, live?.map(|json| json.0), log?.map(|json| json.0)));
        }
    }
    Ok(TableComparison { table, rows, differences, listed })
}

/// The rows of a live table or of its shadow that belong to days from `since` on.
///
/// Where both tables have a time for the row, the live table's time decides, because the shadow has only a part of
/// older data. Ids of chats and messages begin with a time, so the condition on the key is a range of the primary key's
/// index.
fn rows_since(shadow: &ShadowSchema, table: Table, name: String, since: Option<Date>) -> String {
    let Some(since) = since else { return name };
    let (least, begins) = (first_id_since(since), format!("'{since} 00:00Z'"));
    let time_of = |of: Table, key: &str, column: &str| {
        let [live, own] = [shadow.live_table(of), shadow.shadow_table(of)]
            .map(|table| format!("(SELECT {column} FROM {table} c WHERE c.{key} = r.{key})"));
        format!("COALESCE({live}, {own})")
    };
    let condition = match table {
        Table::Chats => {
            format!("chat_id >= '{least}' AND {} >= {begins}", time_of(Table::Chats, "chat_id", "started_at"))
        }
        Table::Conversations => {
            format!("{} >= {begins}", time_of(Table::Conversations, "conversation_id", "created_at"))
        }
        Table::Messages => format!(
            "message_id >= '{least}' AND COALESCE({}, created_at) >= {begins}",
            time_of(Table::Chats, "chat_id", "started_at")
        ),
        Table::ApiKeys => {
            format!("key_id >= '{least}' AND {} >= {begins}", time_of(Table::ApiKeys, "key_id", "issued_at"))
        }
        Table::Limits => format!("{} >= {begins}", time_of(Table::Limits, "scope", "changed_at")),
        Table::Projects => format!("{} >= {begins}", time_of(Table::Projects, "project_id", "changed_at")),
        Table::PriceLists => format!("published_at >= {begins}"),
        Table::Repricings => format!("repriced_at >= {begins}"),
        Table::AuditLog => format!("recorded_at >= {begins}"),
        Table::UsageStats => format!("date >= '{since}'"),
        Table::UsageSlots | Table::OperationSlots | Table::KeySlots => format!("slot_at >= {begins}"),
    };
    format!("(SELECT * FROM {name} r WHERE {condition})")
}

/// The least id of any chat or message made on the given day or later, minus one hour for clocks that differ.
fn first_id_since(since: Date) -> Uuid {
    let hour_before = since.midnight().assume_utc() - time::Duration::HOUR;
    let millis = u64::try_from(hour_before.unix_timestamp().max(0)).unwrap_or_default() * 1000;
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    Builder::from_bytes(bytes).into_uuid()
}

/// The columns of a table's primary key, in index order.
async fn primary_key(connection: &mut PgConnection, table: &str) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT attname::text FROM pg_index, unnest(indkey) WITH ORDINALITY AS key (attnum, place)
         JOIN pg_attribute USING (attnum)
         WHERE indrelid = $1::text::regclass AND attrelid = indrelid AND indisprimary ORDER BY place",
    )
    .bind(table)
    .fetch_all(connection)
    .await
}

// === impl RowDifference ===

impl RowDifference {
    fn of(
        table: Table,
        key: &[String],
        live: Option<Map<String, Value>>,
        log: Option<Map<String, Value>>,
    ) -> Option<Self> {
        let any = live.as_ref().or(log.as_ref())?;
        let id = |column: &str| any.get(column)?.as_str()?.parse().ok();
        Some(Self {
            table,
            key: key.iter().map(|column| (column.clone(), any.get(column).cloned().unwrap_or_default())).collect(),
            user_id: any.get("user_id").and_then(Value::as_str).map(str::to_owned),
            chat_id: id("chat_id"),
            conversation_id: id("conversation_id"),
            kind: match (live, log) {
                (Some(live), Some(mut log)) => {
                    let columns = live.into_iter().filter_map(|(column, value)| {
                        let other = log.remove(&column).unwrap_or_default();
                        (value != other).then_some((column, value, other))
                    });
                    DifferenceKind::Columns(columns.collect())
                }
                (Some(_), None) => DifferenceKind::Extra,
                (None, _) => DifferenceKind::Missing,
            },
        })
    }
}
