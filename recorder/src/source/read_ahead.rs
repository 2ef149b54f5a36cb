//! Deliveries of the log that wait for their large bodies, in order. Several bodies are fetched at the same time, within
//! a bound of bytes, so that a missing body, which takes time to be confirmed, holds up few others.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::Client;
use shared::large_body::BodyReference;
use tokio_util::task::AbortOnDropHandle;

use super::bodies::{BodyFetcher, FetchError};
use super::delivery::Delivery;

/// The maximum number of deliveries read ahead.
const MAX_DELIVERIES: usize = 64;

/// The maximum size of the deliveries read ahead, in bytes, large bodies included. One larger delivery is read alone.
const MAX_BYTES: usize = 8 << 20;

/// The time for which a broker that does not give a body is asked again.
const PATIENCE: Duration = Duration::from_secs(60);

type Fetch = AbortOnDropHandle<Result<Vec<u8>, FetchError>>;

/// A queue of deliveries, the oldest first.
#[derive(Debug)]
pub struct ReadAhead {
    fetcher: BodyFetcher,
    queue: VecDeque<Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    delivery: Delivery,
    /// The fetch of the large body; `None` if the delivery has none, or if the fetch has ended.
    fetch: Option<Fetch>,
}

/// The body of a delivery could not be read, and the broker did not say that the body is missing.
#[derive(Debug, thiserror::Error)]
#[error("the large body of the event at sequence {sequence} could not be read for {PATIENCE:?}: {error}")]
pub struct BodyUnavailable {
    sequence: u64,
    error: FetchError,
}

impl ReadAhead {
    /// Creates an empty queue.
    pub fn new(client: Client) -> Self {
        Self { fetcher: BodyFetcher::new(client), queue: VecDeque::new(), bytes: 0 }
    }

    /// Returns the number of deliveries in the queue.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Returns true if the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns true if another delivery may be added.
    pub fn has_room(&self) -> bool {
        self.queue.len() < MAX_DELIVERIES && self.bytes < MAX_BYTES
    }

    /// Adds a delivery, and begins to fetch its large body.
    pub fn push(&mut self, mut delivery: Delivery) {
        let fetch = match delivery.body_reference() {
            Ok(None) => None,
            Ok(Some(reference)) => Some(start_fetch(&self.fetcher, reference)),
            Err(error) => {
                delivery.set_body(Err(error.to_string()));
                None
            }
        };
        self.bytes += delivery.size();
        self.queue.push_back(Entry { delivery, fetch });
    }

    /// Waits for the body of the oldest delivery, and returns the delivery with the body attached, or with the reason for
    /// which the body is missing. Waits for ever while the queue is empty. Cancel safe.
    pub async fn pop(&mut self) -> Result<Delivery, BodyUnavailable> {
        let Some(Entry { delivery, fetch }) = self.queue.front_mut() else { return std::future::pending().await };
        if let Some(handle) = fetch {
            let fetched = handle.await.unwrap_or_else(|error| Err(FetchError::Unavailable(error.to_string())));
            *fetch = None;
            match fetched {
                Ok(body) => delivery.set_body(Ok(body)),
                Err(error) if error.is_missing() => delivery.set_body(Err(error.to_string())),
                Err(error) => {
                    // The delivery stays first, for a caller that goes on after the error.
                    *fetch = delivery.body_reference().ok().flatten().map(|wanted| start_fetch(&self.fetcher, wanted));
                    return Err(BodyUnavailable { sequence: delivery.sequence(), error });
                }
            }
        }
        match self.queue.pop_front() {
            Some(Entry { delivery, .. }) => {
                self.bytes -= delivery.size();
                Ok(delivery)
            }
            None => std::future::pending().await,
        }
    }
}

fn start_fetch(fetcher: &BodyFetcher, reference: BodyReference) -> Fetch {
    let fetcher = fetcher.clone();
    AbortOnDropHandle::new(tokio::spawn(async move { fetcher.fetch_patiently(&reference, PATIENCE).await }))
}
