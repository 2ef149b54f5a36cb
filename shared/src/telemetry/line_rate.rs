//! A bound on the log lines of one place in the code: an outage that fails every chat must not fill the disk with the same line.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The time in which lines are counted.
const WINDOW: Duration = Duration::from_secs(10);

/// The maximum number of lines of one place in a window.
const MAX_LINES: u32 = 20;

/// The target of lines about requests that were refused. Callers decide how many there are, so these lines are bounded too, although they
/// are no warnings.
pub const REFUSALS: &str = "shared::refusals";

/// The bound on lines. Applies to warnings, errors and lines with the target [`REFUSALS`]; other lines, such as the line of each chat, all
/// pass. The number of places is that of the code.
#[derive(Clone, Debug, Default)]
pub(super) struct LineRate(Arc<Mutex<HashMap<Identifier, Place>>>);

/// The lines of one place.
#[derive(Debug)]
struct Place {
    window_began: Instant,
    /// The number of lines in the window.
    lines: u32,
    /// The number of lines left out since the last line.
    left_out: u64,
}

impl LineRate {
    /// Returns the number of lines of the same place that were left out before this one, and forgets it.
    pub(super) fn take_left_out(&self, metadata: &Metadata<'_>) -> u64 {
        if !is_bounded(metadata) {
            return 0;
        }
        self.places().get_mut(&metadata.callsite()).map_or(0, |place| std::mem::take(&mut place.left_out))
    }

    /// Counts a line. Returns false if the line is to be left out.
    fn admit(&self, place: Identifier, now: Instant) -> bool {
        match self.places().entry(place) {
            Entry::Vacant(entry) => {
                entry.insert(Place { window_began: now, lines: 1, left_out: 0 });
                true
            }
            Entry::Occupied(entry) => {
                let place = entry.into_mut();
                if now.saturating_duration_since(place.window_began) >= WINDOW {
                    (place.window_began, place.lines) = (now, 0);
                }
                let is_admitted = place.lines < MAX_LINES;
                place.lines += u32::from(is_admitted);
                place.left_out += u64::from(!is_admitted);
                is_admitted
            }
        }
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Identifier, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for LineRate {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        !is_bounded(event.metadata()) || self.admit(event.metadata().callsite(), Instant::now())
    }
}

fn is_bounded(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::WARN || metadata.target() == REFUSALS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_place_are_bounded_and_those_left_out_are_counted() {
        let rate = LineRate::default();
        let metadata = |line: u32| {
            // Each call of a macro is a place of its own; the field set of a span in this function stands for one.
            let span = if line == 0 { tracing::info_span!("one") } else { tracing::info_span!("other") };
            span.metadata().map(Metadata::callsite)
        };
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry());
        let (one, other) = (metadata(0).unwrap(), metadata(1).unwrap());
        let start = Instant::now();
        let admitted = (0..50).filter(|_| rate.admit(one.clone(), start)).count();
        assert_eq!(admitted, MAX_LINES as usize);
        assert!(rate.admit(other, start), "another place has its own bound");
        assert!(!rate.admit(one.clone(), start + WINDOW / 2));
        assert!(rate.admit(one.clone(), start + WINDOW));
        assert_eq!(rate.places()[&one].left_out, 31);
    }
}
