//! The log: appending to segments, and beginning new ones.
//!
//! Everything here happens under one lock and is short: an append is a checksum and one `pwrite`.

mod lookup;
mod reservation;
mod retention;
mod sync;
mod unsynced;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::event::Event;

use super::clock::now_ms;
use super::record::{JournalEntry, UnnumberedRecord};
use super::segment::{LogDirectory, SEGMENT_HEADER_BYTES, Segment, SegmentHeader, SpareSegment};
use super::unended_chats::UnendedChats;
pub(super) use unsynced::SyncBatch;
use unsynced::UnsyncedEntries;

/// The largest segment that is made ahead of what goes into it.
const MAX_SEGMENT_BYTES: u64 = 16 << 20;

/// The smallest, for journals with little room.
const MIN_SEGMENT_BYTES: u64 = 256 << 10;

/// How much may wait in memory alone while nothing can be written.
const MAX_UNWRITTEN_BYTES: usize = 64 << 20;

/// The log.
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
    /// Where events go; `None` while nothing can be written.
    active: Option<ActiveSegment>,
    /// Made ahead, so that the ends of running chats have room whatever becomes of the disk.
    spare_segments: VecDeque<SpareSegment>,
    /// In the order in which they were written, which is that of their numbers.
    sealed: VecDeque<SealedSegment>,
    /// Every event below this is the broker's.
    released_below: u64,
    /// While set, what is released is kept: it is being published again.
    pub(super) is_retention_paused: bool,
    /// There is no more room, and that was said.
    is_shortage_reported: bool,
    unsynced: UnsyncedEntries,
    /// Every event below this is on the disk; none that is in memory alone is below it.
    synced_below: u64,
    /// The newest segment whose beginning is on the disk.
    newest_synced_segment: u64,
    /// How often syncing has failed since it last worked.
    consecutive_failed_syncs: u32,
    /// What could not be written: it is in memory alone.
    unwritten: VecDeque<JournalEntry>,
    unwritten_bytes: usize,
}

#[derive(Debug)]
struct ActiveSegment {
    segment: Arc<Segment>,
    offset: u64,
    capacity: u64,
    /// The lowest number of an event in it.
    lowest_number: u64,
}

/// A segment that is complete.
#[derive(Debug)]
pub(super) struct SealedSegment {
    pub(super) number: u64,
    /// The lowest number of an event in it. What had to be written again, or later than others, is behind higher ones.
    pub(super) lowest_number: u64,
    /// The highest number of an event in it or before it.
    pub(super) last_number: u64,
    pub(super) end_offset: u64,
    pub(super) released_at: Option<Instant>,
}

/// How an entry was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AppendOutcome {
    /// It is in the log.
    Written,
    /// The log cannot be written. It is in memory.
    InMemory,
    /// Not even that: too much is there already.
    Dropped,
}

/// What a log begins with: what recovery found.
#[derive(Debug)]
pub(super) struct InitialState {
    pub(super) unended_chats: UnendedChats,
    pub(super) sealed: VecDeque<SealedSegment>,
    pub(super) next_segment: u64,
    pub(super) next_number: u64,
    pub(super) released_below: u64,
}

/// How large the log may become, and how long it keeps what it need not.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogLimits {
    pub(super) max_bytes: u64,
    pub(super) retention: Duration,
}

impl Log {
    /// Begins a segment of this incarnation after what is there.
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
        log.rotate(0)?;
        Ok(log)
    }

    /// Whether the log can be written, as far as is known.
    pub(super) fn is_writable(&self) -> bool {
        self.active.is_some()
    }

    fn create_spare_segment(&mut self, size: u64) -> io::Result<SpareSegment> {
        self.next_spare_number += 1;
        SpareSegment::create(&self.directory, self.next_spare_number, size)
    }

    /// Appends an event. Where the log cannot be written it is kept in memory.
    pub(super) fn append(&mut self, event: &Event, record: UnnumberedRecord) -> (JournalEntry, AppendOutcome) {
        let entry = self.assign_number(record);
        let outcome = self.write_or_hold(&entry);
        if outcome != AppendOutcome::Dropped {
            self.unended_chats.apply(event);
        }
        (entry, outcome)
    }

    /// Appends an event once more, under a new number, so that what is before it can be let go of.
    pub(super) fn append_again(&mut self, entry: &JournalEntry) -> Option<JournalEntry> {
        self.active.as_ref()?;
        let renumbered = entry.renumbered(self.next_number, now_ms());
        self.next_number += 1;
        if let Err(error) = self.write(&renumbered) {
            tracing::error!(%error, bytes = entry.len(), "an event could not be written to the journal once more");
            if !self.needs_own_segment(&renumbered) {
                self.stop_writing();
            }
            return None;
        }
        Some(renumbered)
    }

    fn assign_number(&mut self, record: UnnumberedRecord) -> JournalEntry {
        let number = self.next_number;
        self.next_number += 1;
        record.assign_number(number, now_ms())
    }

    fn write_or_hold(&mut self, entry: &JournalEntry) -> AppendOutcome {
        if self.active.is_some() {
            match self.write(entry) {
                Ok(()) => return AppendOutcome::Written,
                // What needs a segment of its own size may not fit where others still do.
                Err(error) if self.needs_own_segment(entry) => {
                    tracing::error!(%error, bytes = entry.len(), "a large event could not be written to the journal");
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

    /// Whether others can still be written where this one cannot: it is too large for the segments that are made ahead.
    fn needs_own_segment(&self, entry: &JournalEntry) -> bool {
        self.active.is_some() && entry.len() as u64 > self.segment_bytes - SEGMENT_HEADER_BYTES
    }

    /// Writes an entry where there is room; if the segment fails, into the next one.
    fn write(&mut self, entry: &JournalEntry) -> io::Result<()> {
        let len = entry.len() as u64;
        if self.active.as_ref().is_none_or(|active| active.offset + len > active.capacity) {
            self.rotate(len)?;
        }
        if let Err(error) = self.write_to_active(entry) {
            tracing::warn!(%error, "a segment of the journal failed; trying a new one");
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

    /// Begins the next segment, with room for a record of this length. It begins with who is open, so that those before it
    /// can go.
    fn rotate(&mut self, len: u64) -> io::Result<()> {
        let created_at_ms = now_ms();
        let unended = self.unended_chats.records(created_at_ms);
        let needed = SEGMENT_HEADER_BYTES + unended.len() as u64 + len;
        let size = needed.max(self.segment_bytes);
        // One that is too small for this is still good for another.
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

    /// Ends the segment that is written to, and gives back what it did not need.
    fn seal(&mut self) {
        if let Some(active) = self.active.take() {
            // If this fails, the file is longer than it has to be.
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

    /// Nothing can be written. What was not synced may be lost with the disk that it is on, so it is kept in memory too.
    fn stop_writing(&mut self) {
        self.seal();
        self.spare_segments.drain(..).for_each(SpareSegment::discard);
        self.unwritten.extend(self.unsynced.entries.drain(..));
        self.unwritten_bytes += std::mem::take(&mut self.unsynced.bytes);
        self.unsynced.segments.clear();
    }

    /// Whether something is in memory alone, for want of a disk that takes it.
    pub(super) fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// The numbers of those events.
    pub(super) fn unwritten_numbers(&self) -> BTreeSet<u64> {
        self.unwritten.iter().map(|entry| entry.number).collect()
    }

    /// Tries to write again, beginning with what is in memory alone. Returns whether nothing is left there.
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

    /// The broker has this event: it need not wait in memory.
    pub(super) fn drop_acknowledged(&mut self, number: u64) {
        if self.unwritten.is_empty() {
            return;
        }
        self.unwritten.retain(|entry| entry.number != number);
        self.unwritten_bytes = self.unwritten.iter().map(JournalEntry::len).sum();
    }

    /// Every event below this is on the disk.
    pub(super) fn synced_below(&self) -> u64 {
        self.synced_below
    }

    /// The number that the next event will have.
    pub(super) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Every event below this is the broker's.
    pub(super) fn released_below(&self) -> u64 {
        self.released_below
    }

    /// Gives back the room that was reserved. Nothing is written after this.
    pub(super) fn close(&mut self) {
        self.seal();
        self.spare_segments.drain(..).for_each(SpareSegment::discard);
    }
}
