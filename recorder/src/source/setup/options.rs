//! The options of `recorder stream create`, and the result.

use std::time::Duration;

/// The settings of the stream that an operator may choose. `None` takes the default at creation and accepts any
/// existing value.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamOptions {
    /// The number of replicas of the stream and the buckets in a cluster. Default: 1.
    pub replicas: Option<usize>,
    /// The maximum size of the stream in bytes. Default: no limit.
    pub max_bytes: Option<i64>,
    /// The maximum age of events and large bodies. Default: no limit.
    pub max_age: Option<Duration>,
    /// The lifetime of a gateway's lease without renewal. Default: [`shared::lease::DEFAULT_LIFETIME`].
    pub lease_lifetime: Option<Duration>,
}

/// The result of the setup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupOutcome {
    /// At least one object was created.
    Created,
    /// Every object existed with the expected configuration.
    AlreadyExists,
}
