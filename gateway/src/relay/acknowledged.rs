//! The newest acknowledged event of each connection to the broker, by which the relay notices lost events.
//!
//! A broker that loses its newest events gives their sequences to other events. One event per connection is enough for
//! a check: events get ascending sequences, so while the stream holds the newest event acknowledged on a connection,
//! the stream holds all events acknowledged on the connection. An event is kept until a check has found the event,
//! because newer acknowledgements prove nothing about events of earlier connections.

use crate::journal::{AcknowledgedEvent, Checkpoint};

/// The maximum number of connections whose events wait for a check. Beyond the maximum, a loss is assumed, which costs
/// a repeated publication and loses nothing.
const MAX_UNCHECKED: usize = 16;

/// The newest acknowledged events, by connection.
#[derive(Debug, Default)]
pub(super) struct AcknowledgedEvents {
    /// The newest events of earlier connections that no check has found yet, oldest connection first.
    unchecked: Vec<AcknowledgedEvent>,
    /// The newest event of the current connection.
    newest: Option<AcknowledgedEvent>,
    /// True if the events at hand do not stand for all acknowledgements.
    is_incomplete: bool,
}

impl AcknowledgedEvents {
    /// Restores the state of the gateway's last run.
    pub(super) fn restore(checkpoint: &Checkpoint) -> Self {
        let unchecked = checkpoint.last_acknowledged.into_iter().collect();
        Self { unchecked, newest: None, is_incomplete: checkpoint.is_incomplete }
    }

    /// Adds an acknowledgement on the current connection.
    pub(super) fn note(&mut self, event: AcknowledgedEvent) {
        if self.newest.is_none_or(|newest| newest.sequence < event.sequence) {
            self.newest = Some(event);
        }
    }

    /// Begins a connection: the events of the last connection have to be checked.
    pub(super) fn begin_connection(&mut self) {
        let Some(newest) = self.newest.take() else { return };
        if self.unchecked.len() < MAX_UNCHECKED {
            self.unchecked.push(newest);
        } else {
            self.is_incomplete = true;
        }
    }

    /// The events that a check has to find.
    pub(super) fn to_check(&self) -> Vec<AcknowledgedEvent> {
        self.unchecked.iter().copied().chain(self.newest).collect()
    }

    /// True until a check on the current connection has had a result.
    pub(super) fn is_check_due(&self) -> bool {
        self.is_incomplete || !self.unchecked.is_empty()
    }

    /// True if events are missing in [`Self::to_check`], so that only a loss can be assumed.
    pub(super) fn is_incomplete(&self) -> bool {
        self.is_incomplete
    }

    /// Applies the result of a check on the current connection that has found all these events.
    pub(super) fn confirm(&mut self, found: &[AcknowledgedEvent]) {
        self.unchecked.retain(|event| !found.contains(event));
        // A found event stands for its connection and for the current connection.
        for event in found {
            self.note(*event);
        }
    }

    /// Applies the result of a check on the current connection that has missed some of the `asked` events: everything
    /// that the journal keeps is published again, so the missing events are forgotten.
    pub(super) fn start_over(&mut self, asked: &[AcknowledgedEvent], found: &[AcknowledgedEvent]) {
        self.unchecked.clear();
        self.is_incomplete = false;
        self.newest = self.newest.filter(|newest| !asked.contains(newest));
        for event in found {
            self.note(*event);
        }
    }

    /// Writes the state to the checkpoint, which has space for one event. With more events, a restarted gateway assumes
    /// a loss.
    pub(super) fn save(&self, checkpoint: &mut Checkpoint) {
        checkpoint.last_acknowledged = self.unchecked.first().copied().or(self.newest);
        checkpoint.is_incomplete = self.is_incomplete || self.to_check().len() > 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        /// The gateway publishes events, which are acknowledged.
        Publish(u8),
        /// Another gateway publishes events.
        Other(u8),
        /// The connection breaks. A broker that restarts may lose that many of its newest events.
        Reconnect { lost: u8 },
        /// A check has a result.
        Check,
        /// The gateway restarts from the checkpoint.
        Restart { lost: u8 },
    }

    fn step() -> impl Strategy<Value = Step> {
        let lost = || prop_oneof![2 => Just(0_u8), 1 => 1..8_u8];
        prop_oneof![
            3 => (1..4_u8).prop_map(Step::Publish),
            3 => (1..8_u8).prop_map(Step::Other),
            3 => lost().prop_map(|lost| Step::Reconnect { lost }),
            2 => Just(Step::Check),
            1 => lost().prop_map(|lost| Step::Restart { lost }),
        ]
    }

    proptest! {
        /// Whatever happens before, a check that finds all events proves that the stream has every acknowledged event.
        #[test]
        fn a_check_that_finds_all_events_proves_that_none_is_lost(steps in prop::collection::vec(step(), 1..80)) {
            let mut stream: Vec<Uuid> = Vec::new();
            let mut acknowledged: HashSet<Uuid> = HashSet::new();
            let mut events = AcknowledgedEvents::default();
            let mut checkpoint = Checkpoint::default();
            for step in steps.into_iter().chain([Step::Check]) {
                match step {
                    Step::Publish(count) => for _ in 0..count {
                        let event_id = Uuid::from_u128(rand::random());
                        stream.push(event_id);
                        acknowledged.insert(event_id);
                        events.note(AcknowledgedEvent { sequence: stream.len() as u64, event_id });
                    },
                    Step::Other(count) => stream.extend((0..count).map(|_| Uuid::from_u128(rand::random()))),
                    Step::Reconnect { lost } => {
                        stream.truncate(stream.len().saturating_sub(lost.into()));
                        events.begin_connection();
                    }
                    Step::Restart { lost } => {
                        stream.truncate(stream.len().saturating_sub(lost.into()));
                        events = AcknowledgedEvents::restore(&checkpoint);
                    }
                    Step::Check => {
                        let asked = events.to_check();
                        let is_held = |event: &AcknowledgedEvent| {
                            stream.get(event.sequence as usize - 1) == Some(&event.event_id)
                        };
                        let found: Vec<_> = asked.iter().copied().filter(is_held).collect();
                        if !events.is_incomplete() && found == asked {
                            let held: HashSet<Uuid> = stream.iter().copied().collect();
                            prop_assert!(acknowledged.is_subset(&held), "a lost event was not noticed");
                            events.confirm(&asked);
                        } else {
                            events.start_over(&asked, &found);
                            // Everything is published again. A repeated event is acknowledged with its sequence.
                            for event_id in &acknowledged {
                                let place = stream.iter().position(|held| held == event_id).unwrap_or_else(|| {
                                    stream.push(*event_id);
                                    stream.len() - 1
                                });
                                events.note(AcknowledgedEvent { sequence: place as u64 + 1, event_id: *event_id });
                            }
                        }
                        prop_assert!(!events.is_check_due());
                    }
                }
                events.save(&mut checkpoint);
            }
        }

        /// A loss is assumed without need only after more connections than the maximum.
        #[test]
        fn no_loss_is_assumed_after_a_few_connections(connections in 1..=MAX_UNCHECKED) {
            let mut events = AcknowledgedEvents::default();
            for sequence in 1..=connections as u64 {
                events.note(AcknowledgedEvent { sequence, event_id: Uuid::from_u128(sequence.into()) });
                events.begin_connection();
            }
            prop_assert!(!events.is_incomplete());
            prop_assert_eq!(events.to_check().len(), connections);
            events.note(AcknowledgedEvent { sequence: 100, event_id: Uuid::nil() });
            events.begin_connection();
            prop_assert_eq!(events.is_incomplete(), connections == MAX_UNCHECKED);
        }
    }
}
