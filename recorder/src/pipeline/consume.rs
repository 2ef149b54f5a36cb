//! The pipeline: moves events from the broker into the tables, batch by batch.
//!
//! A batch is acknowledged only after every event was committed to the tables or to the quarantine. An unavailable
//! database stops the pipeline and never puts an event into quarantine. An event refused by the database goes into
//! quarantine and never stops the pipeline. While PostgreSQL writes one batch, the pipeline receives, decodes and
//! projects the next batch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use shared::event::Event;
use sqlx::postgres::PgPool;
use time::OffsetDateTime;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{interval_at, sleep};
use tokio_util::sync::CancellationToken;

use crate::metrics::{KindLabel, Metrics};
use crate::pipeline::batch_writer::{BatchOutcome, BatchWriter};
use crate::pipeline::consumer_watchdog::{CheckError, CheckOutcome, ConnectionId, ConsumerWatchdog};
use crate::policy::batch::BatchSize;
use crate::projection::{Changes, project};
use crate::source::bodies::BodyFetcher;
use crate::source::log::{LogError, LogRange, LogReader, RangeEnd, RangeStart};
use crate::source::setup::SetupError;
use crate::source::{Batch, Deliveries, PROGRESS_INTERVAL, Source};

/// The pause between two tries to reread the stream after a reconnect.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// A worker that records the source's batches.
pub struct Pipeline {
    source: Source,
    /// The next batch, received while the previous batch was written.
    prefetched: Option<Result<ReceivedBatch, SetupError>>,
    body_fetcher: BodyFetcher,
    watchdog: ConsumerWatchdog,
    writer: BatchWriter,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A batch was written and acknowledged.
    Recorded,
    /// No batch was taken: the connection to the broker is new, and the stream was reread or is to be reread.
    Reread,
    /// The pipeline was told to stop; the caller must not call `step` again.
    Stopped,
}

/// A received batch: the deliveries, and a task that decodes and projects the deliveries. The task gives `None` if a
/// body must first be fetched from the object store; `decoded` is `None` if no task was started.
struct ReceivedBatch {
    deliveries: Deliveries,
    decoded: Option<JoinHandle<Option<(Batch, Changes)>>>,
}

impl Pipeline {
    /// Creates a pipeline that stops between two batches when `stop` is cancelled.
    pub fn new(
        source: Source,
        watchdog: ConsumerWatchdog,
        pool: PgPool,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Self {
        let body_fetcher = BodyFetcher::new(watchdog.client());
        let writer = BatchWriter::new(pool, Arc::clone(&metrics), stop.clone());
        Self { source, prefetched: None, body_fetcher, watchdog, writer, metrics, stop }
    }

    /// Runs steps until told to stop, then gives unrecorded deliveries back to the broker for the other recorders.
    pub async fn run(mut self) -> Result<(), SetupError> {
        while self.step().await? != Step::Stopped {}
        let prefetched = self.prefetched.and_then(Result::ok).map(|ready| ready.deliveries);
        self.source.close(prefetched).await;
        Ok(())
    }

    /// Runs one step: waits for a batch, writes the batch, acknowledges the batch. After a reconnect, rereads the
    /// stream first.
    pub async fn step(&mut self) -> Result<Step, SetupError> {
        let stop = self.stop.clone();
        let ReceivedBatch { deliveries, decoded } = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(Step::Stopped),
            connection = self.watchdog.reconnected() => return self.reread_after_reconnect(connection).await,
            ready = next_received(&mut self.source, &mut self.prefetched) => ready?,
        };
        let began = Instant::now();
        let Some((batch, outcome)) = self.write_and_prefetch(&deliveries, decoded).await else {
            deliveries.negative_acknowledge().await;
            return Ok(Step::Stopped);
        };
        deliveries.acknowledge().await;
        self.report(&batch, outcome, began);
        Ok(Step::Recorded)
    }

    /// Writes a batch and meanwhile receives the next batch into `prefetched`. Returns `None` if told to stop before
    /// the whole batch was written.
    async fn write_and_prefetch(
        &mut self,
        deliveries: &Deliveries,
        decoded: Option<JoinHandle<Option<(Batch, Changes)>>>,
    ) -> Option<(Batch, BatchOutcome)> {
        let Self { source, prefetched, body_fetcher, writer, stop, .. } = self;
        let recording = async {
            let decoded = match decoded {
                Some(opening) => opening.await.ok().flatten(),
                None => None,
            };
            let (batch, changes) = match decoded {
                Some(decoded) => decoded,
                None => stop.run_until_cancelled(decode_and_project(deliveries, body_fetcher)).await?,
            };
            let outcome = writer.write_batch(&batch, changes).await?;
            Some((batch, outcome))
        };
        tokio::pin!(recording);
        let mut progress = interval_at(tokio::time::Instant::now() + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
        loop {
            tokio::select! {
                biased;
                outcome = &mut recording => return outcome,
                next = source.next_full(), if prefetched.is_none() => {
                    *prefetched = Some(next.map(|deliveries| ReceivedBatch { decoded: Some(decode_in_background(&deliveries, body_fetcher)), deliveries }));
                }
                _ = progress.tick() => {
                    deliveries.report_progress().await;
                    if let Some(Ok(prefetched)) = prefetched {
                        prefetched.deliveries.report_progress().await;
                    }
                }
            }
        }
    }

    /// Rereads, on a new connection to the broker, the part of the stream that the consumer may wrongly believe
    /// delivered. See `consumer_watchdog`.
    async fn reread_after_reconnect(&self, connection: ConnectionId) -> Result<Step, SetupError> {
        let (after, through) = match self.watchdog.check().await {
            Ok(CheckOutcome::Consistent { after, through }) => (after, through),
            // The new consumer delivers the whole stream again, so no reread is needed.
            Ok(CheckOutcome::ConsumerRecreated) => {
                self.watchdog.mark_reread(connection);
                return Ok(Step::Reread);
            }
            Ok(CheckOutcome::Busy) => return Ok(self.retry_reread_later("another recorder holds the lock").await),
            Err(CheckError::Setup(error)) if !matches!(error, SetupError::Unavailable(_)) => return Err(error),
            Err(error) => return Ok(self.retry_reread_later(&error.to_string()).await),
        };
        Ok(match self.stop.run_until_cancelled(self.reread(after, through)).await {
            None => Step::Stopped,
            Some(Ok(())) => {
                self.watchdog.mark_reread(connection);
                Step::Reread
            }
            Some(Err(error)) => self.retry_reread_later(&error.to_string()).await,
        })
    }

    async fn retry_reread_later(&self, error: &str) -> Step {
        tracing::debug!(error, "the stream could not be reread after a reconnect: trying again");
        match self.stop.run_until_cancelled(sleep(RETRY_INTERVAL)).await {
            Some(()) => Step::Reread,
            None => Step::Stopped,
        }
    }

    /// Records the events with sequences after `after`, up to and including `through`.
    async fn reread(&self, after: u64, through: u64) -> Result<(), LogError> {
        if after >= through {
            return Ok(());
        }
        let range = LogRange {
            from: RangeStart::Sequence(after + 1),
            to: Some(through),
            subjects: Vec::new(),
            end: RangeEnd::Stop,
        };
        let mut log = LogReader::open(self.watchdog.client(), range).await?;
        let (limits, mut total) = (self.source.limits(), 0);
        loop {
            let (mut deliveries, mut batch_size) = (Vec::new(), BatchSize::default());
            while batch_size.has_room(&limits)
                && let Some(delivery) = log.next().await?
            {
                batch_size.add(delivery.size());
                deliveries.push(delivery);
            }
            if deliveries.is_empty() {
                break;
            }
            total += deliveries.len();
            self.metrics.read_again.inc_by(deliveries.len() as u64);
            // On a stop, the reread is abandoned; the next recorder repeats the reread from the mark.
            let stopped = || LogError::Unavailable("the recorder is stopping".to_owned());
            let decoded = self
                .stop
                .run_until_cancelled(decode_and_project(&Deliveries::new(deliveries), &self.body_fetcher))
                .await;
            let (batch, changes) = decoded.ok_or_else(stopped)?;
            self.writer.write_batch(&batch, changes).await.ok_or_else(stopped)?;
        }
        tracing::info!(after, through, events = total, "events were read again");
        Ok(())
    }

    fn report(&self, batch: &Batch, outcome: BatchOutcome, began: Instant) {
        let duration = began.elapsed();
        let refused = outcome.quarantined.saturating_sub(batch.undecodable.len());
        let duplicates = batch.events.len().saturating_sub(outcome.applied.events + refused);
        let oldest = batch.events.iter().map(Event::time).min();
        let lag = oldest.map_or(0.0, |at| (OffsetDateTime::now_utc() - at).as_seconds_f64());
        let pending = batch.pending();
        for event in &batch.events {
            self.metrics.events.get_or_create(&KindLabel { kind: event.kind().subject_token() }).inc();
        }
        self.metrics.batches.inc();
        self.metrics.duplicates.inc_by(duplicates as u64);
        self.metrics.quarantined.inc_by(outcome.quarantined as u64);
        self.metrics.pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
        self.metrics.lag.set(lag);
        self.metrics.duration.observe(duration.as_secs_f64());
        tracing::info!(
            events = batch.len(),
            applied = outcome.applied.events,
            duplicates,
            user_messages = outcome.applied.user_messages,
            assistant_messages = outcome.applied.assistant_messages,
            quarantined = outcome.quarantined,
            retries = outcome.retries,
            pending,
            lag_ms = (lag * 1000.0).round(),
            duration_ms = duration.as_secs_f64() * 1000.0,
            "batch recorded"
        );
    }
}

/// Returns the prefetched batch, or else waits for the next batch of the source.
async fn next_received(
    source: &mut Source,
    prefetched: &mut Option<Result<ReceivedBatch, SetupError>>,
) -> Result<ReceivedBatch, SetupError> {
    match prefetched.take() {
        Some(ready) => ready,
        None => Ok(ReceivedBatch { deliveries: source.next().await?, decoded: None }),
    }
}

/// Decodes and projects deliveries on a blocking thread; gives `None` if a body must first be fetched. On the current
/// thread, the work would hold up the write of the previous batch, and PostgreSQL would be idle.
fn decode_in_background(deliveries: &Deliveries, body_fetcher: &BodyFetcher) -> JoinHandle<Option<(Batch, Changes)>> {
    let (deliveries, body_fetcher) = (deliveries.clone(), body_fetcher.clone());
    spawn_blocking(move || decode_and_project(&deliveries, &body_fetcher).now_or_never())
}

/// Fetches missing bodies, then decodes and projects the deliveries.
async fn decode_and_project(deliveries: &Deliveries, body_fetcher: &BodyFetcher) -> (Batch, Changes) {
    let batch = deliveries.fetch_and_decode(body_fetcher).await;
    let changes = project(&batch.events);
    (batch, changes)
}
