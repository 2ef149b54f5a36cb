//! The progress reports of a rebuild or a comparison.

use super::reprojection::ReprojectionStats;

/// A phase of a rebuild or a comparison, in the order of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebuildPhase {
    /// Projecting the log into the shadow.
    Projecting {
        /// The number of events in the log at the start.
        events: u64,
    },
    /// Copying rows that are older than the log.
    CarryingOver,
    /// Creating the indexes of the shadow.
    Indexing,
    /// Waiting for a moment without other users of the live tables, and swapping.
    Swapping,
    /// Comparing the shadow with the live tables.
    Comparing,
    /// Making lost events again.
    Restoring,
}

/// A listener for the progress of a rebuild or a comparison.
pub trait ProgressListener: Sync {
    /// Reports the beginning of a phase.
    fn phase_started(&self, phase: RebuildPhase);
    /// Reports the totals so far, after each batch.
    fn advanced(&self, stats: ReprojectionStats);
}
