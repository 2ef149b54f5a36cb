//! What an operator may choose about the stream.

use std::time::Duration;

/// What an operator may choose; what is left out is not compared with what is there.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamOptions {
    /// Copies of the stream in a cluster. 1 unless chosen.
    pub replicas: Option<usize>,
    /// How large the stream may grow. Without limit unless chosen.
    pub max_bytes: Option<i64>,
    /// How long events are kept. For ever unless chosen.
    pub max_age: Option<Duration>,
    /// How long a gateway's lease lives unless it is renewed. [`shared::lease::DEFAULT_LIFETIME`] unless chosen.
    pub lease_lifetime: Option<Duration>,
}

/// What making the stream came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupOutcome {
    /// It was made.
    Created,
    /// It was there, and as it should be.
    AlreadyExists,
}
