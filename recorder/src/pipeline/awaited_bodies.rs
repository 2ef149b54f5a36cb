//! Events whose large bodies the broker does not give at present. Such an event holds up no other event: it waits here,
//! unacknowledged, and is recorded when its body can be fetched, or put into quarantine when the body is missing for good.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::metrics::Metrics;
use crate::policy::batch::{BatchLimits, BatchSize};
use crate::source::PROGRESS_INTERVAL;
use crate::source::batch::Deliveries;
use crate::source::bodies::{BodyFetcher, FetchError};
use crate::source::delivery::Delivery;

/// The maximum number of waiting events. Beyond the maximum, an event is given back to the broker for a while.
const MAX_WAITING: usize = 1000;

/// The delay before the broker delivers an event again that found no place here.
const REDELIVERY_DELAY: Duration = Duration::from_secs(10);

/// The pause before the first and before any later look for a body.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// The waiting events. A task for each looks for the body from time to time.
pub struct AwaitedBodies {
    fetcher: BodyFetcher,
    limits: BatchLimits,
    metrics: Arc<Metrics>,
    looking: JoinSet<u64>,
    /// The deliveries whose bodies are looked for, by a number of our own.
    waiting: BTreeMap<u64, Arc<Delivery>>,
    next_number: u64,
    /// The deliveries to be tried again now.
    ready: Vec<Arc<Delivery>>,
}

impl AwaitedBodies {
    /// Creates an empty set.
    pub fn new(fetcher: BodyFetcher, limits: BatchLimits, metrics: Arc<Metrics>) -> Self {
        Self {
            fetcher,
            limits,
            metrics,
            looking: JoinSet::new(),
            waiting: BTreeMap::new(),
            next_number: 0,
            ready: Vec::new(),
        }
    }

    /// Adds deliveries, each with the error of the latest try. An event is logged when it is added the first time.
    pub async fn add(&mut self, bodiless: Vec<(Arc<Delivery>, FetchError)>) {
        for (delivery, error) in bodiless {
            self.metrics.body_fetch_failures.inc();
            if delivery.note_awaited() {
                tracing::warn!(
                    %error, event = delivery.event_id(), sequence = delivery.sequence(),
                    "the body of a large event cannot be fetched: the event waits, and other events are recorded"
                );
            }
            if self.waiting.len() >= MAX_WAITING {
                delivery.give_back(REDELIVERY_DELAY).await;
                continue;
            }
            let number = self.next_number;
            self.next_number += 1;
            let failures = self.metrics.body_fetch_failures.clone();
            self.looking.spawn(look_for_body(self.fetcher.clone(), Arc::clone(&delivery), number, failures));
            self.waiting.insert(number, delivery);
        }
        self.count();
    }

    /// Waits until bodies can be fetched, or are missing for good, and returns the deliveries as a batch. Waits for ever
    /// while no event waits. Cancel safe.
    pub async fn next(&mut self) -> Deliveries {
        while self.ready.is_empty() {
            match self.looking.join_next().await {
                Some(found) => self.take(found.ok()),
                None => std::future::pending().await,
            }
        }
        while let Some(found) = self.looking.try_join_next() {
            self.take(found.ok());
        }
        self.count();
        let mut size = BatchSize::default();
        let fitting = self.ready.iter().take_while(|delivery| {
            let fits = size.fits(delivery.size(), &self.limits);
            size.add(delivery.size());
            fits
        });
        let count = fitting.count();
        Deliveries::again(self.ready.drain(..count).collect())
    }

    /// Gives every waiting event back to the broker for the other recorders.
    pub async fn close(self) {
        for delivery in self.waiting.values().chain(&self.ready) {
            delivery.give_back(Duration::ZERO).await;
        }
    }

    fn take(&mut self, number: Option<u64>) {
        self.ready.extend(number.and_then(|number| self.waiting.remove(&number)));
    }

    fn count(&self) {
        let waiting = self.waiting.len() + self.ready.len();
        self.metrics.awaited_bodies.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }
}

impl std::fmt::Debug for AwaitedBodies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AwaitedBodies").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

/// Looks for a body until the broker has it, or until the body is missing for good. Keeps the delivery in progress
/// meanwhile. Returns `number`.
async fn look_for_body(fetcher: BodyFetcher, delivery: Arc<Delivery>, number: u64, failures: Counter) -> u64 {
    let Ok(Some(reference)) = delivery.body_reference() else { return number };
    let mut pause = FIRST_PAUSE;
    const { assert!(MAX_PAUSE.as_millis() < PROGRESS_INTERVAL.as_millis(), "a pause must not end the progress") }
    loop {
        sleep(pause).await;
        delivery.report_progress().await;
        match fetcher.probe(&reference).await {
            Ok(()) => return number,
            Err(error) if delivery.is_body_missing(&error) => return number,
            Err(_) => {
                failures.inc();
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}
