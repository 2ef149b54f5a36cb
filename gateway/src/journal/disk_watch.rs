//! Watching the disk: a write or a sync that hangs is logged once when it begins to hang and once when it has ended.
//!
//! A hanging write holds the journal's lock, so the watch takes no lock and has a thread of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::stall::{StallChange, StallDetector};

/// The interval between two looks.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// The operations on the disk that may hang.
#[derive(Debug, Default)]
pub(super) struct DiskOperations {
    pub(super) writes: OperationCounter,
    pub(super) syncs: OperationCounter,
}

/// A count of operations of one kind, of which one runs at a time: raised at the beginning and at the end of each, so
/// that the count is odd while an operation runs. Costs no look at the clock.
#[derive(Debug, Default)]
pub(super) struct OperationCounter(AtomicU64);

/// A running operation. Dropping the value ends the operation.
pub(super) struct RunningOperation<'a>(&'a OperationCounter);

impl OperationCounter {
    /// Notes the beginning of an operation.
    pub(super) fn begin(&self) -> RunningOperation<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        RunningOperation(self)
    }

    /// Returns the count while an operation runs.
    pub(super) fn progress(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|count| count % 2 == 1)
    }
}

impl Drop for RunningOperation<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Starts the thread of the watch. The thread ends when the journal is gone.
pub(super) fn start(operations: &Arc<DiskOperations>) -> std::io::Result<()> {
    let operations = Arc::downgrade(operations);
    let run = move || {
        let mut watch = DiskWatch::default();
        while watch.look(&operations, Instant::now()) {
            std::thread::sleep(WATCH_INTERVAL);
        }
    };
    std::thread::Builder::new().name("journal-watch".into()).spawn(run).map(drop)
}

/// The state of the watch between two looks.
#[derive(Debug, Default)]
pub(super) struct DiskWatch {
    writes: StallDetector,
    syncs: StallDetector,
}

impl DiskWatch {
    /// Looks once, and logs each change. Returns false if the journal is gone.
    fn look(&mut self, operations: &Weak<DiskOperations>, now: Instant) -> bool {
        let Some(operations) = operations.upgrade() else { return false };
        let (writes, syncs) = self.observe(&operations, now);
        report("write", writes);
        report("sync", syncs);
        true
    }

    /// Returns the changes of writes and of syncs since the last observation.
    pub(super) fn observe(
        &mut self,
        operations: &DiskOperations,
        now: Instant,
    ) -> (Option<StallChange>, Option<StallChange>) {
        (self.writes.observe(now, operations.writes.progress()), self.syncs.observe(now, operations.syncs.progress()))
    }
}

fn report(operation: &str, change: Option<StallChange>) {
    match change {
        Some(StallChange::Began(hangs_for)) => tracing::error!(
            operation,
            ?hangs_for,
            "the journal's disk does not answer; chats whose events must reach this disk wait"
        ),
        Some(StallChange::Ended(hung_for)) => {
            tracing::warn!(operation, ?hung_for, "the journal's disk answers again");
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_running_operation_can_hang() {
        let operations = DiskOperations::default();
        assert_eq!(operations.syncs.progress(), None);
        let running = operations.syncs.begin();
        let first = operations.syncs.progress();
        assert!(first.is_some());
        drop(running);
        assert_eq!(operations.syncs.progress(), None);
        let _running = operations.syncs.begin();
        assert!(operations.syncs.progress() > first, "each operation counts as progress");
        assert_eq!(operations.writes.progress(), None);
    }
}
