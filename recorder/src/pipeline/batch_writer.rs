//! A batch's way into the tables: tried again where the database is away, taken apart where it refuses something.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgPool;
use tokio_util::sync::CancellationToken;

use crate::metrics::{Metrics, ReasonLabel};
use crate::policy::disposition::{Disposition, pause};
use crate::projection::{Changes, project};
use crate::reads::live;
use crate::source::Batch;
use crate::store::quarantine::{self, Quarantined, Reason};
use crate::store::{self, Applied};

/// How long a transaction may take. The database itself ends a statement after half of that.
const LONGEST_WRITE: Duration = Duration::from_secs(60);

/// Writes batches.
pub struct Record {
    pool: PgPool,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

/// What recording a batch came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recorded {
    /// What it changed.
    pub applied: Applied,
    /// Events that were put aside.
    pub quarantined: usize,
    /// How often it had to wait.
    pub retries: u32,
}

/// A part of a batch that is still to be done, in a transaction of its own.
enum Part {
    Events(Range<usize>),
    PutAside(Box<Quarantined>),
}

impl Record {
    /// Into this database, until told to stop.
    pub fn new(pool: PgPool, metrics: Arc<Metrics>, stop: CancellationToken) -> Self {
        Self { pool, metrics, stop }
    }

    /// Writes a batch, all of it, whose projection is these changes; or nothing is certain, if told to stop while the database
    /// is away.
    pub async fn record(&self, batch: &Batch, changes: Changes) -> Option<Recorded> {
        let mut recorded = Recorded::default();
        let mut changes = Some(changes);
        let mut left = parts(batch);
        let mut attempt = 0;
        while let Some(part) = left.pop() {
            let Err(error) = self.write(batch, &part, &mut changes, &mut recorded).await else {
                attempt = 0;
                continue;
            };
            match part.disposition(&error) {
                Disposition::Split | Disposition::Quarantine => left.extend(part.smaller(batch, &error)),
                disposition => {
                    attempt += 1;
                    left.push(part);
                    self.pause(disposition, attempt, &error).await?;
                    recorded.retries += 1;
                }
            }
        }
        Some(recorded)
    }

    async fn write(
        &self,
        batch: &Batch,
        part: &Part,
        whole: &mut Option<Changes>,
        recorded: &mut Recorded,
    ) -> Result<(), sqlx::Error> {
        match part {
            Part::Events(range) => {
                let events = &batch.events[range.clone()];
                // The first try is at all of them.
                let changes = whole.take().unwrap_or_else(|| project(events));
                let applied = in_time(store::apply(&self.pool, changes)).await?;
                // Before the acknowledgement: whoever gets these events again says it again. The record does not wait for it.
                if let Err(error) = in_time(live::announce(&self.pool, events, shared::event::now())).await {
                    tracing::warn!(error = store::describe(&error), "open pages are not told of a batch");
                }
                recorded.applied.applied += applied.applied;
                recorded.applied.user_messages += applied.user_messages;
                recorded.applied.assistant_messages += applied.assistant_messages;
            }
            Part::PutAside(event) => {
                in_time(quarantine::insert(&self.pool, event)).await?;
                tracing::error!(
                    subject = event.subject,
                    stream_sequence = event.stream_sequence,
                    detail = event.detail,
                    "an event was put into quarantine"
                );
                recorded.quarantined += 1;
            }
        }
        Ok(())
    }

    /// None if told to stop meanwhile.
    async fn pause(&self, disposition: Disposition, attempt: u32, error: &sqlx::Error) -> Option<()> {
        let reason = if disposition == Disposition::Wait { "wait" } else { "retry" };
        self.metrics.retries.get_or_create(&ReasonLabel { reason }).inc();
        tracing::warn!(error = store::describe(error), reason, attempt, "a batch has to wait");
        let pause = tokio::time::sleep(pause(disposition, attempt, rand::random()));
        self.stop.run_until_cancelled(pause).await?;
        // After the pause: a connection goes back to the pool a little after its transaction has failed.
        if store::fault(error).is_read_only() {
            store::reconnect(&self.pool).await;
        }
        Some(())
    }
}

/// A connection that has gone silent is an error like any other, in time.
async fn in_time<T>(write: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(LONGEST_WRITE, write).await {
        Ok(written) => written,
        Err(_) => Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time"))),
    }
}

/// A batch as it is first tried: everything at once; and what is no event, put aside.
fn parts(batch: &Batch) -> Vec<Part> {
    let undecodable = batch.undecodable.iter().map(|(delivery, error)| {
        Part::PutAside(Box::new(delivery.quarantined(Reason::Undecodable, error.to_string())))
    });
    let mut parts: Vec<Part> = undecodable.collect();
    if !batch.events.is_empty() {
        parts.push(Part::Events(0..batch.events.len()));
    }
    parts
}

// === impl Part ===

impl Part {
    fn disposition(&self, error: &sqlx::Error) -> Disposition {
        match self {
            Self::Events(range) => Disposition::of(&store::fault(error), range.len()),
            // What cannot even be put aside stops the line: it would be lost.
            Self::PutAside(_) => Disposition::Wait,
        }
    }

    /// What to try instead: the halves, the first one next; or, of one event, to put it aside.
    fn smaller(self, batch: &Batch, error: &sqlx::Error) -> Vec<Self> {
        match self {
            Self::Events(range) if range.len() > 1 => {
                let middle = range.start + range.len() / 2;
                vec![Self::Events(middle..range.end), Self::Events(range.start..middle)]
            }
            Self::Events(range) => {
                let delivery = &batch.deliveries[range.start];
                let event = delivery.quarantined(Reason::RefusedByDatabase, store::describe(error));
                vec![Self::PutAside(Box::new(event))]
            }
            part @ Self::PutAside(_) => vec![part],
        }
    }
}
