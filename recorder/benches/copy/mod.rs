//! Raw COPY of the rows that there are: the yardstick of what writes them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use recorder::projection::tables::Table;
use sqlx::postgres::{PgPool, PgPoolCopyExt as _};
use sqlx::{AssertSqlSafe, Executor as _};

/// The rows of every table, as lines for COPY.
pub(crate) struct Rows(Vec<(Table, Vec<String>)>);

impl Rows {
    /// Reads them all.
    pub(crate) async fn read(pool: &PgPool) -> anyhow::Result<Self> {
        let mut tables = Vec::new();
        for table in Table::ALL {
            let order = match table {
                Table::Messages => "ORDER BY created_at, chat_id",
                Table::Chats => "ORDER BY chat_id",
                Table::Conversations | Table::UsageStats | Table::UsageSlots => "",
            };
            let name = table.name();
            let mut out = pool.copy_out_raw(&format!("COPY (SELECT * FROM {name} {order}) TO STDOUT")).await?;
            let mut bytes = Vec::new();
            while let Some(chunk) = out.next().await {
                bytes.extend_from_slice(&chunk?);
            }
            let lines = String::from_utf8(bytes)?;
            tables.push((table, lines.split_inclusive('\n').map(str::to_owned).collect()));
        }
        Ok(Self(tables))
    }
}

/// The same number of transactions as the store needed, each with its share of every table.
pub(crate) async fn all(
    pool: &PgPool,
    rows: &Arc<Rows>,
    tables: &'static [Table],
    transactions: usize,
    writers: usize,
) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let tasks = (0..writers).map(|writer| {
        let (pool, rows) = (pool.clone(), Arc::clone(rows));
        tokio::spawn(async move {
            for number in (writer..transactions).step_by(writers) {
                let mut tx = pool.begin().await?;
                for (table, lines) in rows.0.iter().filter(|(table, _)| tables.contains(table)) {
                    let share = lines.len() * number / transactions..lines.len() * (number + 1) / transactions;
                    let mut copy = tx.copy_in_raw(&format!("COPY {} FROM STDIN", table.name())).await?;
                    copy.send(lines[share].concat().into_bytes()).await?;
                    copy.finish().await?;
                }
                tx.commit().await?;
            }
            anyhow::Ok(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    Ok(began.elapsed())
}

/// Empties every table.
pub(crate) async fn empty(pool: &PgPool) -> anyhow::Result<()> {
    let tables = Table::ALL.map(Table::name).join(", ");
    pool.execute(AssertSqlSafe(format!("TRUNCATE {tables}"))).await?;
    pool.execute("CHECKPOINT").await?;
    Ok(())
}
