//! The log: appending to segments, and beginning new ones.
//!
//! Everything here happens under one lock and is short: an append is a checksum and one `pwrite`.

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
use super::open_chats::OpenChats;
use super::record::{Draft, Entry};
use super::segment::{Directory, HEADER, Header, Segment, Spare};
pub(super) use unsynced::ToSync;
use unsynced::Unsynced;

/// The largest segment that is made ahead of what goes into it.
const MAX_SEGMENT: u64 = 16 << 20;

/// The smallest, for journals with little room.
const MIN_SEGMENT: u64 = 256 << 10;

/// How much may wait in memory alone while nothing can be written.
const MAX_HELD_BYTES: usize = 64 << 20;

/// The log.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) directory: Directory,
    pub(super) open: OpenChats,
    incarnation: u64,
    segment_size: u64,
    max_bytes: u64,
    keep: Duration,
    next_segment: u64,
    next_spare: u64,
    next_number: u64,
    /// Where events go; `None` while nothing can be written.
    writer: Option<Writer>,
    /// Made ahead, so that the ends of running chats have room whatever becomes of the disk.
    spares: VecDeque<Spare>,
    /// In the order in which they were written, which is that of their numbers.
    sealed: VecDeque<Sealed>,
    /// Every event below this is the broker's.
    released_below: u64,
    /// While set, what is released is kept: it is being published again.
    pub(super) keeps_all: bool,
    /// There is no more room, and that was said.
    is_short: bool,
    unsynced: Unsynced,
    /// Every event below this is on the disk; none that is in memory alone is below it.
    synced_below: u64,
    /// The newest segment whose beginning is on the disk.
    begun: u64,
    /// How often syncing has failed since it last worked.
    failed_syncs: u32,
    /// What could not be written: it is in memory alone.
    held: VecDeque<Entry>,
    held_bytes: usize,
}

#[derive(Debug)]
struct Writer {
    segment: Arc<Segment>,
    at: u64,
    size: u64,
    /// The lowest number of an event in it.
    lowest: u64,
}

/// A segment that is complete.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) number: u64,
    /// The lowest number of an event in it. What had to be written again, or later than others, is behind higher ones.
    pub(super) lowest: u64,
    /// The highest number of an event in it or before it.
    pub(super) last: u64,
    pub(super) end: u64,
    pub(super) released_at: Option<Instant>,
}

/// How an entry was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It is in the log.
    Written,
    /// The log cannot be written. It is in memory.
    InMemory,
    /// Not even that: too much is there already.
    Nowhere,
}

/// What a log begins with: what recovery found.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) open: OpenChats,
    pub(super) sealed: VecDeque<Sealed>,
    pub(super) next_segment: u64,
    pub(super) next_number: u64,
    pub(super) released_below: u64,
}

/// How large the log may become, and how long it keeps what it need not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) max_bytes: u64,
    pub(super) keep: Duration,
}

impl Log {
    /// Begins a segment of this incarnation after what is there.
    pub(super) fn begin(directory: Directory, bounds: Bounds, beginning: Beginning) -> io::Result<Self> {
        let mut log = Self {
            directory,
            open: beginning.open,
            incarnation: rand::random(),
            segment_size: (bounds.max_bytes / 16).clamp(MIN_SEGMENT, MAX_SEGMENT),
            max_bytes: bounds.max_bytes,
            keep: bounds.keep,
            next_segment: beginning.next_segment,
            next_spare: 0,
            next_number: beginning.next_number,
            writer: None,
            spares: VecDeque::new(),
            sealed: beginning.sealed,
            released_below: beginning.released_below,
            keeps_all: false,
            is_short: false,
            unsynced: Unsynced::default(),
            synced_below: beginning.next_number,
            begun: 0,
            failed_syncs: 0,
            held: VecDeque::new(),
            held_bytes: 0,
        };
        log.rotate(0)?;
        Ok(log)
    }

    /// Whether the log can be written, as far as is known.
    pub(super) fn is_writable(&self) -> bool {
        self.writer.is_some()
    }

    fn create_spare(&mut self, size: u64) -> io::Result<Spare> {
        self.next_spare += 1;
        Spare::create(&self.directory, self.next_spare, size)
    }

    /// Appends an event. Where the log cannot be written it is kept in memory.
    pub(super) fn append(&mut self, event: &Event, draft: Draft) -> (Entry, Kept) {
        let entry = self.number(draft);
        let kept = self.keep(&entry);
        if kept != Kept::Nowhere {
            self.open.saw(event);
        }
        (entry, kept)
    }

    /// Appends an event once more, under a new number, so that what is before it can be let go of.
    pub(super) fn append_again(&mut self, entry: &Entry) -> Option<Entry> {
        self.writer.as_ref()?;
        let renumbered = entry.renumbered(self.next_number, now_ms());
        self.next_number += 1;
        if let Err(error) = self.write(&renumbered) {
            tracing::error!(%error, bytes = entry.len(), "an event could not be written to the journal once more");
            if !self.is_written_beside(&renumbered) {
                self.stop_writing();
            }
            return None;
        }
        Some(renumbered)
    }

    fn number(&mut self, draft: Draft) -> Entry {
        let number = self.next_number;
        self.next_number += 1;
        draft.number(number, now_ms())
    }

    fn keep(&mut self, entry: &Entry) -> Kept {
        if self.writer.is_some() {
            match self.write(entry) {
                Ok(()) => return Kept::Written,
                // What needs a segment of its own size may not fit where others still do.
                Err(error) if self.is_written_beside(entry) => {
                    tracing::error!(%error, bytes = entry.len(), "a large event could not be written to the journal");
                }
                Err(error) => {
                    self.stop_writing();
                    tracing::error!(%error, "the journal cannot be written; new chats are refused");
                }
            }
        }
        if self.held_bytes + entry.len() > MAX_HELD_BYTES {
            return Kept::Nowhere;
        }
        self.held_bytes += entry.len();
        self.held.push_back(entry.clone());
        Kept::InMemory
    }

    /// Whether others can still be written where this one cannot: it is too large for the segments that are made ahead.
    fn is_written_beside(&self, entry: &Entry) -> bool {
        self.writer.is_some() && entry.len() as u64 > self.segment_size - HEADER
    }

    /// Writes an entry where there is room; if the segment fails, into the next one.
    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let len = entry.len() as u64;
        if self.writer.as_ref().is_none_or(|writer| writer.at + len > writer.size) {
            self.rotate(len)?;
        }
        if let Err(error) = self.write_here(entry) {
            tracing::warn!(%error, "a segment of the journal failed; trying a new one");
            self.rotate(len)?;
            self.write_here(entry)?;
        }
        self.unsynced.push(entry);
        Ok(())
    }

    fn write_here(&mut self, entry: &Entry) -> io::Result<()> {
        let writer = self.writer.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        writer.segment.write_at(entry.record(), writer.at)?;
        writer.at += entry.len() as u64;
        writer.lowest = writer.lowest.min(entry.number);
        Ok(())
    }

    /// Begins the next segment, with room for a record of this length. It begins with who is open, so that those before it
    /// can go.
    fn rotate(&mut self, len: u64) -> io::Result<()> {
        let at_ms = now_ms();
        let open = self.open.records(at_ms);
        let needed = HEADER + open.len() as u64 + len;
        let size = needed.max(self.segment_size);
        // One that is too small for this is still good for another.
        let spare = if needed <= self.segment_size { self.spares.pop_front() } else { None };
        let spare = spare.map_or_else(|| self.create_spare(size), Ok)?;
        let header =
            Header { incarnation: self.incarnation, segment: self.next_segment, first: self.next_number, at_ms };
        self.next_segment += 1;
        let segment = Arc::new(spare.begin(&header)?);
        segment.write_at(&open, HEADER)?;
        self.seal();
        self.unsynced.segments.push(Arc::clone(&segment));
        self.writer = Some(Writer { segment, at: HEADER + open.len() as u64, size, lowest: u64::MAX });
        Ok(())
    }

    /// Ends the segment that is written to, and gives back what it did not need.
    fn seal(&mut self) {
        if let Some(writer) = self.writer.take() {
            // If this fails, the file is longer than it has to be.
            let _ = writer.segment.truncate(writer.at);
            let last = self.next_number.saturating_sub(1);
            let (number, lowest) = (writer.segment.number, writer.lowest);
            self.sealed.push_back(Sealed { number, lowest, last, end: writer.at, released_at: None });
        }
    }

    /// Nothing can be written. What was not synced may be lost with the disk that it is on, so it is kept in memory too.
    fn stop_writing(&mut self) {
        self.seal();
        self.spares.drain(..).for_each(Spare::discard);
        self.held.extend(self.unsynced.entries.drain(..));
        self.held_bytes += std::mem::take(&mut self.unsynced.bytes);
        self.unsynced.segments.clear();
    }

    /// Whether something is in memory alone, for want of a disk that takes it.
    pub(super) fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    /// The numbers of those events.
    pub(super) fn held(&self) -> BTreeSet<u64> {
        self.held.iter().map(|entry| entry.number).collect()
    }

    /// Tries to write again, beginning with what is in memory alone. Returns whether nothing is left there.
    pub(super) fn try_to_write(&mut self) -> bool {
        let was_writable = self.is_writable();
        if !was_writable && self.rotate(0).is_err() {
            return false;
        }
        let mut left = VecDeque::new();
        while let Some(entry) = self.held.pop_front() {
            self.held_bytes -= entry.len();
            let Err(error) = self.write(&entry) else { continue };
            self.held_bytes += entry.len();
            if self.is_written_beside(&entry) {
                left.push_back(entry);
                continue;
            }
            tracing::error!(%error, "the journal still cannot be written");
            self.held.push_front(entry);
            self.stop_writing();
            break;
        }
        left.append(&mut self.held);
        self.held = left;
        if self.is_writable() && !was_writable {
            tracing::info!("the journal can be written again");
        }
        self.held.is_empty()
    }

    /// The broker has this event: it need not wait in memory.
    pub(super) fn acknowledged(&mut self, number: u64) {
        if self.held.is_empty() {
            return;
        }
        self.held.retain(|entry| entry.number != number);
        self.held_bytes = self.held.iter().map(Entry::len).sum();
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

    /// The first segment that there is.
    pub(super) fn first_segment(&self) -> Option<u64> {
        self.sealed.front().map(|sealed| sealed.number).or(self.writer.as_ref().map(|writer| writer.segment.number))
    }

    /// The first segment with an event of this number or a higher one.
    pub(super) fn segment_of(&self, number: u64) -> Option<u64> {
        let sealed = self.sealed.iter().find(|sealed| sealed.last >= number).map(|sealed| sealed.number);
        sealed.or(self.writer.as_ref().map(|writer| writer.segment.number))
    }

    /// The lowest number of an event in this segment, or in one after it.
    pub(super) fn lowest_from(&self, segment: u64) -> Option<u64> {
        let sealed = self.sealed.iter().map(|sealed| (sealed.number, sealed.lowest));
        let all = sealed.chain(self.writer.iter().map(|writer| (writer.segment.number, writer.lowest)));
        all.filter(|(number, _)| *number >= segment).map(|(_, lowest)| lowest).min()
    }

    /// Where this segment ends, and the one after it.
    pub(super) fn extent(&self, segment: u64) -> (u64, Option<u64>) {
        let mut extents = self
            .sealed
            .iter()
            .map(|sealed| (sealed.number, sealed.end))
            .chain(self.writer.iter().map(|writer| (writer.segment.number, writer.at)))
            .skip_while(|(number, _)| *number < segment);
        let mut next = extents.next();
        let end = match next {
            Some((number, end)) if number == segment => {
                next = extents.next();
                end
            }
            _ => 0,
        };
        (end, next.map(|(number, _)| number))
    }

    /// Gives back the room that was reserved. Nothing is written after this.
    pub(super) fn close(&mut self) {
        self.seal();
        self.spares.drain(..).for_each(Spare::discard);
    }
}
