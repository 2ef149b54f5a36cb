//! The live tables against a shadow, row by row: PostgreSQL joins the two by key, so that memory stays what it is however
//! many rows there are.

use serde_json::{Map, Value};
use sqlx::postgres::PgConnection;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, Row as _};
use time::Date;
use uuid::{Builder, Uuid};

use super::shadow::ShadowSchema;
use crate::projection::tables::Table;

/// How many differences of a table are told apart; the others are only counted.
const MAX_LISTED: i64 = 100;

/// What a table's comparison came to.
#[derive(Clone, Debug)]
pub struct TableComparison {
    /// The table.
    pub table: Table,
    /// Rows of the live table that were compared.
    pub rows: i64,
    /// Rows that differ.
    pub differences: i64,
    /// The first of them.
    pub listed: Vec<RowDifference>,
}

/// A row that is not what the log says.
#[derive(Clone, Debug)]
pub struct RowDifference {
    /// The table.
    pub table: Table,
    /// The row's key: each column with its value.
    pub key: Vec<(String, Value)>,
    /// The row in the table, and what the log says: one of them may be missing.
    pub kind: DifferenceKind,
    /// Whose it is.
    pub user_id: Option<String>,
    /// The chat that it belongs to, where it belongs to one.
    pub chat_id: Option<Uuid>,
    /// The conversation that it belongs to, where it belongs to one.
    pub conversation_id: Option<Uuid>,
}

/// How a row differs.
#[derive(Clone, Debug, PartialEq)]
pub enum DifferenceKind {
    /// The log has no such row.
    Extra,
    /// The table has no such row.
    Missing,
    /// These columns differ: the name, what the table has, what the log says.
    Columns(Vec<(String, Value, Value)>),
}

/// Compares a table with its shadow; of a part of the record alone, where only days from `since` on were projected.
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

/// The rows of a table, or of its shadow, that belong to days from `since` on. What the live table says of a time goes
/// first, since the shadow has only a part of what is older. Chats' and messages' ids begin with their time, so their keys
/// are a range of the index.
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
        Table::UsageStats => format!("date >= '{since}'"),
        Table::UsageSlots => format!("slot_at >= {begins}"),
    };
    format!("(SELECT * FROM {name} r WHERE {condition})")
}

/// An id that comes before all that were made on this day or later, an hour aside: clocks differ.
fn first_id_since(since: Date) -> Uuid {
    let hour_before = since.midnight().assume_utc() - time::Duration::HOUR;
    let millis = u64::try_from(hour_before.unix_timestamp().max(0)).unwrap_or_default() * 1000;
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    Builder::from_bytes(bytes).into_uuid()
}

/// The columns of a table's primary key, in order.
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

// === impl Difference ===

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
