//! The batch writer: writes a batch into the tables in transactions, waits while the database is away, and splits a
//! batch with a refused event until only the refused event is left for quarantine.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::traces::Tracer;
use sqlx::postgres::PgPool;
use tokio_util::sync::CancellationToken;

use crate::access::bucket::AccessBucket;
use crate::access::reconcile;
use crate::metrics::{Metrics, ReasonLabel};
use crate::pipeline::batch_spans;
use crate::policy::blockage::{Blockage, MAX_BATCH_WAIT};
use crate::policy::disposition::{Disposition, retry_delay};
use crate::projection::pricing::Prices;
use crate::projection::{Changes, project};
use crate::reads::live;
use crate::source::batch::Batch;
use crate::source::bodies::BodyFetcher;
use crate::store::pricing::RepricingPass;
use crate::store::quarantine::{self, QuarantineReason, QuarantinedEvent};
use crate::store::{self, AppliedCounts};

/// The timeout of a transaction. PostgreSQL ends a statement after half of this time.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// A writer of batches, used by the pipeline.
pub struct BatchWriter {
    pool: PgPool,
    /// The bucket that gateways follow, for the keys of a batch.
    access: Arc<AccessBucket>,
    /// For a refused event whose large body was released after decoding.
    body_fetcher: BodyFetcher,
    metrics: Arc<Metrics>,
    blockage: Arc<Blockage>,
    stop: CancellationToken,
    prices: Prices,
    tracer: Tracer,
}

/// The result of writing a batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct BatchOutcome {
    /// The numbers of newly applied events and messages.
    pub applied: AppliedCounts,
    /// The number of events put into quarantine.
    pub quarantined: usize,
    /// The number of failed tries that were followed by a pause.
    pub retries: u32,
}

/// A part of a batch not written yet. Each part is written in a separate transaction.
enum PendingWrite {
    Events(Range<usize>),
    Quarantine(Box<QuarantinedEvent>),
    /// The event at this index, refused by the database for the reason given.
    Refused(usize, String),
}

impl BatchWriter {
    /// Creates a writer into this database. Cancelling `stop` ends the wait for a database.
    pub fn new(
        pool: PgPool,
        access: Arc<AccessBucket>,
        body_fetcher: BodyFetcher,
        metrics: Arc<Metrics>,
        blockage: Arc<Blockage>,
        stop: CancellationToken,
        tracer: Tracer,
    ) -> Self {
        Self { pool, access, body_fetcher, metrics, blockage, stop, prices: Prices::default(), tracer }
    }

    /// Writes the whole batch. `changes` is the projection of the batch's events. Returns `None` if `stop` is cancelled
    /// while the database is away; then any part of the batch may be unwritten, and the batch must not be acknowledged.
    pub async fn write_batch(&mut self, batch: &Batch, changes: Changes) -> Option<BatchOutcome> {
        let (mut outcome, began_at) = (BatchOutcome::default(), shared::event::now());
        let mut changes = Some(changes);
        let mut pending = initial_writes(batch);
        let (mut attempt, began, mut is_late) = (0, Instant::now(), false);
        while let Some(write) = pending.pop() {
            let Err(error) = self.write(batch, &write, &mut changes, &mut outcome).await else {
                attempt = 0;
                continue;
            };
            match write.disposition(&error) {
                Disposition::Split | Disposition::Quarantine => pending.extend(write.split(&error)),
                disposition => {
                    attempt += 1;
                    if disposition == Disposition::Wait {
                        self.blockage.batch_refused();
                    }
                    if !is_late && began.elapsed() > MAX_BATCH_WAIT {
                        is_late = true;
                        tracing::error!(
                            error = store::describe(&error),
                            events = batch.len(),
                            "a batch could not be written for over a minute: the recorder goes on trying"
                        );
                    }
                    pending.push(write);
                    self.wait_before_retry(disposition, attempt, &error).await?;
                    outcome.retries += 1;
                }
            }
        }
        batch_spans::send(&self.tracer, batch, began_at);
        Some(outcome)
    }

    async fn write(
        &mut self,
        batch: &Batch,
        write: &PendingWrite,
        batch_changes: &mut Option<Changes>,
        outcome: &mut BatchOutcome,
    ) -> Result<(), sqlx::Error> {
        match write {
            PendingWrite::Events(range) => {
                let events = &batch.events[range.clone()];
                // The first try covers the whole batch and uses the given projection; a later try projects only its own
                // events.
                let changes = batch_changes.take().unwrap_or_else(|| project(events));
                let deliveries = &batch.deliveries[range.clone()];
                // The event may have been put into quarantine before, for its missing body.
                let recorded: Vec<_> = deliveries.iter().filter_map(|one| one.bodiless_quarantine_id()).collect();
                let has_prices = changes.admin.has_prices();
                let prices = &mut self.prices;
                let applied = with_write_timeout(store::apply(&self.pool, prices, changes, &recorded)).await?;
                if has_prices {
                    self.reprice().await?;
                }
                reconcile::sync_events(&self.access, &self.pool, events).await;
                // Live updates are published before the acknowledgement, so that a redelivery publishes the updates
                // again. A failure here does not hold up the record.
                if let Err(error) = with_write_timeout(live::publish(&self.pool, events, shared::event::now())).await {
                    tracing::warn!(
                        error = store::describe(&error),
                        "live updates of a batch could not be published: open pages do not show the batch until reloaded"
                    );
                }
                outcome.applied.events += applied.events;
                outcome.applied.user_messages += applied.user_messages;
                outcome.applied.assistant_messages += applied.assistant_messages;
            }
            PendingWrite::Quarantine(event) => self.put_into_quarantine(event, outcome).await?,
            PendingWrite::Refused(index, detail) => {
                let delivery = &batch.deliveries[*index];
                let body = match delivery.body_reference() {
                    Ok(Some(reference)) => {
                        let body = self.body_fetcher.fetch_patiently(&reference, WRITE_TIMEOUT).await;
                        Some(body.map_err(|error| sqlx::Error::Io(std::io::Error::other(error)))?)
                    }
                    Ok(None) | Err(_) => None,
                };
                let reason = QuarantineReason::RefusedByDatabase;
                let event = delivery.to_quarantined(reason, detail.clone(), body.as_deref());
                self.put_into_quarantine(&event, outcome).await?;
            }
        }
        Ok(())
    }

    /// Prices the chats anew whose prices a batch has changed. A pass that failed is repeated with the batch.
    async fn reprice(&mut self) -> Result<(), sqlx::Error> {
        while let Some(mut pass) = with_write_timeout(RepricingPass::begin(&self.pool)).await? {
            while with_write_timeout(pass.step(&self.pool, &mut self.prices)).await? {
                // Each step is a write of its own: a long pass is no sign of a database that takes nothing.
                self.blockage.batch_started(Instant::now());
            }
            tracing::info!(chats = pass.looked_at, "chats were priced again after a change of prices");
        }
        Ok(())
    }

    async fn put_into_quarantine(
        &self,
        event: &QuarantinedEvent,
        outcome: &mut BatchOutcome,
    ) -> Result<(), sqlx::Error> {
        with_write_timeout(quarantine::insert(&self.pool, event)).await?;
        tracing::error!(
            subject = event.subject,
            stream_sequence = event.stream_sequence,
            detail = event.detail,
            "an event was put into quarantine"
        );
        outcome.quarantined += 1;
        Ok(())
    }

    /// Logs the failure and pauses before the next try. Returns `None` if `stop` is cancelled during the pause.
    async fn wait_before_retry(&self, disposition: Disposition, attempt: u32, error: &sqlx::Error) -> Option<()> {
        let reason = if disposition == Disposition::Wait { "wait" } else { "retry" };
        self.metrics.retries.get_or_create(&ReasonLabel { reason }).inc();
        tracing::warn!(error = store::describe(error), reason, attempt, "a batch has to wait");
        let pause = tokio::time::sleep(retry_delay(disposition, attempt, rand::random()));
        self.stop.run_until_cancelled(pause).await?;
        // After the pause, because a connection returns to the pool a little after the failure of its transaction.
        if store::classify(error).is_read_only() {
            store::reconnect(&self.pool).await;
        }
        Some(())
    }
}

/// Turns a database operation without an answer into an error after [`WRITE_TIMEOUT`], so that a silent connection is
/// handled like a broken connection.
async fn with_write_timeout<T>(operation: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(WRITE_TIMEOUT, operation).await {
        Ok(written) => written,
        Err(_) => Err(sqlx::Error::Io(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            "no answer from the database within the timeout",
        ))),
    }
}

/// Returns the first writes of a batch: all events in one transaction, and each undecodable delivery as a quarantine
/// entry.
fn initial_writes(batch: &Batch) -> Vec<PendingWrite> {
    let undecodable = batch.undecodable.iter().map(|one| PendingWrite::Quarantine(Box::new(one.to_quarantined())));
    let mut writes: Vec<PendingWrite> = undecodable.collect();
    if !batch.events.is_empty() {
        writes.push(PendingWrite::Events(0..batch.events.len()));
    }
    writes
}

// === impl PendingWrite ===

impl PendingWrite {
    fn disposition(&self, error: &sqlx::Error) -> Disposition {
        match self {
            Self::Events(range) => Disposition::for_fault(&store::classify(error), range.len()),
            // An event that cannot be put into quarantine must not be skipped, or the event would be lost: wait for the
            // database.
            Self::Quarantine(_) | Self::Refused(..) => Disposition::Wait,
        }
    }

    /// Returns the writes that replace a refused write: the two halves of several events (the first half is last, and
    /// so next), or a quarantine entry for a single event.
    fn split(self, error: &sqlx::Error) -> Vec<Self> {
        match self {
            Self::Events(range) if range.len() > 1 => {
                let middle = range.start + range.len() / 2;
                vec![Self::Events(middle..range.end), Self::Events(range.start..middle)]
            }
            Self::Events(range) => {
                vec![Self::Refused(range.start, store::describe(error))]
            }
            write @ (Self::Quarantine(_) | Self::Refused(..)) => vec![write],
        }
    }
}
