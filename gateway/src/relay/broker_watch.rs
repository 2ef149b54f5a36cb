//! Watching the broker's answers: a broker that takes no events is logged once when that begins, and once when that has
//! ended.

use std::time::Instant;

use crate::stall::{StallChange, StallDetector};

/// The answers of the broker so far.
#[derive(Debug, Default)]
pub(super) struct BrokerWatch {
    stall: StallDetector,
    answers: u64,
    /// The reason of the latest refusal, until the next acknowledgement.
    refusal: Option<String>,
}

impl BrokerWatch {
    /// Notes an acknowledgement.
    pub(super) fn note_acknowledgement(&mut self) {
        self.answers += 1;
        if let Some(refused_for) = self.refusal.take() {
            tracing::info!(refused_for, "the broker accepts events again");
        }
    }

    /// Notes a refused event. Each reason is logged once, until the broker accepts an event or names another reason.
    pub(super) fn note_refusal(&mut self, reason: String) {
        self.answers += 1;
        if self.refusal.as_ref() != Some(&reason) {
            tracing::error!(reason, "the broker refuses events; the events are kept and will be published again");
            self.refusal = Some(reason);
        }
    }

    /// Logs the beginning and the end of a time in which a connected broker answers nothing. `in_flight` is the number of
    /// events that wait for an answer.
    pub(super) fn look(&mut self, now: Instant, is_connected: bool, in_flight: usize) -> Option<StallChange> {
        let change = self.stall.observe(now, (is_connected && in_flight > 0).then_some(self.answers));
        match change {
            Some(StallChange::Began(silent_for)) => tracing::error!(
                in_flight,
                ?silent_for,
                "the broker is connected and acknowledges no event; its disk may be full or slow; events stay in the journal"
            ),
            Some(StallChange::Ended(silent_for)) if is_connected => {
                tracing::warn!(?silent_for, "the broker answers again");
            }
            // A broken connection is logged by the connection.
            Some(StallChange::Ended(_)) | None => {}
        }
        change
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_silent_broker_is_reported_once_and_a_refusing_broker_is_not_silent() {
        let (mut watch, start) = (BrokerWatch::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..3 {
            assert_eq!(watch.look(at(second), true, 5), None);
        }
        assert_eq!(watch.look(at(3), true, 5), Some(StallChange::Began(Duration::from_secs(3))));
        assert_eq!(watch.look(at(4), true, 6), None);
        watch.note_acknowledgement();
        assert_eq!(watch.look(at(5), true, 5), Some(StallChange::Ended(Duration::from_secs(5))));
        for second in 5..30 {
            watch.note_refusal("no room".to_owned());
            assert_eq!(watch.look(at(second), true, 5), None, "refusals are logged with their reason");
        }
        assert_eq!(watch.look(at(40), false, 5), None, "without a connection there is no silence");
        assert_eq!(watch.look(at(50), true, 0), None, "without events there is no silence");
    }
}
