//! How far a rebuild or a comparison is.

use super::reprojection::ReprojectionStats;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebuildPhase {
    /// Projecting, with so many events in the log.
    Projecting {
        /// In the log.
        events: u64,
    },
    /// Taking over what is older than the log.
    CarryingOver,
    /// Making the indexes.
    Indexing,
    /// Waiting for a moment at which nobody is busy with the live tables.
    Swapping,
    /// Comparing with the live tables.
    Comparing,
}

/// Tells someone how far it is.
pub trait ProgressListener: Sync {
    /// A phase begins.
    fn phase_started(&self, phase: RebuildPhase);
    /// So much is done.
    fn advanced(&self, stats: ReprojectionStats);
}
