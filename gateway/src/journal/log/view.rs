//! A copy of the facts about the log that callers and the relay need, so that neither needs the lock of the disk.

use std::sync::Arc;

/// The facts about the log, as of the last operation of one of the journal's threads.
#[derive(Clone, Debug)]
pub(in crate::journal) struct LogView {
    /// False while the log has stopped writing because the disk failed.
    pub(in crate::journal) is_writable: bool,
    /// True if entries are held only in memory, because the disk did not accept them.
    pub(in crate::journal) has_unwritten: bool,
    /// True if a sync would bring something to the disk.
    pub(in crate::journal) has_unsynced: bool,
    /// The number below which every event is on the disk.
    pub(in crate::journal) synced_below: u64,
    /// The number after the highest number in the log.
    pub(in crate::journal) next_number: u64,
    /// The number of bytes on the disk that are reserved for no running chat.
    pub(in crate::journal) free_bytes: u64,
    /// The size of all segment files in bytes, spare segments included.
    pub(in crate::journal) disk_bytes: u64,
    pub(super) sealed: Arc<[SegmentExtent]>,
    pub(super) active: Option<SegmentExtent>,
}

/// The events and the size of a segment.
#[derive(Clone, Copy, Debug)]
pub(in crate::journal) struct SegmentExtent {
    pub(super) number: u64,
    pub(super) lowest_number: u64,
    pub(super) last_number: u64,
    pub(super) end_offset: u64,
}

/// The extents of the sealed segments, shared with the views. Made again when the sealed segments have changed.
#[derive(Debug)]
pub(super) struct SealedExtents {
    pub(super) extents: Arc<[SegmentExtent]>,
    pub(super) bytes: u64,
}

impl Default for SealedExtents {
    fn default() -> Self {
        Self { extents: Arc::new([]), bytes: 0 }
    }
}

impl LogView {
    fn segments(&self) -> impl Iterator<Item = &SegmentExtent> {
        self.sealed.iter().chain(&self.active)
    }

    /// Returns true if the log has complete segments, which are removed after their retention.
    pub(in crate::journal) fn has_sealed_segments(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// Returns the number of the oldest segment.
    pub(in crate::journal) fn oldest_segment(&self) -> Option<u64> {
        self.segments().next().map(|segment| segment.number)
    }

    /// Returns the first segment that may hold events numbered `number` or higher.
    pub(in crate::journal) fn segment_containing(&self, number: u64) -> Option<u64> {
        self.segments().find(|segment| segment.last_number >= number).map(|segment| segment.number)
    }

    /// Returns the lowest event number in the given segment and all later segments.
    pub(in crate::journal) fn lowest_number_from(&self, segment: u64) -> Option<u64> {
        self.segments().filter(|other| other.number >= segment).map(|other| other.lowest_number).min()
    }

    /// Returns the file offset at which the segment ends, and the number of the next segment. The offset is 0 if the
    /// segment has been removed.
    pub(in crate::journal) fn extent(&self, segment: u64) -> (u64, Option<u64>) {
        let mut following = self.segments().skip_while(|other| other.number < segment).peekable();
        let end = following.next_if(|other| other.number == segment).map_or(0, |found| found.end_offset);
        (end, following.next().map(|next| next.number))
    }
}
