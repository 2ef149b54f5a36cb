//! The log: an append-only sequence of segments, of which the newest is written to.
//!
//! All functions run under the lock of the disk, which only the journal's own threads take: any write may hang.

mod reservation;
mod retention;
mod show;
mod sync;
mod unsynced;
mod view;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock::now_ms;
use super::directory::LogDirectory;
use super::error::is_full;
use super::record::JournalEntry;
use super::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader, SpareSegment};
use super::unended_chats::{ChatChange, UnendedChats};
use unsynced::UnsyncedEntries;
pub(super) use view::LogView;
use view::SealedExtents;

/// The maximum size of a preallocated segment, in bytes. A segment has a sixteenth of the journal's maximum size,
/// within the two bounds.
const MAX_SEGMENT_BYTES: u64 = 16 << 20;

/// The minimum size of a preallocated segment, in bytes, for journals with little room.
const MIN_SEGMENT_BYTES: u64 = 256 << 10;

/// The maximum size of the entries held only in memory while the log cannot be written, in bytes. Further entries are
/// dropped.
const MAX_UNWRITTEN_BYTES: usize = 64 << 20;

/// The room reserved for the end of each running chat, in bytes. A longer end uses room that all chats
/// share.
pub(super) const BYTES_RESERVED_PER_CHAT: u64 = 64 << 10;

/// The state of the log: the active segment, the sealed and the spare segments, and the entries that are not on the
/// disk yet.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) directory: LogDirectory,
    pub(super) unended_chats: UnendedChats,
    incarnation: u64,
    segment_bytes: u64,
    max_bytes: u64,
    retention: Duration,
    next_segment: u64,
    next_spare_number: u64,
    next_number: u64,
    /// The segment to which entries are appended; `None` while the log cannot be written.
    active: Option<ActiveSegment>,
    /// Segments that are preallocated, so that the ends of running chats have room even if the disk becomes full.
    spare_segments: VecDeque<SpareSegment>,
    /// Complete segments in ascending order of their numbers, which is the order of writing.
    sealed: VecDeque<SealedSegment>,
    sealed_extents: SealedExtents,
    /// The number below which the broker has acknowledged every event.
    released_below: u64,
    /// While set, expired segments are kept, because the relay is publishing their events again.
    pub(super) is_retention_paused: bool,
    /// Set when a shortage of room has been logged, so that each shortage is logged once.
    is_shortage_reported: bool,
    unsynced: UnsyncedEntries,
    /// The number below which every event is on the disk. Entries held only in memory have this number or a higher one.
    synced_below: u64,
    /// The number of the newest segment that has been synced at least once.
    newest_synced_segment: u64,
    /// The number of syncs that have failed since the last successful sync.
    consecutive_failed_syncs: u32,
    /// Entries that could not be written, and are held only in memory.
    unwritten: VecDeque<JournalEntry>,
    unwritten_bytes: usize,
}

#[derive(Debug)]
struct ActiveSegment {
    segment: Arc<Segment>,
    offset: u64,
    capacity: u64,
    /// The lowest event number in the segment; `u64::MAX` while the segment has no events.
    lowest_number: u64,
}

/// A complete segment. Later entries go to newer segments.
#[derive(Debug)]
pub(super) struct SealedSegment {
    pub(super) number: u64,
    /// The lowest event number in the segment. An entry that is written late, or written again, follows entries with
    /// higher numbers, so this number may be lower than numbers in earlier segments.
    pub(super) lowest_number: u64,
    /// The highest event number in the segment and all earlier segments.
    pub(super) last_number: u64,
    pub(super) end_offset: u64,
    pub(super) released_at: Option<Instant>,
}

/// The place where an appended entry is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AppendOutcome {
    /// The entry is written to the log.
    Written,
    /// The log cannot be written, and the entry is held in memory.
    InMemory,
    /// The entry is lost: the log cannot be written, and the memory for unwritten entries is used up.
    Dropped,
}

/// The state with which a log starts, as found by recovery.
#[derive(Debug)]
pub(super) struct InitialState {
    pub(super) unended_chats: UnendedChats,
    pub(super) sealed: VecDeque<SealedSegment>,
    pub(super) next_segment: u64,
    pub(super) next_number: u64,
    pub(super) released_below: u64,
}

/// The maximum size of the log in bytes, and the time for which released segments are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogLimits {
    pub(super) max_bytes: u64,
    pub(super) retention: Duration,
}

impl Log {
    /// Starts a log behind the recovered segments, with a first segment of the new incarnation.
    pub(super) fn start(directory: LogDirectory, limits: LogLimits, initial: InitialState) -> io::Result<Self> {
        let mut log = Self {
            directory,
            unended_chats: initial.unended_chats,
            incarnation: rand::random(),
            segment_bytes: (limits.max_bytes / 16).clamp(MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES),
            max_bytes: limits.max_bytes,
            retention: limits.retention,
            next_segment: initial.next_segment,
            next_spare_number: 0,
            next_number: initial.next_number,
            active: None,
            spare_segments: VecDeque::new(),
            sealed: initial.sealed,
            sealed_extents: SealedExtents::default(),
            released_below: initial.released_below,
            is_retention_paused: false,
            is_shortage_reported: false,
            unsynced: UnsyncedEntries::default(),
            synced_below: initial.next_number,
            newest_synced_segment: 0,
            consecutive_failed_syncs: 0,
            unwritten: VecDeque::new(),
            unwritten_bytes: 0,
        };
        match log.rotate(0) {
            // A full disk is no reason to keep the recovered events: delivering the events makes room.
            Err(error) if is_full(&error) => {
                tracing::error!(%error, "the disk has no room for the journal; new chats are refused");
            }
            started => started?,
        }
        Ok(log)
    }

    /// Returns false while the log has stopped writing because the disk failed.
    pub(super) fn is_writable(&self) -> bool {
        self.active.is_some()
    }

    /// Creates a spare segment. On a full disk, released segments make room before their retention ends.
    fn create_spare_segment(&mut self, size: u64) -> io::Result<SpareSegment> {
        self.next_spare_number += 1;
        loop {
            match SpareSegment::create(&self.directory, self.next_spare_number, size) {
                Err(error) if is_full(&error) && self.remove_oldest_released_segment() => {}
                created => return created,
            }
        }
    }

    /// Appends an entry, whose number is higher than all before. If the log cannot be written, the entry is held in memory.
    pub(super) fn append(&mut self, entry: &JournalEntry, change: ChatChange) -> AppendOutcome {
        self.next_number = entry.number + 1;
        let outcome = self.write_or_hold(entry);
        if outcome != AppendOutcome::Dropped {
            self.unended_chats.apply(change);
        }
        outcome
    }

    /// Notes that the broker has an event that was never written, because the disk took too long.
    pub(super) fn skip(&mut self, number: u64, change: ChatChange) {
        self.next_number = number + 1;
        self.unended_chats.apply(change);
    }

    /// Appends a copy of an entry under a new number, which is higher than all before, so that the segments before the copy
    /// can be released. Returns `None` if the copy cannot be written.
    pub(super) fn append_again(&mut self, entry: &JournalEntry, number: u64) -> Option<JournalEntry> {
        self.next_number = number + 1;
        self.active.as_ref()?;
        let renumbered = entry.renumbered(number, now_ms());
        if let Err(error) = self.write(&renumbered) {
            tracing::error!(
                %error, bytes = entry.len(),
                "an event that the broker refuses for its size could not be appended to the journal again"
            );
            if !self.needs_own_segment(&renumbered) {
                self.stop_writing();
            }
            return None;
        }
        Some(renumbered)
    }

    fn write_or_hold(&mut self, entry: &JournalEntry) -> AppendOutcome {
        if self.active.is_some() {
            match self.write(entry) {
                Ok(()) => return AppendOutcome::Written,
                // A disk that has no room for a segment of this entry's own size may still have room for smaller
                // entries.
                Err(error) if self.needs_own_segment(entry) => {
                    tracing::error!(
                        %error, bytes = entry.len(),
                        "a large event could not be written to the journal; smaller events still can"
                    );
                }
                Err(error) => {
                    self.stop_writing();
                    tracing::error!(%error, "the journal cannot be written; new chats are refused");
                }
            }
        }
        if self.unwritten_bytes + entry.len() > MAX_UNWRITTEN_BYTES {
            return AppendOutcome::Dropped;
        }
        self.unwritten_bytes += entry.len();
        self.unwritten.push_back(entry.clone());
        AppendOutcome::InMemory
    }

    /// Returns true if the log can be written and the entry is larger than a preallocated segment: smaller entries can
    /// then be written even if this entry cannot.
    fn needs_own_segment(&self, entry: &JournalEntry) -> bool {
        self.active.is_some() && entry.len() as u64 > self.segment_bytes - SEGMENT_HEADER_BYTES
    }

    /// Writes an entry to the active segment, or to a new segment if the active segment is full or the write fails.
    fn write(&mut self, entry: &JournalEntry) -> io::Result<()> {
        let len = entry.len() as u64;
        if self.active.as_ref().is_none_or(|active| active.offset + len > active.capacity) {
            self.rotate(len)?;
        }
        if let Err(error) = self.write_to_active(entry) {
            tracing::warn!(%error, "a write to a segment of the journal failed; trying a new segment");
            self.rotate(len)?;
            self.write_to_active(entry)?;
        }
        self.unsynced.push(entry);
        Ok(())
    }

    fn write_to_active(&mut self, entry: &JournalEntry) -> io::Result<()> {
        let active = self.active.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        active.segment.write_at(entry.record(), active.offset)?;
        active.offset += entry.len() as u64;
        active.lowest_number = active.lowest_number.min(entry.number);
        Ok(())
    }

    /// Seals the active segment and activates the next, with room for a record of `len` bytes. The new segment starts
    /// with the records of all unended chats, so that earlier segments can be removed.
    fn rotate(&mut self, len: u64) -> io::Result<()> {
        let created_at_ms = now_ms();
        let unended = self.unended_chats.records(created_at_ms);
        let needed = SEGMENT_HEADER_BYTES + unended.len() as u64 + len;
        let size = needed.max(self.segment_bytes);
        // A spare segment that is too small for this record is kept for smaller records.
        let spare = if needed <= self.segment_bytes { self.spare_segments.pop_front() } else { None };
        let spare = spare.map_or_else(|| self.create_spare_segment(size), Ok)?;
        let header = SegmentHeader {
            incarnation: self.incarnation,
            segment: self.next_segment,
            first_number: self.next_number,
            created_at_ms,
        };
        self.next_segment += 1;
        let segment = Arc::new(spare.activate(&header)?);
        segment.write_at(&unended, SEGMENT_HEADER_BYTES)?;
        self.seal();
        self.unsynced.segments.push(Arc::clone(&segment));
        self.active = Some(ActiveSegment {
            segment,
            offset: SEGMENT_HEADER_BYTES + unended.len() as u64,
            capacity: size,
            lowest_number: u64::MAX,
        });
        Ok(())
    }

    /// Seals the active segment and truncates the file to the written length.
    fn seal(&mut self) {
        if let Some(active) = self.active.take() {
            // If truncation fails, the file is longer than necessary, which does no harm.
            let _ = active.segment.truncate(active.offset);
            let last_number = self.next_number.saturating_sub(1);
            let (number, lowest_number) = (active.segment.number, active.lowest_number);
            self.sealed.push_back(SealedSegment {
                number,
                lowest_number,
                last_number,
                end_offset: active.offset,
                released_at: None,
            });
        }
    }

    /// Stops writing after the disk has failed. Unsynced entries may be lost with their files, so all unsynced entries
    /// are held in memory until a retry succeeds.
    fn stop_writing(&mut self) {
        self.seal();
        self.spare_segments.drain(..).for_each(SpareSegment::discard);
        self.unwritten.extend(self.unsynced.entries.drain(..));
        self.unwritten_bytes += std::mem::take(&mut self.unsynced.bytes);
        self.unsynced.segments.clear();
    }

    /// Returns true if entries are held only in memory, because the disk did not accept them.
    pub(super) fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Returns the numbers of the entries held only in memory.
    pub(super) fn unwritten_numbers(&self) -> BTreeSet<u64> {
        self.unwritten.iter().map(|entry| entry.number).collect()
    }

    /// Tries to write the entries held only in memory, to a new segment if there is no active segment. Returns true if
    /// no entry is left in memory.
    pub(super) fn write_unwritten(&mut self) -> bool {
        let was_writable = self.is_writable();
        if !was_writable && self.rotate(0).is_err() {
            return false;
        }
        let mut still_unwritten = VecDeque::new();
        while let Some(entry) = self.unwritten.pop_front() {
            self.unwritten_bytes -= entry.len();
            let Err(error) = self.write(&entry) else { continue };
            self.unwritten_bytes += entry.len();
            if self.needs_own_segment(&entry) {
                still_unwritten.push_back(entry);
                continue;
            }
            tracing::error!(%error, "the journal still cannot be written");
            self.unwritten.push_front(entry);
            self.stop_writing();
            break;
        }
        still_unwritten.append(&mut self.unwritten);
        self.unwritten = still_unwritten;
        if self.is_writable() && !was_writable {
            tracing::info!("the journal can be written again");
        }
        self.unwritten.is_empty()
    }

    /// Drops an event held in memory, because the broker has acknowledged the event.
    pub(super) fn drop_acknowledged(&mut self, number: u64) {
        if self.unwritten.is_empty() {
            return;
        }
        self.unwritten.retain(|entry| entry.number != number);
        self.unwritten_bytes = self.unwritten.iter().map(JournalEntry::len).sum();
    }

    /// Returns the number after the highest number in the log.
    pub(super) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Gives the unused reserved room back to the disk. Nothing may be written afterwards.
    pub(super) fn close(&mut self) {
        self.seal();
        self.spare_segments.drain(..).for_each(SpareSegment::discard);
    }
}
