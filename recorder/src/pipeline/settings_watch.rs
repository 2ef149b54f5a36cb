//! The watch on the settings of the stream, its consumer and its buckets, while a recorder runs.
//!
//! At the start a recorder refuses a stream that drops events. Somebody may change the stream later. The recorder then goes on,
//! because what is recorded is safe; but it says so in the log, in its readiness and in a metric, before an event is gone.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, jetstream};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::policy::blockage::Blockage;
use crate::source::setup::{self, RetentionLimits, SetupError};

/// The interval at which the settings are read.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The settings as a recorder knows them.
#[derive(Debug, Default)]
struct Watched {
    /// The limits by which the stream drops events, as first seen.
    first_limits: Option<RetentionLimits>,
    /// The present problem.
    problem: Option<String>,
}

/// Compares the settings every 10 seconds with those that a recorder needs and with those at the start, until told to stop.
pub async fn run(client: Client, blockage: Arc<Blockage>, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut ticks = interval(CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (jetstream, mut watched) = (jetstream::new(client), Watched::default());
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let read = setup::verified_limits(&jetstream);
        let Some(found) = stop.run_until_cancelled(read).await else { break };
        if watched.note(found) {
            match &watched.problem {
                Some(problem) => tracing::error!(
                    problem,
                    "the stream or what belongs to it was changed, and may drop events before they are recorded"
                ),
                None => tracing::info!("the stream and what belongs to it have the expected settings again"),
            }
        }
        blockage.settings_changed(watched.problem.is_some());
        metrics.settings_changed.set(i64::from(watched.problem.is_some()));
    }
}

// === impl Watched ===

impl Watched {
    /// Notes what was found. Returns true if the problem is another one than before.
    fn note(&mut self, found: Result<RetentionLimits, SetupError>) -> bool {
        let problem = match found {
            Ok(limits) => self.first_limits.get_or_insert(limits).shortened_to(&limits),
            Err(error @ SetupError::Differs { .. }) => Some(error.to_string()),
            // Whoever receives or reads events reports a broker that is away, and a stream that is missing.
            Err(SetupError::Missing(_) | SetupError::Unavailable(_)) => return false,
        };
        let is_new = problem != self.problem;
        self.problem = problem;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_noted_once_and_its_end_once() {
        let hour = Duration::from_secs(3600);
        let limits = |max_age, max_bytes| Ok(RetentionLimits { max_age, max_bytes });
        let differs = || SetupError::Differs { what: "stream CHATS", differences: vec!["discard is Old".to_owned()] };
        let mut watched = Watched::default();
        assert!(!watched.note(limits(None, None)), "the settings at the start are as the operator wants them");
        assert!(watched.note(limits(Some(hour), None)));
        assert_eq!(
            watched.problem.as_deref(),
            Some("stream CHATS keeps events for 1h, and without limit at the start")
        );
        assert!(!watched.note(limits(Some(hour), None)), "noted once");
        assert!(
            !watched.note(Err(SetupError::Unavailable("away".to_owned()))),
            "no answer says nothing of the settings"
        );
        assert!(watched.note(Err(differs())));
        assert!(watched.problem.as_deref().is_some_and(|problem| problem.contains("discard is Old")));
        assert!(watched.note(limits(None, Some(10))), "a stream that is full refuses events, and drops none");
        assert_eq!(watched.problem, None);
    }
}
