//! The retry policy for reading the log: a broker that is away, or electing a leader, is asked again every 500 ms for
//! up to a minute.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The longest outage of the broker before a caller gives up.
const MAX_OUTAGE: Duration = Duration::from_secs(60);

/// The pause between two tries.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// The deadline of a series of tries.
#[derive(Clone, Copy, Debug)]
pub struct RetryUntil {
    deadline: Instant,
}

impl RetryUntil {
    /// Starts a series of tries, with the deadline a minute from now.
    pub fn start() -> Self {
        Self { deadline: Instant::now() + MAX_OUTAGE }
    }

    /// Returns false past the deadline. Otherwise logs the error at debug level, pauses, and returns true: try again.
    pub async fn wait_before_retry(&self, error: &impl std::fmt::Display) -> bool {
        let may_retry = Instant::now() < self.deadline;
        if may_retry {
            tracing::debug!(%error, "the broker did not answer: trying again");
            sleep(RETRY_INTERVAL).await;
        }
        may_retry
    }
}
