//! Events without an acknowledgement: why each was published, and when it is published again.

use std::time::Duration;

use rand::RngExt as _;
use tokio::time::Instant;

use crate::journal::JournalEntry;

/// An event that is published and not acknowledged.
pub(super) struct InFlightEvent {
    pub(super) entry: JournalEntry,
    pub(super) first_published_at: Instant,
    /// When to publish it again, if nothing has been heard by then.
    pub(super) resend_at: Instant,
    pub(super) resends: u32,
    pub(super) reason: PublishReason,
}

/// Why an event is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PublishReason {
    /// The broker has not had it.
    New,
    /// It was released, and the broker has lost it.
    Lost,
}

/// Which events to publish again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResendScope {
    /// The connection is new: whatever was on the old one may be lost.
    Everything,
    /// No acknowledgement in time.
    Overdue,
}

/// How long to wait after so many tries: 250 ms, doubling, up to 8 s, and up to a quarter more so that gateways spread out.
pub(super) fn backoff(resends: u32) -> Duration {
    let base = Duration::from_millis(250) * 2_u32.pow(resends.min(5));
    base + base.mul_f64(rand::rng().random_range(0.0..0.25))
}
