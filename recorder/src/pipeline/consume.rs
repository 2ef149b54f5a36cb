//! The pipeline: from the broker into the tables, batch by batch.
//!
//! A batch is acknowledged after all of it has been committed, or put aside whole. A database that is away stops the line,
//! never an event; an event that the database refuses is put aside, and never stops the line. While PostgreSQL works on one
//! batch, the next is gathered, read and projected.

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
use crate::pipeline::batch_writer::{Record, Recorded};
use crate::pipeline::consumer_watchdog::{CheckError, Checked, Connection, Watchdog};
use crate::policy::batch::Fill;
use crate::projection::{Changes, project};
use crate::source::bodies::Bodies;
use crate::source::log::{Ending, Log, LogError, Span, Start};
use crate::source::setup::SetupError;
use crate::source::{Batch, Gathered, PROGRESS, Source};

/// Between two tries to see where the broker stands.
const PAUSE: Duration = Duration::from_millis(500);

/// A worker that records what the source gives.
pub struct Consume {
    source: Source,
    /// What was gathered while the batch before it was written.
    ahead: Option<Result<Ready, SetupError>>,
    bodies: Bodies,
    watchdog: Watchdog,
    record: Record,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A batch was recorded.
    Recorded,
    /// The broker was looked at, instead.
    LookedAgain,
    /// There will be no more.
    Stopped,
}

/// Deliveries, and what they say, once that is read; none if something has to be fetched first.
struct Ready {
    gathered: Gathered,
    opened: Option<JoinHandle<Option<(Batch, Changes)>>>,
}

impl Consume {
    /// A worker that stops when it is told to, between two batches.
    pub fn new(
        source: Source,
        watchdog: Watchdog,
        pool: PgPool,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Self {
        let bodies = Bodies::new(watchdog.client());
        let record = Record::new(pool, Arc::clone(&metrics), stop.clone());
        Self { source, ahead: None, bodies, watchdog, record, metrics, stop }
    }

    /// Records until it is told to stop.
    pub async fn run(mut self) -> Result<(), SetupError> {
        while self.step().await? != Step::Stopped {}
        let ahead = self.ahead.and_then(Result::ok).map(|ready| ready.gathered);
        self.source.close(ahead).await;
        Ok(())
    }

    /// Records one batch: waits for it, writes it, acknowledges it.
    pub async fn step(&mut self) -> Result<Step, SetupError> {
        let stop = self.stop.clone();
        let Ready { gathered, opened } = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(Step::Stopped),
            connection = self.watchdog.reconnected() => return self.look_again(connection).await,
            ready = ready(&mut self.source, &mut self.ahead) => ready?,
        };
        let began = Instant::now();
        let Some((batch, recorded)) = self.record_and_gather(&gathered, opened).await else {
            gathered.give_back().await;
            return Ok(Step::Stopped);
        };
        gathered.acknowledge().await;
        self.report(&batch, recorded, began);
        Ok(Step::Recorded)
    }

    /// Records this, and gathers the next batch meanwhile. None if told to stop before all of it was written.
    async fn record_and_gather(
        &mut self,
        gathered: &Gathered,
        opened: Option<JoinHandle<Option<(Batch, Changes)>>>,
    ) -> Option<(Batch, Recorded)> {
        let Self { source, ahead, bodies, record, stop, .. } = self;
        let recording = async {
            let opened = match opened {
                Some(opening) => opening.await.ok().flatten(),
                None => None,
            };
            let (batch, changes) = match opened {
                Some(opened) => opened,
                None => stop.run_until_cancelled(open(gathered, bodies)).await?,
            };
            let recorded = record.record(&batch, changes).await?;
            Some((batch, recorded))
        };
        tokio::pin!(recording);
        let mut progress = interval_at(tokio::time::Instant::now() + PROGRESS, PROGRESS);
        loop {
            tokio::select! {
                biased;
                recorded = &mut recording => return recorded,
                next = source.next_full(), if ahead.is_none() => {
                    *ahead = Some(next.map(|gathered| Ready { opened: Some(open_ahead(&gathered, bodies)), gathered }));
                }
                _ = progress.tick() => {
                    gathered.hold().await;
                    if let Some(Ok(ahead)) = ahead {
                        ahead.gathered.hold().await;
                    }
                }
            }
        }
    }

    /// The connection to the broker is new: reads again what the consumer may pass over, whatever it says. See `consumer_watchdog`.
    async fn look_again(&self, connection: Connection) -> Result<Step, SetupError> {
        let (after, through) = match self.watchdog.check().await {
            Ok(Checked::Sound { after, through }) => (after, through),
            // Everything is delivered again.
            Ok(Checked::Healed) => {
                self.watchdog.looked_through(connection);
                return Ok(Step::LookedAgain);
            }
            Ok(Checked::Busy) => return Ok(self.look_later("another recorder is at it").await),
            Err(CheckError::Setup(error)) if !matches!(error, SetupError::Unavailable(_)) => return Err(error),
            Err(error) => return Ok(self.look_later(&error.to_string()).await),
        };
        Ok(match self.stop.run_until_cancelled(self.read_again(after, through)).await {
            None => Step::Stopped,
            Some(Ok(())) => {
                self.watchdog.looked_through(connection);
                Step::LookedAgain
            }
            Some(Err(error)) => self.look_later(&error.to_string()).await,
        })
    }

    async fn look_later(&self, error: &str) -> Step {
        tracing::debug!(error, "the stream could not be looked through yet");
        match self.stop.run_until_cancelled(sleep(PAUSE)).await {
            Some(()) => Step::LookedAgain,
            None => Step::Stopped,
        }
    }

    /// Records the events after this place, through that one.
    async fn read_again(&self, after: u64, through: u64) -> Result<(), LogError> {
        if after >= through {
            return Ok(());
        }
        let span =
            Span { from: Start::Sequence(after + 1), to: Some(through), subjects: Vec::new(), ending: Ending::Stop };
        let mut log = Log::open(self.watchdog.client(), span).await?;
        let (limits, mut total) = (self.source.limits(), 0);
        loop {
            let (mut gathered, mut fill) = (Vec::new(), Fill::default());
            while fill.has_room(&limits)
                && let Some(delivery) = log.next().await?
            {
                fill.add(delivery.bytes());
                gathered.push(delivery);
            }
            if gathered.is_empty() {
                break;
            }
            total += gathered.len();
            self.metrics.read_again.inc_by(gathered.len() as u64);
            // Told to stop: this reading goes for nothing, and the next recorder does it again.
            let stopped = || LogError::Unavailable("the recorder stops".to_owned());
            let opened = self.stop.run_until_cancelled(open(&Gathered::new(gathered), &self.bodies)).await;
            let (batch, changes) = opened.ok_or_else(stopped)?;
            self.record.record(&batch, changes).await.ok_or_else(stopped)?;
        }
        tracing::info!(after, through, events = total, "events were read again");
        Ok(())
    }

    fn report(&self, batch: &Batch, recorded: Recorded, began: Instant) {
        let duration = began.elapsed();
        let refused = recorded.quarantined.saturating_sub(batch.undecodable.len());
        let duplicates = batch.events.len().saturating_sub(recorded.applied.applied + refused);
        let oldest = batch.events.iter().map(Event::time).min();
        let lag = oldest.map_or(0.0, |at| (OffsetDateTime::now_utc() - at).as_seconds_f64());
        let pending = batch.pending();
        for event in &batch.events {
            self.metrics.events.get_or_create(&KindLabel { kind: event.kind().subject_token() }).inc();
        }
        self.metrics.batches.inc();
        self.metrics.duplicates.inc_by(duplicates as u64);
        self.metrics.quarantined.inc_by(recorded.quarantined as u64);
        self.metrics.pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
        self.metrics.lag.set(lag);
        self.metrics.duration.observe(duration.as_secs_f64());
        tracing::info!(
            events = batch.len(),
            applied = recorded.applied.applied,
            duplicates,
            user_messages = recorded.applied.user_messages,
            assistant_messages = recorded.applied.assistant_messages,
            quarantined = recorded.quarantined,
            retries = recorded.retries,
            pending,
            lag_ms = (lag * 1000.0).round(),
            duration_ms = duration.as_secs_f64() * 1000.0,
            "batch recorded"
        );
    }
}

/// What was gathered ahead, or else the next there is.
async fn ready(source: &mut Source, ahead: &mut Option<Result<Ready, SetupError>>) -> Result<Ready, SetupError> {
    match ahead.take() {
        Some(ready) => ready,
        None => Ok(Ready { gathered: source.next().await?, opened: None }),
    }
}

/// What deliveries say, and come to, unless something has to be fetched first. It is read on a thread of its own: on this one, the
/// batch before it would wait, and PostgreSQL with it.
fn open_ahead(gathered: &Gathered, bodies: &Bodies) -> JoinHandle<Option<(Batch, Changes)>> {
    let (gathered, bodies) = (gathered.clone(), bodies.clone());
    spawn_blocking(move || open(&gathered, &bodies).now_or_never())
}

/// What deliveries say, and come to.
async fn open(gathered: &Gathered, bodies: &Bodies) -> (Batch, Changes) {
    let batch = gathered.open(bodies).await;
    let changes = project(&batch.events);
    (batch, changes)
}
