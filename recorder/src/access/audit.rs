//! Publishing the entries of the audit log.
//!
//! The transaction of an act notes its entry in the table `audit_outbox`. Every `recorder serve` publishes the entries, at once after an act of
//! its own and twice a second for those of commands and other processes, and deletes each entry once the broker has acknowledged its event. A broker
//! that is away delays entries, and no login.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{StreamExt as _, iter};
use sqlx::postgres::PgPool;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::publication::publish;
use crate::accounts::audit::Audit;
use crate::store::audit_outbox::{self, WaitingEntry};

/// The interval at which the entries of other processes are read.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The pause after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The number of entries read at a time.
const PAGE_ROWS: i64 = 200;
/// The number of entries published at the same time.
const PARALLEL_PUBLICATIONS: usize = 16;

/// Publishes the entries of the audit log.
#[derive(Debug)]
pub struct AuditPublisher {
    client: Option<async_nats::Client>,
    pool: PgPool,
    audit: Arc<Audit>,
    noted: Arc<Notify>,
}

impl AuditPublisher {
    /// Creates the task. Without a client, entries are made and wait.
    pub fn new(client: Option<async_nats::Client>, pool: PgPool, audit: Arc<Audit>) -> Self {
        let noted = audit.noted();
        Self { client, pool, audit, noted }
    }

    /// Publishes entries until the process ends.
    pub async fn run(self) -> Infallible {
        let mut has_reported = false;
        loop {
            match self.step().await {
                Ok(()) => {
                    has_reported = false;
                    // An act of this process ends the wait early. The entries themselves are in the table.
                    let _ = timeout(POLL_INTERVAL, self.noted.notified()).await;
                }
                Err(error) => {
                    if !std::mem::replace(&mut has_reported, true) {
                        let error = format!("{error:#}");
                        tracing::warn!(error, "entries of the audit log could not be published: trying again");
                    }
                    sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }

    /// Publishes all entries that wait.
    async fn step(&self) -> anyhow::Result<()> {
        self.audit.write_throttled().await?;
        audit_outbox::end_windows(&self.pool, shared::event::now()).await?;
        let Some(client) = &self.client else { return Ok(()) };
        loop {
            let entries = audit_outbox::first(&self.pool, PAGE_ROWS).await?;
            if entries.is_empty() {
                return Ok(());
            }
            let published =
                iter(entries).map(|entry| publish_entry(client, entry)).buffer_unordered(PARALLEL_PUBLICATIONS);
            let published: Vec<anyhow::Result<i64>> = published.collect().await;
            let (numbers, errors): (Vec<_>, Vec<_>) = published.into_iter().partition(Result::is_ok);
            audit_outbox::delete(&self.pool, &numbers.into_iter().flatten().collect::<Vec<_>>()).await?;
            errors.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        }
    }
}

async fn publish_entry(client: &async_nats::Client, entry: WaitingEntry) -> anyhow::Result<i64> {
    match entry.event {
        Some(event) => publish(client, &event).await?,
        None => tracing::error!(number = entry.number, "a row of audit_outbox can be no event: left out"),
    }
    Ok(entry.number)
}
