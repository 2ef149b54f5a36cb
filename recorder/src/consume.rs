//! The pipeline: from the broker into the tables, batch by batch.
//!
//! A batch is acknowledged after all of it has been committed, or put aside whole. A database that is away stops the line,
//! never an event; an event that the database refuses is put aside, and never stops the line.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::event::Event;
use sqlx::postgres::PgPool;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::batch::Fill;
use crate::disposition::{Disposition, pause};
use crate::metrics::{KindLabel, Metrics, ReasonLabel};
use crate::reads::live;
use crate::source::bodies::Bodies;
use crate::source::log::{Ending, Log, LogError, Span, Start};
use crate::source::setup::SetupError;
use crate::source::{Batch, Gathered, Source};
use crate::store::quarantine::{Quarantined, Reason};
use crate::store::{self, Applied};
use crate::watchdog::{CheckError, Checked, Connection, Watchdog};

/// How long a transaction may take. The database itself ends a statement after half of that.
const LONGEST_WRITE: Duration = Duration::from_secs(60);

/// Between two tries to see where the broker stands.
const PAUSE: Duration = Duration::from_millis(500);

/// A worker that records what the source gives.
pub struct Consume {
    source: Source,
    bodies: Bodies,
    watchdog: Watchdog,
    pool: PgPool,
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

/// What recording a batch came to.
#[derive(Clone, Copy, Debug, Default)]
struct Recorded {
    applied: Applied,
    quarantined: usize,
    retries: u32,
}

/// A part of a batch that is still to be done, in a transaction of its own.
enum Part {
    Events(Range<usize>),
    PutAside(Box<Quarantined>),
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
        Self { source, bodies: Bodies::new(watchdog.client()), watchdog, pool, metrics, stop }
    }

    /// Records until it is told to stop.
    pub async fn run(mut self) -> Result<(), SetupError> {
        while self.step().await? != Step::Stopped {}
        self.source.close().await;
        Ok(())
    }

    /// Records one batch: waits for it, writes it, acknowledges it.
    pub async fn step(&mut self) -> Result<Step, SetupError> {
        let stop = self.stop.clone();
        let gathered = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(Step::Stopped),
            connection = self.watchdog.reconnected() => return self.look_again(connection).await,
            gathered = self.source.next() => gathered?,
        };
        let began = Instant::now();
        let Some((batch, recorded)) = gathered.held_while(self.open_and_record(&gathered)).await else {
            gathered.give_back().await;
            return Ok(Step::Stopped);
        };
        gathered.acknowledge().await;
        self.report(&batch, recorded, began);
        Ok(Step::Recorded)
    }

    /// The connection to the broker is new: reads again what the consumer may pass over, whatever it says. See `watchdog`.
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
        match self.stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await {
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
            self.open_and_record(&Gathered::new(gathered)).await.ok_or_else(stopped)?;
        }
        tracing::info!(after, through, events = total, "events were read again");
        Ok(())
    }

    /// Reads what was gathered, and writes it. None if told to stop before all of it was.
    async fn open_and_record(&self, gathered: &Gathered) -> Option<(Batch, Recorded)> {
        let batch = self.stop.run_until_cancelled(gathered.open(&self.bodies)).await?;
        let recorded = self.record(&batch).await?;
        Some((batch, recorded))
    }

    /// Writes a batch, all of it; or nothing is certain, if told to stop while the database is away.
    async fn record(&self, batch: &Batch) -> Option<Recorded> {
        let mut recorded = Recorded::default();
        let mut left = parts(batch);
        let mut attempt = 0;
        while let Some(part) = left.pop() {
            let Err(error) = self.write(batch, &part, &mut recorded).await else {
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

    async fn write(&self, batch: &Batch, part: &Part, recorded: &mut Recorded) -> Result<(), sqlx::Error> {
        match part {
            Part::Events(range) => {
                let events = &batch.events[range.clone()];
                let applied = in_time(store::apply(&self.pool, events)).await?;
                // Before the acknowledgement: whoever gets these events again says it again. The record does not wait for it.
                if let Err(error) = in_time(live::announce(&self.pool, events, shared::event::now())).await {
                    tracing::warn!(error = store::describe(&error), "open pages are not told of a batch");
                }
                recorded.applied.applied += applied.applied;
                recorded.applied.user_messages += applied.user_messages;
                recorded.applied.assistant_messages += applied.assistant_messages;
            }
            Part::PutAside(event) => {
                in_time(store::quarantine(&self.pool, event)).await?;
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
