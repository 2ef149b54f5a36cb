//! The relay: moves the journal to JetStream, and lets go of an event only when the broker says that it has it.
//!
//! Acknowledgements come to an inbox of the relay's own, not through the client library's request machinery: that leaks a
//! little with every publish that is never answered, and wakes one task more for each. What the library loses when a
//! connection breaks is published again; the broker tells repeated events by their id, and so do the recorders.

mod in_flight;
mod large_bodies;
mod loss_check;
mod publish;
mod republish;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::broker::BrokerHealth;
use crate::journal::{Acknowledged, Cursor, Entry, Outlet, Released, Source, now_ms};
use crate::metrics::Metrics;
use in_flight::{Due, InFlight, Why, backoff};
use large_bodies::{StoreError, Uploads};
use loss_check::{Again, Finding, found};
use publish::{Answer, Sent, Templates};

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
