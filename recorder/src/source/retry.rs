//! Asking a broker that may be away, or electing: again and again, within reason.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long the broker may be away before whoever asks gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two tries to reach it.
const PAUSE: Duration = Duration::from_millis(500);

/// How long it has been tried.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    until: Instant,
}

impl Patience {
    /// From now on.
    pub fn begin() -> Self {
        Self { until: Instant::now() + PATIENCE }
    }

    /// A try has failed like this: waits for a moment, and says whether to try again.
    pub async fn lasts(&self, error: &impl std::fmt::Display) -> bool {
        let lasts = Instant::now() < self.until;
        if lasts {
            tracing::debug!(%error, "the broker is asked again");
            sleep(PAUSE).await;
        }
        lasts
    }
}
