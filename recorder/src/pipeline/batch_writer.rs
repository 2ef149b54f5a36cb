//! A batch's way into the tables: tried again where the database is away, taken apart where it refuses something.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgPool;
use tokio_util::sync::CancellationToken;

use crate::metrics::{Metrics, ReasonLabel};
use crate::policy::disposition::{Disposition, retry_delay};
use crate::projection::{Changes, project};
use crate::reads::live;
use crate::source::Batch;
use crate::store::quarantine::{self, QuarantineReason, QuarantinedEvent};
use crate::store::{self, AppliedCounts};

/// How long a transaction may take. The database itself ends a statement after half of that.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Writes batches.
pub struct BatchWriter {
    pool: PgPool,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

/// What recording a batch came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct BatchOutcome {
    /// What it changed.
    pub applied: AppliedCounts,
    /// Events that were put aside.
    pub quarantined: usize,
    /// How often it had to wait.
    pub retries: u32,
}

/// A part of a batch that is still to be done, in a transaction of its own.
enum PendingWrite {
    Events(Range<usize>),
    Quarantine(Box<QuarantinedEvent>),
}

impl BatchWriter {
    /// Into this database, until told to stop.
    pub fn new(pool: PgPool, metrics: Arc<Metrics>, stop: CancellationToken) -> Self {
        Self { pool, metrics, stop }
    }

    /// Writes a batch, all of it, whose projection is these changes; or nothing is certain, if told to stop while the database
    /// is away.
    pub async fn write_batch(&self, batch: &Batch, changes: Changes) -> Option<BatchOutcome> {
        let mut outcome = BatchOutcome::default();
        let mut changes = Some(changes);
        let mut pending = initial_writes(batch);
        let mut attempt = 0;
        while let Some(write) = pending.pop() {
            let Err(error) = self.write(batch, &write, &mut changes, &mut outcome).await else {
                attempt = 0;
                continue;
            };
            match write.disposition(&error) {
                Disposition::Split | Disposition::Quarantine => pending.extend(write.split(batch, &error)),
                disposition => {
                    attempt += 1;
                    pending.push(write);
                    self.wait_before_retry(disposition, attempt, &error).await?;
                    outcome.retries += 1;
                }
            }
        }
        Some(outcome)
    }

    async fn write(
        &self,
        batch: &Batch,
        write: &PendingWrite,
        batch_changes: &mut Option<Changes>,
        outcome: &mut BatchOutcome,
    ) -> Result<(), sqlx::Error> {
        match write {
            PendingWrite::Events(range) => {
                let events = &batch.events[range.clone()];
                // The first try is at all of them.
                let changes = batch_changes.take().unwrap_or_else(|| project(events));
                let applied = with_write_timeout(store::apply(&self.pool, changes)).await?;
                // Before the acknowledgement: whoever gets these events again says it again. The record does not wait for it.
                if let Err(error) = with_write_timeout(live::publish(&self.pool, events, shared::event::now())).await {
                    tracing::warn!(error = store::describe(&error), "open pages are not told of a batch");
                }
                outcome.applied.events += applied.events;
                outcome.applied.user_messages += applied.user_messages;
                outcome.applied.assistant_messages += applied.assistant_messages;
            }
            PendingWrite::Quarantine(event) => {
                with_write_timeout(quarantine::insert(&self.pool, event)).await?;
                tracing::error!(
                    subject = event.subject,
                    stream_sequence = event.stream_sequence,
                    detail = event.detail,
                    "an event was put into quarantine"
                );
                outcome.quarantined += 1;
            }
        }
        Ok(())
    }

    /// None if told to stop meanwhile.
    async fn wait_before_retry(&self, disposition: Disposition, attempt: u32, error: &sqlx::Error) -> Option<()> {
        let reason = if disposition == Disposition::Wait { "wait" } else { "retry" };
        self.metrics.retries.get_or_create(&ReasonLabel { reason }).inc();
        tracing::warn!(error = store::describe(error), reason, attempt, "a batch has to wait");
        let pause = tokio::time::sleep(retry_delay(disposition, attempt, rand::random()));
        self.stop.run_until_cancelled(pause).await?;
        // After the pause: a connection goes back to the pool a little after its transaction has failed.
        if store::classify(error).is_read_only() {
            store::reconnect(&self.pool).await;
        }
        Some(())
    }
}

/// A connection that has gone silent is an error like any other, in time.
async fn with_write_timeout<T>(operation: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(WRITE_TIMEOUT, operation).await {
        Ok(written) => written,
        Err(_) => Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time"))),
    }
}

/// A batch as it is first tried: everything at once; and what is no event, put aside.
fn initial_writes(batch: &Batch) -> Vec<PendingWrite> {
    let undecodable = batch.undecodable.iter().map(|(delivery, error)| {
        PendingWrite::Quarantine(Box::new(delivery.to_quarantined(QuarantineReason::Undecodable, error.to_string())))
    });
    let mut writes: Vec<PendingWrite> = undecodable.collect();
    if !batch.events.is_empty() {
        writes.push(PendingWrite::Events(0..batch.events.len()));
    }
    writes
}

// === impl Part ===

impl PendingWrite {
    fn disposition(&self, error: &sqlx::Error) -> Disposition {
        match self {
            Self::Events(range) => Disposition::for_fault(&store::classify(error), range.len()),
            // What cannot even be put aside stops the line: it would be lost.
            Self::Quarantine(_) => Disposition::Wait,
        }
    }

    /// What to try instead: the halves, the first one next; or, of one event, to put it aside.
    fn split(self, batch: &Batch, error: &sqlx::Error) -> Vec<Self> {
        match self {
            Self::Events(range) if range.len() > 1 => {
                let middle = range.start + range.len() / 2;
                vec![Self::Events(middle..range.end), Self::Events(range.start..middle)]
            }
            Self::Events(range) => {
                let delivery = &batch.deliveries[range.start];
                let event = delivery.to_quarantined(QuarantineReason::RefusedByDatabase, store::describe(error));
                vec![Self::Quarantine(Box::new(event))]
            }
            write @ Self::Quarantine(_) => vec![write],
        }
    }
}
