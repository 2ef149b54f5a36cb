//! The relay: moves the journal to JetStream, and lets go of an event only when the broker says that it has it.
//!
//! Acknowledgements come to an inbox of the relay's own, not through the client library's request machinery: that leaks a
//! little with every publish that is never answered, and wakes one task more for each. What the library loses when a
//! connection breaks is published again; the broker tells repeated events by their id, and so do the recorders.

mod bodies;
mod broker;
mod publish;
mod regression;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::{Client, Message};
use futures_util::{FutureExt as _, StreamExt as _};
use rand::RngExt as _;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

pub use broker::{BrokerHealth, connect};

use crate::journal::{Acknowledged, Cursor, Entry, Outlet, Released, Source};
use crate::metrics::Metrics;
use bodies::{StoreError, Uploads};
use publish::{Answer, Sent, Templates};
use regression::Finding;

/// How many events may be without acknowledgement at once, and how many bytes.
const MAX_IN_FLIGHT: usize = 512;
const MAX_BYTES_IN_FLIGHT: usize = 16 << 20;

/// How many events are taken over at once, and how many bytes from the disk.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 1 << 20;

/// How long an acknowledgement may take before the event is published again. A cluster that elects a leader takes 4 to 8 s.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// How often overdue events are looked for, and progress is written down.
const TICK: Duration = Duration::from_millis(100);

/// How often the broker is asked whether it still has what it had.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// How long an event waits that the broker finds too large.
const OVERSIZED_WAIT: Duration = Duration::from_secs(60);

/// How many events too large for the broker are set aside at once, and how many bytes. Beyond that nothing is published until
/// the first of them has waited.
const MAX_OVERSIZED: usize = 1000;
const MAX_BYTES_OVERSIZED: usize = 64 << 20;

/// Moves events to the broker until the journal is closed and everything is acknowledged.
pub struct Relay {
    client: Client,
    outlet: Outlet,
    health: Arc<BrokerHealth>,
    metrics: Arc<Metrics>,
    inbox: String,
    templates: Templates,
    /// What is without acknowledgement, by number: the first is the oldest.
    in_flight: BTreeMap<u64, InFlight>,
    bytes_in_flight: usize,
    /// Bodies that do not fit into a message.
    uploads: Uploads,
    /// What the broker finds too large, and when to try it again.
    oversized: BTreeMap<u64, (Entry, Instant)>,
    bytes_oversized: usize,
    /// Everything below this number has been taken from the journal.
    taken_below: u64,
    /// Where the disk is read, while the relay is behind.
    cursor: Option<Cursor>,
    /// What the broker has lost, while it is published again. Until it has all of it, what is written down of the broker stays
    /// as it was: a gateway that is killed meanwhile finds the same, and begins again.
    again: Option<Again>,
    /// The question to the broker whether it still has what it had.
    looking: Option<JoinHandle<Option<Finding>>>,
    looked_at: Instant,
    released: Released,
}

/// A broker that went back, and what it is told again.
struct Again {
    /// Where released events are read; none when all have been.
    cursor: Option<Cursor>,
    /// When its stream was made.
    stream_created: i64,
    /// The last event that it has acknowledged since.
    newest: Option<Acknowledged>,
}

struct InFlight {
    entry: Entry,
    since: Instant,
    /// When to publish it again, if nothing has been heard by then.
    again_at: Instant,
    tries: u32,
    why: Why,
}

/// Why an event is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// The broker has not had it.
    New,
    /// It was released, and the broker has lost it.
    Lost,
}

/// Which events to publish again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// The connection is new: whatever was on the old one may be lost.
    Everything,
    /// No acknowledgement in time.
    Overdue,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("in_flight", &self.in_flight.len()).finish_non_exhaustive()
    }
}

impl Relay {
    /// A relay for this journal.
    pub fn new(client: Client, outlet: Outlet, health: Arc<BrokerHealth>, metrics: Arc<Metrics>) -> Self {
        let inbox = client.new_inbox();
        let released = outlet.released();
        Self {
            client,
            outlet,
            health,
            metrics,
            inbox,
            templates: Templates::default(),
            in_flight: BTreeMap::new(),
            bytes_in_flight: 0,
            uploads: Uploads::default(),
            oversized: BTreeMap::new(),
            bytes_oversized: 0,
            taken_below: released.below,
            cursor: None,
            again: None,
            looking: None,
            looked_at: Instant::now(),
            released,
        }
    }

    /// Runs until the journal is closed and everything is acknowledged.
    pub async fn run(mut self) -> Result<(), async_nats::SubscribeError> {
        let mut acks = self.client.subscribe(format!("{}.*", self.inbox)).await?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !(self.in_flight.is_empty() && self.outlet.is_done()) {
            let outlet = self.outlet.clone();
            let health = Arc::clone(&self.health);
            tokio::select! {
                Some(ack) = acks.next() => {
                    let mut numbers = Vec::with_capacity(BATCH);
                    self.answered(&ack, &mut numbers);
                    while let Some(Some(ack)) = acks.next().now_or_never() {
                        self.answered(&ack, &mut numbers);
                    }
                    self.outlet.acknowledged(&numbers);
                }
                // Whoever is about to record something does so first: then it goes out in the same write.
                () = outlet.arrived(), if self.has_room() => tokio::task::yield_now().await,
                () = health.reconnected() => {
                    self.look();
                    self.publish_due(Due::Everything).await;
                }
                Some((number, stored)) = self.uploads.finished() => self.stored(number, stored).await,
                Some(finding) = found(&mut self.looking) => self.looked(finding),
                _ = tick.tick() => {
                    self.publish_due(Due::Overdue).await;
                    self.report();
                    if self.looked_at.elapsed() >= LOOK_INTERVAL {
                        self.look();
                    }
                }
            }
            self.fill().await;
        }
        self.report();
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.health.is_connected()
            && self.in_flight.len() < MAX_IN_FLIGHT
            && self.bytes_in_flight < MAX_BYTES_IN_FLIGHT
            && self.oversized.len() < MAX_OVERSIZED
            && self.bytes_oversized < MAX_BYTES_OVERSIZED
    }

    /// Publishes what there is to publish, as far as there is room in flight.
    async fn fill(&mut self) {
        while self.has_room() {
            let entries = match self.outlet.take(BATCH) {
                Source::InOrder(entries) => {
                    self.cursor = None;
                    self.taken(&entries);
                    entries
                }
                Source::OutOfOrder(entries) => entries,
                Source::Disk => {
                    let Some(entries) = self.read().await else { continue };
                    self.taken(&entries);
                    entries
                }
            };
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                self.publish_first(entry, Why::New).await;
            }
        }
        while self.has_room() && self.again.as_ref().is_some_and(|again| again.cursor.is_some()) {
            self.republish().await;
        }
        self.end_republication();
    }

    fn taken(&mut self, entries: &[Entry]) {
        if let Some(last) = entries.last() {
            self.taken_below = self.taken_below.max(last.number + 1);
        }
    }

    /// The next events from the disk. `None` when there are none any more, and newer ones are in memory.
    async fn read(&mut self) -> Option<Vec<Entry>> {
        let mut cursor = self.cursor.take().unwrap_or_else(|| self.outlet.cursor_at(self.taken_below));
        let outlet = self.outlet.clone();
        let read = move || {
            let batch = outlet.read(&mut cursor, BATCH, BATCH_BYTES);
            (cursor, batch)
        };
        let (cursor, batch) = tokio::task::spawn_blocking(read).await.ok()?;
        self.cursor = batch.is_some().then_some(cursor);
        batch.map(|batch| batch.entries)
    }

    /// Publishes some of the events again that the broker had and has lost.
    async fn republish(&mut self) {
        let Some(mut cursor) = self.again.as_mut().and_then(|again| again.cursor.take()) else { return };
        let outlet = self.outlet.clone();
        let read = move || {
            let batch = outlet.read_beside(&mut cursor, BATCH, BATCH_BYTES);
            (cursor, batch)
        };
        let Ok((cursor, batch)) = tokio::task::spawn_blocking(read).await else {
            // Not all has been read, so nothing is over: the next look finds what this one did, and begins again.
            self.again = None;
            return;
        };
        let entries = batch.map(|batch| batch.entries).unwrap_or_default();
        let lost = entries.len();
        let is_over = lost == 0 || entries.iter().any(|entry| entry.number >= self.taken_below);
        for entry in entries {
            let is_ours = entry.number >= self.taken_below || self.in_flight.contains_key(&entry.number);
            if !is_ours {
                self.metrics.journal_republished.inc();
                self.publish_first(entry, Why::Lost).await;
            }
        }
        if let Some(again) = &mut self.again
            && !is_over
        {
            again.cursor = Some(cursor);
        }
    }

    /// Ends publishing again, when all of it has been read and acknowledged.
    fn end_republication(&mut self) {
        let is_on_its_way =
            |again: &Again| again.cursor.is_some() || self.in_flight.values().any(|held| held.why == Why::Lost);
        if let Some(again) = self.again.take_if(|again| !is_on_its_way(again)) {
            self.released.stream_created = Some(again.stream_created);
            self.released.newest = again.newest;
            self.outlet.republished();
            tracing::warn!("what the broker had lost has been published again");
        }
    }

    async fn publish_first(&mut self, entry: Entry, why: Why) {
        let now = Instant::now();
        let number = entry.number;
        self.bytes_in_flight += entry.len();
        let again_at = now + ACK_TIMEOUT;
        if let Some(other) = self.in_flight.insert(number, InFlight { entry, since: now, again_at, tries: 0, why }) {
            self.bytes_in_flight -= other.entry.len();
        }
        self.publish(number).await;
    }

    /// Publishes again what the broker may not have.
    async fn publish_due(&mut self, due: Due) {
        if !self.health.is_connected() {
            return;
        }
        let now = Instant::now();
        let is_due = |held: &InFlight| due == Due::Everything || held.again_at <= now;
        let numbers: Vec<u64> =
            self.in_flight.iter().filter(|(_, held)| is_due(held)).map(|(number, _)| *number).collect();
        for number in numbers {
            if let Some(held) = self.in_flight.get_mut(&number) {
                held.tries += 1;
                held.again_at = now + backoff(held.tries).max(ACK_TIMEOUT);
                self.metrics.journal_retries.inc();
                self.publish(number).await;
            }
        }
        let oversized: Vec<u64> =
            self.oversized.iter().filter(|(_, (_, at))| *at <= now).map(|(number, _)| *number).collect();
        for number in oversized {
            let Some((entry, at)) = self.oversized.get_mut(&number) else { continue };
            // Behind all others, so that it does not keep the journal from being released.
            if self.outlet.put_back(entry) {
                self.bytes_oversized -= entry.len();
                self.oversized.remove(&number);
            } else {
                *at = now + OVERSIZED_WAIT;
            }
        }
    }

    async fn publish(&mut self, number: u64) {
        let Some(held) = self.in_flight.get_mut(&number) else { return };
        let mut reply = String::with_capacity(self.inbox.len() + 21);
        let _ = write!(reply, "{}.{number}", self.inbox);
        let body = self.uploads.reference(number);
        match publish::publish(&self.client, &mut self.templates, &held.entry, reply, body).await {
            Sent::Yes => {}
            Sent::NotNow(error) => {
                held.again_at = Instant::now() + backoff(held.tries);
                tracing::warn!(%error, bytes = held.entry.len(), "an event could not be published yet");
            }
            Sent::NeedsBucket(event_id, body) => {
                held.again_at = Instant::now() + OVERSIZED_WAIT;
                self.uploads.start(&self.client, number, event_id, body);
            }
            Sent::TooLarge => {
                tracing::error!(
                    bytes = held.entry.len(),
                    "the broker does not take an event of this size (max_payload); it is kept, and tried again"
                );
                self.park(number);
            }
            Sent::Never => {
                tracing::error!(number, "a record of the journal holds no event; it is let go of");
                self.metrics.journal_damaged.inc();
                self.done(number);
            }
        }
    }

    /// A body is in its bucket, so that the event may follow; or it is not.
    async fn stored(&mut self, number: u64, stored: Result<(), StoreError>) {
        match stored {
            Ok(()) => self.publish(number).await,
            Err(error) => {
                tracing::error!(%error, number, "an event too large for a message is kept, and tried again");
                self.park(number);
            }
        }
    }

    /// Sets an event aside that would only take the room of others.
    fn park(&mut self, number: u64) {
        if let Some(held) = self.in_flight.remove(&number) {
            self.bytes_in_flight -= held.entry.len();
            self.bytes_oversized += held.entry.len();
            self.oversized.insert(number, (held.entry, Instant::now() + OVERSIZED_WAIT));
        }
    }

    fn done(&mut self, number: u64) -> Option<InFlight> {
        self.uploads.forget(number);
        let done = self.in_flight.remove(&number)?;
        self.bytes_in_flight -= done.entry.len();
        Some(done)
    }

    /// The broker has it, or says why not.
    fn answered(&mut self, answer: &Message, numbers: &mut Vec<u64>) {
        let number = answer.subject.rsplit_once('.').and_then(|(_, number)| number.parse().ok());
        let Some(number) = number else { return };
        match publish::answer(answer) {
            Answer::Acknowledged { sequence, is_repeated } => {
                self.health.has_answered();
                let Some(done) = self.done(number) else { return };
                self.metrics.journal_ack_seconds.observe(done.since.elapsed().as_secs_f64());
                numbers.push(number);
                let newest = match &mut self.again {
                    Some(again) => &mut again.newest,
                    None => &mut self.released.newest,
                };
                if !is_repeated && newest.is_none_or(|newest| newest.sequence < sequence) {
                    *newest = done.entry.id().map(|event| Acknowledged { sequence, event }).or(*newest);
                }
            }
            Answer::Refused(problem) => {
                let Some(held) = self.in_flight.get_mut(&number) else { return };
                if held.tries == 0 {
                    tracing::error!(problem, "the broker did not take an event; it will be published again");
                }
                held.again_at = Instant::now() + backoff(held.tries);
            }
        }
    }

    /// Asks the broker whether it still has what it had.
    fn look(&mut self) {
        if self.looking.is_none() && self.health.is_connected() {
            self.looked_at = Instant::now();
            let client = self.client.clone();
            let (newest, created) = match &self.again {
                Some(again) => (again.newest, Some(again.stream_created)),
                None => (self.released.newest, self.released.stream_created),
            };
            self.looking = Some(tokio::spawn(async move { regression::look(&client, newest, created).await }));
        }
    }

    fn looked(&mut self, finding: Option<Finding>) {
        match finding {
            Some(Finding::Whole { stream_created }) if self.again.is_none() => {
                self.released.stream_created = Some(stream_created);
            }
            Some(Finding::WentBack { stream_created }) => {
                tracing::error!(
                    "the broker has lost events that it had acknowledged; what is kept of them is published again"
                );
                let cursor = self.outlet.cursor_at_oldest();
                self.again = Some(Again { cursor, stream_created, newest: None });
            }
            Some(Finding::Whole { .. }) | None => {}
        }
    }

    /// Writes down how far the broker has come, and what is waiting.
    fn report(&mut self) {
        let new = self
            .in_flight
            .iter()
            .find(|(_, held)| held.why == Why::New)
            .map(|(number, held)| (*number, held.entry.at_ms));
        let oversized = self.oversized.iter().next().map(|(number, (entry, _))| (*number, entry.at_ms));
        let oldest = new.into_iter().chain(oversized).min();
        let ahead = self.cursor.as_ref().and_then(|cursor| self.outlet.lowest_ahead(cursor));
        let not_ours = oldest.map(|(number, _)| number).into_iter().chain(ahead).min();
        self.released.below = not_ours.map_or(self.taken_below, |number| number.min(self.taken_below));
        let depth = self.outlet.release(self.released);
        let age = oldest.map_or(0, |(_, at_ms)| now_ms().saturating_sub(at_ms));
        self.metrics.journal_waiting.set(i64::try_from(depth.events).unwrap_or(i64::MAX));
        self.metrics.journal_bytes.set(i64::try_from(depth.bytes).unwrap_or(i64::MAX));
        self.metrics.journal_writable.set(i64::from(depth.is_writable));
        self.metrics.journal_oversized.set(i64::try_from(self.oversized.len()).unwrap_or(i64::MAX));
        self.metrics.journal_oldest_seconds.set(Duration::from_millis(age).as_secs_f64());
    }
}

/// What the broker was found to be, when it is known.
async fn found(looking: &mut Option<JoinHandle<Option<Finding>>>) -> Option<Option<Finding>> {
    let found = looking.as_mut()?.await;
    *looking = None;
    Some(found.ok().flatten())
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// How long to wait after so many tries: 250 ms, doubling, up to 8 s, and up to a quarter more so that gateways spread out.
fn backoff(tries: u32) -> Duration {
    let base = Duration::from_millis(250) * 2_u32.pow(tries.min(5));
    base + base.mul_f64(rand::rng().random_range(0.0..0.25))
}
