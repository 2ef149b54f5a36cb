//! Batches: deliveries that are fetched, decoded and acknowledged together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::jetstream::AckKind;
use futures_util::{StreamExt as _, stream};
use shared::event::Event;
use tokio::task::spawn_blocking;

use super::bodies::{BodyFetcher, FetchError};
use super::delivery::{DecodeError, Delivery};
use crate::store::quarantine::{QuarantineReason, QuarantinedEvent};

/// The number of bodies of a batch that are fetched at the same time.
const CONCURRENT_BODIES: usize = 4;

/// Deliveries to be recorded together, not decoded yet.
#[derive(Clone, Debug)]
pub struct Deliveries(Vec<Arc<Delivery>>);

/// Decoded events to be recorded together, each with its delivery.
#[derive(Debug, Default)]
pub struct Batch {
    /// The decoded events, in the order of delivery.
    pub events: Vec<Event>,
    /// The deliveries of `events`, at the same indexes.
    pub deliveries: Vec<Arc<Delivery>>,
    /// The deliveries that could not be decoded. Such deliveries go into quarantine.
    pub undecodable: Vec<Undecodable>,
    /// The deliveries whose bodies could not be fetched yet, each with the error. No part of the batch: such deliveries
    /// are neither recorded nor acknowledged with it.
    pub bodiless: Vec<(Arc<Delivery>, FetchError)>,
}

/// A delivery that could not be decoded.
#[derive(Debug)]
pub struct Undecodable {
    /// The delivery.
    pub delivery: Arc<Delivery>,
    /// The large body, if it was fetched.
    pub body: Option<Vec<u8>>,
    /// The reason.
    pub error: DecodeError,
}

// === impl Deliveries ===

impl Deliveries {
    /// Wraps the messages of one batch.
    pub fn new(deliveries: Vec<Delivery>) -> Self {
        Self(deliveries.into_iter().map(Arc::new).collect())
    }

    /// Makes a batch of deliveries that were in a batch before.
    pub fn again(deliveries: Vec<Arc<Delivery>>) -> Self {
        Self(deliveries)
    }

    /// Returns the total size of the large bodies, in bytes; `None` if no delivery refers to a large body.
    pub fn body_bytes(&self) -> Option<usize> {
        let with_bodies = self.iter().filter(|delivery| delivery.has_reference());
        // A malformed reference counts as a body without a size.
        with_bodies
            .map(|delivery| delivery.body_reference().ok().flatten().map_or(0, |reference| reference.size))
            .reduce(usize::saturating_add)
    }

    /// Decodes all deliveries. The large bodies are fetched from the object store, and each is released when its event
    /// has been decoded. After a body that the broker does not give, no further body of the batch is fetched: each would
    /// hold up the other events for another timeout.
    pub async fn fetch_and_decode(&self, body_fetcher: &BodyFetcher) -> Batch {
        let is_unavailable = AtomicBool::new(false);
        let mut decoded = stream::iter(self.0.iter().map(Arc::clone))
            .map(|delivery| fetch_and_decode(delivery, body_fetcher, &is_unavailable))
            .buffered(CONCURRENT_BODIES);
        let mut batch = Batch::default();
        while let Some((delivery, decoded)) = decoded.next().await {
            batch.add(delivery, decoded);
        }
        batch
    }

    /// Decodes deliveries without large bodies.
    pub fn decode(&self) -> Batch {
        let mut batch = Batch::default();
        for delivery in &self.0 {
            batch.add(Arc::clone(delivery), delivery.decode().map_err(|error| NotDecoded::Undecodable(None, error)));
        }
        batch
    }

    /// Removes the deliveries whose bodies could not be fetched, and which are therefore not recorded with this batch.
    #[must_use]
    pub fn without(mut self, bodiless: &[(Arc<Delivery>, FetchError)]) -> Self {
        self.0.retain(|delivery| !bodiless.iter().any(|(away, _)| Arc::ptr_eq(away, delivery)));
        self
    }

    /// Tells the broker that the batch is still in progress, so that the events are not delivered to another recorder.
    /// To be called every `source::PROGRESS_INTERVAL`.
    pub async fn report_progress(&self) {
        send_acks(self.iter(), AckKind::Progress).await;
    }

    /// Acknowledges the batch. Call only after every event was committed to the tables or to the quarantine.
    pub async fn acknowledge(&self) {
        send_acks(self.iter(), AckKind::Ack).await;
    }

    /// Gives the batch back to the broker: some events may not be in the tables, and any recorder may take the batch.
    pub async fn negative_acknowledge(&self) {
        send_acks(self.iter(), AckKind::Nak(None)).await;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Delivery> {
        self.0.iter().map(|delivery| &**delivery)
    }
}

// === impl Undecodable ===

impl Undecodable {
    /// Returns the quarantine entry with the whole delivery.
    pub fn to_quarantined(&self) -> QuarantinedEvent {
        self.delivery.to_quarantined(QuarantineReason::Undecodable, self.error.to_string(), self.body.as_deref())
    }
}

// === impl Batch ===

impl Batch {
    /// Decodes deliveries of the log, with their bodies attached. Each body is released when its event has been decoded.
    pub fn decode(deliveries: Vec<Delivery>) -> Self {
        let mut batch = Self::default();
        for mut delivery in deliveries {
            let decoded = match delivery.take_body() {
                None => delivery.decode().map_err(|error| NotDecoded::Undecodable(None, error)),
                Some(Ok(body)) => decode_body(&delivery, body),
                Some(Err(detail)) => Err(NotDecoded::Undecodable(None, DecodeError::Body(detail))),
            };
            batch.add(Arc::new(delivery), decoded);
        }
        batch
    }

    fn add(&mut self, delivery: Arc<Delivery>, decoded: Result<Event, NotDecoded>) {
        match decoded {
            Ok(event) => {
                self.events.push(event);
                self.deliveries.push(delivery);
            }
            Err(NotDecoded::Undecodable(body, error)) => self.undecodable.push(Undecodable { delivery, body, error }),
            Err(NotDecoded::Bodiless(error)) => self.bodiless.push((delivery, error)),
        }
    }

    /// Returns the number of deliveries, decoded or not.
    pub fn len(&self) -> usize {
        self.deliveries.len() + self.undecodable.len()
    }

    /// Returns true if the batch holds no deliveries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of events the broker still had to deliver after the last delivery of the batch.
    pub fn pending(&self) -> u64 {
        self.iter().map(Delivery::pending).min().unwrap_or_default()
    }

    fn iter(&self) -> impl Iterator<Item = &Delivery> {
        let undecodable = self.undecodable.iter().map(|undecodable| &undecodable.delivery);
        self.deliveries.iter().chain(undecodable).map(|delivery| &**delivery)
    }
}

/// The reason a delivery gave no event.
enum NotDecoded {
    Undecodable(Option<Vec<u8>>, DecodeError),
    Bodiless(FetchError),
}

async fn fetch_and_decode(
    delivery: Arc<Delivery>,
    body_fetcher: &BodyFetcher,
    is_unavailable: &AtomicBool,
) -> (Arc<Delivery>, Result<Event, NotDecoded>) {
    let undecodable = |error: DecodeError| Err(NotDecoded::Undecodable(None, error));
    let decoded = match delivery.body_reference() {
        Ok(None) => delivery.decode().or_else(undecodable),
        Err(error) => undecodable(DecodeError::Body(error.to_string())),
        Ok(Some(_)) if is_unavailable.load(Ordering::Relaxed) => {
            Err(NotDecoded::Bodiless(FetchError::Unavailable("no answer for another body".to_owned())))
        }
        Ok(Some(reference)) => match body_fetcher.fetch(&reference).await {
            Ok(body) => {
                let decoding = Arc::clone(&delivery);
                // A large body takes the processor for long enough to hold up other tasks.
                let decoded = spawn_blocking(move || decode_body(&decoding, body)).await;
                decoded.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
            }
            Err(error) if delivery.is_body_missing(&error) => undecodable(DecodeError::Body(error.to_string())),
            Err(error) => {
                if !error.is_missing() {
                    is_unavailable.store(true, Ordering::Relaxed);
                }
                Err(NotDecoded::Bodiless(error))
            }
        },
    };
    (delivery, decoded)
}

fn decode_body(delivery: &Delivery, mut body: Vec<u8>) -> Result<Event, NotDecoded> {
    delivery.decode_body(&mut body).map_err(|error| NotDecoded::Undecodable(Some(body), error))
}

/// Sends the same acknowledgement for each delivery and stops at the first failure. Not retried: without an
/// acknowledgement the broker delivers an event again, so no event is lost.
pub(super) async fn send_acks<'a>(deliveries: impl Iterator<Item = &'a Delivery>, kind: AckKind) {
    for delivery in deliveries {
        if let Err(error) = delivery.send_ack(kind).await {
            tracing::warn!(error, "an acknowledgement could not be sent: the events will be delivered again");
            return;
        }
    }
}
