//! Asking a broker that may be away, or electing: again and again, within reason.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long the broker may be away before whoever asks gives up.
const MAX_OUTAGE: Duration = Duration::from_secs(60);

/// Between two tries to reach it.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// How long it has been tried.
#[derive(Clone, Copy, Debug)]
pub struct RetryUntil {
    deadline: Instant,
}

impl RetryUntil {
    /// From now on.
    pub fn start() -> Self {
        Self { deadline: Instant::now() + MAX_OUTAGE }
    }

    /// A try has failed like this: waits for a moment, and says whether to try again.
    pub async fn wait_before_retry(&self, error: &impl std::fmt::Display) -> bool {
        let may_retry = Instant::now() < self.deadline;
        if may_retry {
            tracing::debug!(%error, "the broker is asked again");
            sleep(RETRY_INTERVAL).await;
        }
        may_retry
    }
}
