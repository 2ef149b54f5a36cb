//! Raw COPY of existing rows, as the yardstick for the store's writes.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use recorder::projection::tables::Table;
use sqlx::postgres::{PgPool, PgPoolCopyExt as _};
use sqlx::{AssertSqlSafe, Executor as _};

/// The rows of all tables as lines for COPY, in unnamed temporary files.
pub(crate) struct Rows(Vec<(Table, File)>);

impl Rows {
    /// Reads all rows of all projected tables into files.
    pub(crate) async fn read(pool: &PgPool) -> anyhow::Result<Self> {
        let mut tables = Vec::new();
        for table in Table::ALL {
            let order = match table {
                Table::Messages => "ORDER BY created_at, chat_id",
                Table::Chats => "ORDER BY chat_id",
                Table::Conversations
                | Table::UsageStats
                | Table::UsageSlots
                | Table::OperationSlots
                | Table::KeySlots
                | Table::ApiKeys
                | Table::Limits
                | Table::PriceLists
                | Table::Repricings
                | Table::Projects
                | Table::AuditLog => "",
            };
            let name = table.name();
            let mut out = pool.copy_out_raw(&format!("COPY (SELECT * FROM {name} {order}) TO STDOUT")).await?;
            let mut file = std::io::BufWriter::new(tempfile::tempfile()?);
            while let Some(chunk) = out.next().await {
                file.write_all(&chunk?)?;
            }
            tables.push((table, file.into_inner()?));
        }
        Ok(Self(tables))
    }
}

/// Writes all rows by COPY, in as many transactions as the store needed, each with an equal share of every table.
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
                for (table, file) in rows.0.iter().filter(|(table, _)| tables.contains(table)) {
                    let lines = share(file, number as u64, transactions as u64)?;
                    let mut copy = tx.copy_in_raw(&format!("COPY {} FROM STDIN", table.name())).await?;
                    copy.send(lines).await?;
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

/// The lines that begin within one share of a file.
fn share(file: &File, number: u64, of: u64) -> std::io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    let (from, to) = (begin_of_line(file, length * number / of)?, begin_of_line(file, length * (number + 1) / of)?);
    let mut lines = vec![0; usize::try_from(to - from).map_err(std::io::Error::other)?];
    file.read_exact_at(&mut lines, from)?;
    Ok(lines)
}

/// The offset of the first line that begins at `at` or later.
fn begin_of_line(file: &File, at: u64) -> std::io::Result<u64> {
    let Some(mut before) = at.checked_sub(1) else { return Ok(0) };
    let mut block = [0; 8192];
    loop {
        let read = file.read_at(&mut block, before)?;
        if let Some(end) = block[..read].iter().position(|byte| *byte == b'\n') {
            return Ok(before + end as u64 + 1);
        }
        if read == 0 {
            return Ok(before);
        }
        before += read as u64;
    }
}

/// Empties all projected tables, and runs a checkpoint.
pub(crate) async fn empty(pool: &PgPool) -> anyhow::Result<()> {
    let tables = Table::ALL.map(Table::name).join(", ");
    pool.execute(AssertSqlSafe(format!("TRUNCATE {tables}"))).await?;
    pool.execute("CHECKPOINT").await?;
    Ok(())
}
