//! The pipeline: moves events from the broker into the tables, batch by batch.
//!
//! A batch is acknowledged only after every event was committed to the tables or to the quarantine. An unavailable
//! database stops the pipeline and never puts an event into quarantine. An event refused by the database goes into
//! quarantine and never stops the pipeline. While PostgreSQL writes one batch, the pipeline receives, decodes and
//! projects the next batch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::event::Event;
use shared::traces::Tracer;
use sqlx::postgres::PgPool;
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{interval_at, sleep};
use tokio_util::sync::CancellationToken;

use crate::access::bucket::AccessBucket;
use crate::metrics::{KindLabel, Metrics};
use crate::pipeline::awaited_bodies::AwaitedBodies;
use crate::pipeline::batch_writer::{BatchOutcome, BatchWriter};
use crate::pipeline::consumer_watchdog::{CheckError, CheckOutcome, ConnectionId, ConsumerWatchdog};
use crate::policy::batch::BatchSize;
use crate::policy::blockage::Blockage;
use crate::projection::{Changes, project};
use crate::source::batch::{Batch, Deliveries};
use crate::source::bodies::BodyFetcher;
use crate::source::log::{LogError, LogRange, LogReader, RangeEnd, RangeStart};
use crate::source::setup::SetupError;
use crate::source::{MAX_ABSENCE_AT_START, PROGRESS_INTERVAL, Source};

/// The maximum room for large bodies, in KiB: within the number of permits of a semaphore.
const MAX_PERMITS: u32 = 1 << 28;

/// The pause between two tries to reread the stream after a reconnect.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// A worker that records the source's batches.
pub struct Pipeline {
    intake: Intake,
    /// The next batch, received while the previous batch was written.
    prefetched: Option<Result<ReceivedBatch, SetupError>>,
    watchdog: ConsumerWatchdog,
    writer: BatchWriter,
    access: Arc<AccessBucket>,
    metrics: Arc<Metrics>,
    blockage: Arc<Blockage>,
    /// The time of the first check that found no stream or consumer; `None` after a check that found both.
    missing_since: Option<Instant>,
    /// True after a check found the stream and the consumer: a recorder that has run waits for a missing stream.
    has_run: bool,
    stop: CancellationToken,
}

/// The sources of batches: new events, and events whose large bodies can be fetched at last.
struct Intake {
    source: Source,
    awaited: AwaitedBodies,
    body_fetcher: BodyFetcher,
    /// The room in memory for large bodies, in KiB: two batches. A larger body takes all of the room.
    body_room: Arc<Semaphore>,
    max_room: u32,
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

/// A received batch: the deliveries, and a task that fetches, decodes and projects them. `decoded` is `None` if no task
/// was started.
struct ReceivedBatch {
    deliveries: Deliveries,
    decoded: Option<JoinHandle<DecodedBatch>>,
}

/// A batch that is ready to be written.
struct DecodedBatch {
    batch: Batch,
    changes: Changes,
    /// The room for the large bodies of the batch. Their content is in the events and the changes until the batch is
    /// written.
    _room: Option<OwnedSemaphorePermit>,
}

impl Pipeline {
    /// Returns the bucket to which the pipeline writes the keys of its events.
    pub fn access(&self) -> Arc<AccessBucket> {
        Arc::clone(&self.access)
    }

    /// Creates a pipeline that stops between two batches when `stop` is cancelled.
    pub fn new(
        source: Source,
        watchdog: ConsumerWatchdog,
        pool: PgPool,
        metrics: Arc<Metrics>,
        blockage: Arc<Blockage>,
        (stop, tracer): (CancellationToken, Tracer),
    ) -> Self {
        let body_fetcher = BodyFetcher::new(watchdog.client());
        let access = Arc::new(AccessBucket::new(watchdog.client()));
        let writer = BatchWriter::new(
            pool,
            Arc::clone(&access),
            body_fetcher.clone(),
            Arc::clone(&metrics),
            Arc::clone(&blockage),
            stop.clone(),
            tracer,
        );
        let awaited = AwaitedBodies::new(BodyFetcher::new(watchdog.client()), source.limits(), Arc::clone(&metrics));
        let intake = Intake::new(source, awaited, body_fetcher);
        Self {
            intake,
            prefetched: None,
            watchdog,
            writer,
            access,
            metrics,
            blockage,
            missing_since: None,
            has_run: false,
            stop,
        }
    }

    /// Runs steps until told to stop, then gives unrecorded deliveries back to the broker for the other recorders.
    pub async fn run(mut self) -> Result<(), SetupError> {
        while self.step().await? != Step::Stopped {}
        let prefetched = self.prefetched.and_then(Result::ok).map(|ready| ready.deliveries);
        self.intake.close(prefetched).await;
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
            ready = self.intake.next_received(&mut self.prefetched) => ready?,
        };
        let began = Instant::now();
        self.blockage.batch_started(began);
        let written = self.write_and_prefetch(&deliveries, decoded).await;
        self.blockage.batch_ended();
        let Some((mut batch, outcome)) = written else {
            deliveries.negative_acknowledge().await;
            return Ok(Step::Stopped);
        };
        let bodiless = std::mem::take(&mut batch.bodiless);
        deliveries.without(&bodiless).acknowledge().await;
        self.intake.awaited.add(bodiless).await;
        self.report(&batch, outcome, began);
        Ok(Step::Recorded)
    }

    /// Writes a batch and meanwhile receives the next batch into `prefetched`. Returns `None` if told to stop before
    /// the whole batch was written.
    async fn write_and_prefetch(
        &mut self,
        deliveries: &Deliveries,
        decoded: Option<JoinHandle<DecodedBatch>>,
    ) -> Option<(Batch, BatchOutcome)> {
        let Self { intake, prefetched, writer, stop, .. } = self;
        let decoding = match decoded {
            Some(decoding) => decoding,
            None => intake.decode_in_background(deliveries),
        };
        let recording = async {
            let decoded = stop.run_until_cancelled(decoding).await?;
            let DecodedBatch { batch, changes, _room } =
                decoded.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
            let outcome = writer.write_batch(&batch, changes).await?;
            Some((batch, outcome))
        };
        tokio::pin!(recording);
        let mut progress = interval_at(tokio::time::Instant::now() + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
        loop {
            tokio::select! {
                biased;
                outcome = &mut recording => return outcome,
                next = intake.next_full(), if prefetched.is_none() => {
                    *prefetched = Some(next.map(|deliveries| {
                        let decoded = Some(intake.decode_in_background(&deliveries));
                        ReceivedBatch { decoded, deliveries }
                    }));
                }
                _ = progress.tick() => {
                    deliveries.report_progress().await;
                    if let Some(Ok(prefetched)) = prefetched {
                        prefetched.deliveries.report_progress().await;
                    }
                    intake.source.report_progress().await;
                }
            }
        }
    }

    /// Rereads, on a new connection to the broker, the part of the stream that the consumer may wrongly believe
    /// delivered. See `consumer_watchdog`.
    async fn reread_after_reconnect(&mut self, connection: ConnectionId) -> Result<Step, SetupError> {
        let (after, through) = match self.watchdog.check().await {
            Ok(CheckOutcome::Consistent { after, through }) => {
                (self.missing_since, self.has_run) = (None, true);
                self.blockage.stream_found();
                (after, through)
            }
            // The new consumer delivers the whole stream again, so no reread is needed.
            Ok(CheckOutcome::ConsumerRecreated) => {
                self.watchdog.mark_reread(connection);
                return Ok(Step::Reread);
            }
            Ok(CheckOutcome::Busy) => return Ok(self.retry_reread_later("another recorder holds the lock").await),
            Err(CheckError::Setup(error @ SetupError::Missing(_))) => return self.wait_for_missing(error).await,
            // A recorder that runs does not end: `settings_watch` says what differs, and rereading waits until it is set right.
            Err(CheckError::Setup(error @ SetupError::Differs { .. })) if !self.has_run => return Err(error),
            Err(error) => return Ok(self.retry_reread_later(&error.to_string()).await),
        };
        let stop = self.stop.clone();
        Ok(match stop.run_until_cancelled(self.reread(after, through)).await {
            None => Step::Stopped,
            Some(Ok(())) => {
                self.watchdog.mark_reread(connection);
                Step::Reread
            }
            Some(Err(error)) => self.retry_reread_later(&error.to_string()).await,
        })
    }

    /// Waits for a missing stream, consumer or bucket. At the start, the wait is short: a recorder that was never set up
    /// must say so and end. A recorder that has run waits for ever.
    async fn wait_for_missing(&mut self, error: SetupError) -> Result<Step, SetupError> {
        let is_first = self.missing_since.is_none();
        let since = *self.missing_since.get_or_insert_with(Instant::now);
        if !self.has_run && since.elapsed() >= MAX_ABSENCE_AT_START {
            return Err(error);
        }
        self.blockage.stream_missing();
        if is_first && self.has_run {
            tracing::error!(%error, "nothing can be recorded: waiting until it is there again");
        }
        Ok(self.retry_reread_later(&error.to_string()).await)
    }

    async fn retry_reread_later(&self, error: &str) -> Step {
        tracing::debug!(error, "the stream could not be reread after a reconnect: trying again");
        match self.stop.run_until_cancelled(sleep(RETRY_INTERVAL)).await {
            Some(()) => Step::Reread,
            None => Step::Stopped,
        }
    }

    /// Records the events with sequences after `after`, up to and including `through`.
    async fn reread(&mut self, after: u64, through: u64) -> Result<(), LogError> {
        if after >= through {
            return Ok(());
        }
        let range = LogRange {
            from: RangeStart::Sequence(after + 1),
            to: Some(through),
            subjects: Vec::new(),
            end: RangeEnd::Stop,
        };
        let mut log = LogReader::open_without_bodies(self.watchdog.client(), range).await?;
        let (limits, mut total) = (self.intake.source.limits(), 0);
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
            let decoding = Deliveries::new(deliveries);
            let decoding = decoding.fetch_and_decode(&self.intake.body_fetcher);
            let mut batch = self.stop.run_until_cancelled(decoding).await.ok_or_else(stopped)?;
            self.intake.awaited.add(std::mem::take(&mut batch.bodiless)).await;
            let changes = project(&batch.events);
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
        if !batch.is_empty() {
            self.metrics.last_commit.set(OffsetDateTime::now_utc().unix_timestamp());
        }
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

// === impl Intake ===

impl Intake {
    fn new(source: Source, awaited: AwaitedBodies, body_fetcher: BodyFetcher) -> Self {
        let max_room = kibibytes(2 * source.limits().bytes).max(1);
        Self { source, awaited, body_fetcher, body_room: Arc::new(Semaphore::new(max_room as usize)), max_room }
    }

    /// Returns the prefetched batch, or else waits for the next batch.
    async fn next_received(
        &mut self,
        prefetched: &mut Option<Result<ReceivedBatch, SetupError>>,
    ) -> Result<ReceivedBatch, SetupError> {
        if let Some(ready) = prefetched.take() {
            return ready;
        }
        let deliveries = tokio::select! {
            biased;
            deliveries = self.awaited.next() => deliveries,
            deliveries = self.source.next() => deliveries?,
        };
        Ok(ReceivedBatch { deliveries, decoded: None })
    }

    /// Waits for a full batch, or for events whose bodies can be fetched at last. Cancel safe.
    async fn next_full(&mut self) -> Result<Deliveries, SetupError> {
        tokio::select! {
            biased;
            deliveries = self.awaited.next() => Ok(deliveries),
            deliveries = self.source.next_full() => deliveries,
        }
    }

    /// Fetches, decodes and projects deliveries in the background. On the pipeline's own task, the work would hold up
    /// the write of the previous batch, and PostgreSQL would be idle. Large bodies wait for room in memory.
    fn decode_in_background(&self, deliveries: &Deliveries) -> JoinHandle<DecodedBatch> {
        let (deliveries, body_fetcher) = (deliveries.clone(), self.body_fetcher.clone());
        let Some(body_bytes) = deliveries.body_bytes() else {
            return spawn_blocking(move || {
                let batch = deliveries.decode();
                DecodedBatch { changes: project(&batch.events), batch, _room: None }
            });
        };
        let wanted = kibibytes(body_bytes).min(self.max_room);
        let room = Arc::clone(&self.body_room);
        tokio::spawn(async move {
            // The semaphore is never closed, so the room is always given.
            let room = room.acquire_many_owned(wanted).await.ok();
            let batch = deliveries.fetch_and_decode(&body_fetcher).await;
            DecodedBatch { changes: project(&batch.events), batch, _room: room }
        })
    }

    /// Gives every delivery that is not recorded back to the broker.
    async fn close(self, prefetched: Option<Deliveries>) {
        self.awaited.close().await;
        self.source.close(prefetched).await;
    }
}

fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(MAX_PERMITS)
}
