//! Events without an acknowledgement: why each was published, and when it is published again.

use std::time::Duration;

use rand::RngExt as _;
use tokio::time::Instant;

use crate::journal::Entry;

/// An event that is published and not acknowledged.
pub(super) struct InFlight {
    pub(super) entry: Entry,
    pub(super) since: Instant,
    /// When to publish it again, if nothing has been heard by then.
    pub(super) again_at: Instant,
    pub(super) tries: u32,
    pub(super) why: Why,
}

/// Why an event is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The broker has not had it.
    New,
    /// It was released, and the broker has lost it.
    Lost,
}

/// Which events to publish again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The connection is new: whatever was on the old one may be lost.
    Everything,
    /// No acknowledgement in time.
    Overdue,
}

/// How long to wait after so many tries: 250 ms, doubling, up to 8 s, and up to a quarter more so that gateways spread out.
pub(super) fn backoff(tries: u32) -> Duration {
    let base = Duration::from_millis(250) * 2_u32.pow(tries.min(5));
    base + base.mul_f64(rand::rng().random_range(0.0..0.25))
}
