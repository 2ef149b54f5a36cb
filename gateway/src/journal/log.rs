//! The log: appending to segments, beginning new ones, reserving room, and letting go of what the broker has.
//!
//! Everything here happens under one lock and is short: an append is a checksum and one `pwrite`.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::event::Event;

use super::JournalError;
use super::open_chats::OpenChats;
use super::record::{Draft, Entry};
use super::segment::{Directory, HEADER, Header, Segment};

/// The largest segment that is made ahead of what goes into it.
const MAX_SEGMENT: u64 = 16 << 20;

/// The smallest, for journals with little room.
const MIN_SEGMENT: u64 = 256 << 10;

/// The room that is kept for the end of each running chat. A longer end takes from the common room.
pub(super) const ROOM_PER_CHAT: u64 = 64 << 10;

/// How much may wait in memory alone while nothing can be written.
const MAX_HELD_BYTES: usize = 64 << 20;

/// How much of what is not synced yet is remembered, in case syncing fails.
const MAX_UNSYNCED_BYTES: usize = 32 << 20;

/// How often syncing may fail in a row before the disk is given up for a while.
const MAX_FAILED_SYNCS: u32 = 2;

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
    next_number: u64,
    /// Where events go; `None` while nothing can be written.
    writer: Option<Writer>,
    /// Made ahead, so that the ends of running chats have room whatever becomes of the disk.
    spares: VecDeque<Arc<Segment>>,
    sealed: VecDeque<Sealed>,
    /// Every event below this is the broker's.
    released_below: u64,
    /// While set, what is released is kept: it is being published again.
    pub(super) keeps_all: bool,
    /// There is no more room, and that was said.
    is_short: bool,
    unsynced: Unsynced,
    /// Every event below this is on the disk.
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
}

/// A segment that is complete.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) number: u64,
    /// The highest number of an event in it or before it.
    pub(super) last: u64,
    pub(super) end: u64,
    pub(super) released_at: Option<Instant>,
}

/// What is written and may not be on the disk yet.
#[derive(Debug, Default)]
struct Unsynced {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// The segments that they are in, the one that is written to included.
    segments: Vec<Arc<Segment>>,
}

/// What is to be synced.
#[derive(Debug)]
pub(super) struct ToSync {
    pub(super) segments: Vec<Arc<Segment>>,
    /// The highest number of an event in them.
    pub(super) up_to: u64,
    /// The segment that was being written to: there may be more in it by the time that it is synced.
    writing: Option<u64>,
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

    /// Whether a chat can be begun: there is room for its start, this long, and for the ends of all that are running.
    pub(super) fn check_room(&mut self, len: usize) -> Result<(), JournalError> {
        if self.writer.is_none() {
            return Err(JournalError::Unwritable);
        }
        let len = len as u64;
        let needed = (self.open.len() as u64 + 1) * ROOM_PER_CHAT;
        if len > self.segment_size - HEADER {
            // It gets a segment of its own size.
            self.make_room(len + HEADER)?;
            return if self.reserved() < needed { self.add_spare() } else { Ok(()) };
        }
        while self.reserved() < needed + len {
            self.add_spare()?;
        }
        Ok(())
    }

    /// The room that there is on the disk for certain.
    fn reserved(&self) -> u64 {
        let ahead = self.spares.len() as u64 * (self.segment_size - HEADER);
        ahead + self.writer.as_ref().map_or(0, |writer| writer.size.saturating_sub(writer.at))
    }

    /// The size of all files.
    pub(super) fn bytes(&self) -> u64 {
        let sealed: u64 = self.sealed.iter().map(|sealed| sealed.end).sum();
        sealed + self.spares.len() as u64 * self.segment_size + self.writer.as_ref().map_or(0, |writer| writer.size)
    }

    fn add_spare(&mut self) -> Result<(), JournalError> {
        self.make_room(self.segment_size)?;
        match self.create(self.segment_size) {
            Ok(spare) => self.spares.push_back(Arc::new(spare)),
            Err(error) => {
                if !std::mem::replace(&mut self.is_short, true) {
                    tracing::error!(%error, "the journal cannot reserve room on the disk; new chats are refused");
                }
                return Err(JournalError::Full);
            }
        }
        self.is_short = false;
        Ok(())
    }

    /// Sees to it that a file of this size fits. Room for new chats is worth more than what is kept in case the broker
    /// loses it.
    fn make_room(&mut self, size: u64) -> Result<(), JournalError> {
        while self.bytes() + size > self.max_bytes {
            if !self.drop_first_released() {
                if !std::mem::replace(&mut self.is_short, true) {
                    tracing::error!(bytes = self.bytes(), "the journal is full; new chats are refused");
                }
                return Err(JournalError::Full);
            }
        }
        Ok(())
    }

    fn create(&mut self, size: u64) -> io::Result<Segment> {
        let number = self.next_segment;
        self.next_segment += 1;
        Segment::create(&self.directory, number, size)
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
        let renumbered = entry.renumbered(self.next_number, now_ms());
        self.next_number += 1;
        (self.keep(&renumbered) == Kept::Written).then_some(renumbered)
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
                Err(error) if self.writer.is_some() && entry.len() as u64 > self.segment_size - HEADER => {
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
        Ok(())
    }

    /// Begins the next segment, with room for a record of this length. It begins with who is open, so that those before it
    /// can go.
    fn rotate(&mut self, len: u64) -> io::Result<()> {
        let at_ms = now_ms();
        let open = self.open.records(at_ms);
        let needed = HEADER + open.len() as u64 + len;
        let (segment, size) = match self.spares.pop_front() {
            Some(spare) if needed <= self.segment_size => (spare, self.segment_size),
            spare => {
                // One that is too small for this is still good for another.
                self.spares.extend(spare);
                let size = needed.max(self.segment_size);
                (Arc::new(self.create(size)?), size)
            }
        };
        let header = Header { incarnation: self.incarnation, segment: segment.number, first: self.next_number, at_ms };
        segment.begin(&header)?;
        segment.write_at(&open, HEADER)?;
        self.seal();
        self.unsynced.segments.push(Arc::clone(&segment));
        self.writer = Some(Writer { segment, at: HEADER + open.len() as u64, size });
        Ok(())
    }

    /// Ends the segment that is written to, and gives back what it did not need.
    fn seal(&mut self) {
        if let Some(writer) = self.writer.take() {
            // If this fails, the file is longer than it has to be.
            let _ = writer.segment.truncate(writer.at);
            let last = self.next_number.saturating_sub(1);
            self.sealed.push_back(Sealed { number: writer.segment.number, last, end: writer.at, released_at: None });
        }
    }

    /// Nothing can be written. What was not synced may be lost with the disk that it is on, so it is kept in memory too.
    fn stop_writing(&mut self) {
        self.seal();
        self.spares.clear();
        self.held.extend(self.unsynced.entries.drain(..));
        self.held_bytes += std::mem::take(&mut self.unsynced.bytes);
        self.unsynced.segments.clear();
    }

    /// Tries to write again, beginning with what is in memory alone. Returns whether that works.
    pub(super) fn try_to_write(&mut self) -> bool {
        if self.rotate(0).is_err() {
            return false;
        }
        while let Some(entry) = self.held.front().cloned() {
            if let Err(error) = self.write(&entry) {
                tracing::error!(%error, "the journal still cannot be written");
                self.stop_writing();
                return false;
            }
            self.held.pop_front();
            self.held_bytes -= entry.len();
        }
        tracing::info!("the journal can be written again");
        true
    }

    /// What has to be synced.
    pub(super) fn to_sync(&self) -> Option<ToSync> {
        let writing = self.writer.as_ref().map(|writer| writer.segment.number);
        let is_begun = writing.is_none_or(|writing| writing <= self.begun);
        (!self.unsynced.entries.is_empty() || !is_begun).then(|| ToSync {
            segments: self.unsynced.segments.clone(),
            up_to: self.next_number - 1,
            writing,
        })
    }

    /// That has been synced.
    pub(super) fn synced(&mut self, done: &ToSync) {
        self.unsynced.forget(done.up_to);
        self.synced_below = self.synced_below.max(done.up_to + 1);
        self.failed_syncs = 0;
        self.begun = done.segments.iter().map(|segment| segment.number).fold(self.begun, u64::max);
        let is_done = |segment: &Segment| done.segments.iter().any(|other| other.number == segment.number);
        self.unsynced.segments.retain(|segment| Some(segment.number) == done.writing || !is_done(segment));
    }

    /// Syncing failed. What the kernel was to write may be gone although it can still be read, so these files are trusted no
    /// more: everything that was not synced before is written again, elsewhere.
    pub(super) fn sync_failed(&mut self) {
        self.failed_syncs += 1;
        if self.failed_syncs > MAX_FAILED_SYNCS {
            tracing::error!("the journal's disk cannot be synced; new chats are refused");
            return self.stop_writing();
        }
        let entries = std::mem::take(&mut self.unsynced).entries;
        let rewritten = self.rotate(0).and_then(|()| entries.iter().try_for_each(|entry| self.write(entry)));
        if let Err(error) = rewritten {
            tracing::error!(%error, "the journal can neither be synced nor written; new chats are refused");
            self.stop_writing();
            let is_held = |entry: &Entry| self.held.iter().any(|held| held.number == entry.number);
            let missing: Vec<Entry> = entries.into_iter().filter(|entry| !is_held(entry)).collect();
            self.held_bytes += missing.iter().map(Entry::len).sum::<usize>();
            self.held.extend(missing);
        }
    }

    /// The broker has this event: it need not wait in memory.
    pub(super) fn acknowledged(&mut self, number: u64) {
        if self.held.is_empty() {
            return;
        }
        self.held.retain(|entry| entry.number != number);
        self.held_bytes = self.held.iter().map(Entry::len).sum();
    }

    /// The broker has everything below this.
    pub(super) fn release_below(&mut self, number: u64) {
        self.released_below = self.released_below.max(number);
    }

    /// Lets go of segments that the broker has had for long enough.
    pub(super) fn forget_old(&mut self, now: Instant) {
        let released = self.sealed.iter_mut().take_while(|sealed| sealed.last < self.released_below);
        for sealed in released {
            sealed.released_at.get_or_insert(now);
        }
        let keep = self.keep;
        let is_old = |sealed: &Sealed| sealed.released_at.is_some_and(|at| now.duration_since(at) >= keep);
        while !self.keeps_all && self.sealed.front().is_some_and(is_old) && self.drop_first_released() {}
    }

    fn drop_first_released(&mut self) -> bool {
        let is_released = self.sealed.front().is_some_and(|sealed| sealed.last < self.released_below);
        // Who is open must be on the disk elsewhere before it can be forgotten here.
        let is_synced = self.sealed.front().is_some_and(|sealed| sealed.number < self.begun);
        if !is_released || !is_synced {
            return false;
        }
        let Some(sealed) = self.sealed.pop_front() else { return false };
        if let Err(error) = self.directory.remove(sealed.number) {
            tracing::error!(%error, segment = sealed.number, "a segment of the journal could not be removed");
        }
        true
    }

    /// The kept segments are to be kept for as long again.
    pub(super) fn keep_anew(&mut self) {
        self.sealed.iter_mut().for_each(|sealed| sealed.released_at = None);
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
        for spare in self.spares.drain(..) {
            let _ = self.directory.remove(spare.number);
        }
    }
}

impl Unsynced {
    fn push(&mut self, entry: &Entry) {
        self.bytes += entry.len();
        self.entries.push_back(entry.clone());
        while self.bytes > MAX_UNSYNCED_BYTES {
            // A disk that takes this long will not be helped by more memory.
            if let Some(oldest) = self.entries.pop_front() {
                self.bytes -= oldest.len();
            }
        }
    }

    fn forget(&mut self, up_to: u64) {
        while self.entries.front().is_some_and(|entry| entry.number <= up_to) {
            if let Some(entry) = self.entries.pop_front() {
                self.bytes -= entry.len();
            }
        }
    }
}

/// The present, in milliseconds since 1970.
fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
