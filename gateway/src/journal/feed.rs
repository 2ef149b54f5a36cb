//! What the relay reads: the newest events from memory while it keeps up, else from the disk.

use std::collections::VecDeque;
use std::fs::File;
use std::io;

use super::log::{Kept, Log};
use super::record::{Entry, Kind};
use super::segment::{self, Beginning, Directory, Found, HEADER, Records};

/// How much waits for the relay in memory. If it falls further behind, it reads from the disk.
const MAX_BYTES: usize = 8 << 20;

/// The events that the relay has not taken.
#[derive(Debug)]
pub(super) struct Feed {
    /// Whether `queue` holds everything that the relay has not taken. Else all but what is in memory alone is on the disk.
    is_complete: bool,
    queue: VecDeque<(Entry, Kept)>,
    bytes: usize,
    /// The relay has been woken, and has taken nothing since.
    is_woken: bool,
}

/// Whether somebody waits for the broker to have an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Haste {
    /// It goes out at once, with all that lies before it.
    AtOnce,
    /// It goes out with the next one that does, or when the relay looks by itself, ten times a second.
    InPassing,
}

/// Where the relay reads from next.
#[derive(Debug)]
pub enum Source {
    /// These, and nothing before them is left.
    InOrder(Vec<Entry>),
    /// These, which are in memory alone; others before them are on the disk.
    OutOfOrder(Vec<Entry>),
    /// The disk.
    Disk,
}

impl Feed {
    /// A feed that begins on the disk.
    pub(super) fn behind() -> Self {
        Self { is_complete: false, queue: VecDeque::new(), bytes: 0, is_woken: false }
    }

    /// A new event. Returns whether the relay has to be woken for it.
    pub(super) fn push(&mut self, entry: &Entry, kept: Kept, haste: Haste) -> bool {
        let wakes = haste == Haste::AtOnce && !std::mem::replace(&mut self.is_woken, true);
        if !self.is_complete && kept == Kept::Written {
            return wakes;
        }
        self.bytes += entry.len();
        self.queue.push_back((entry.clone(), kept));
        if self.bytes > MAX_BYTES {
            self.is_complete = false;
            self.queue.retain(|(_, kept)| *kept == Kept::InMemory);
            self.bytes = self.queue.iter().map(|(entry, _)| entry.len()).sum();
        }
        wakes
    }

    /// The next events for the relay, at most so many.
    pub(super) fn take(&mut self, most: usize) -> Source {
        self.is_woken = false;
        if self.queue.is_empty() && !self.is_complete {
            return Source::Disk;
        }
        let taken = self.queue.len().min(most);
        let entries: Vec<Entry> = self.queue.drain(..taken).map(|(entry, _)| entry).collect();
        self.bytes -= entries.iter().map(Entry::len).sum::<usize>();
        if self.is_complete { Source::InOrder(entries) } else { Source::OutOfOrder(entries) }
    }

    /// Whether the relay has all but what is in memory.
    pub(super) fn keeps_up(&self) -> bool {
        self.is_complete
    }

    /// Whether there is nothing to take.
    pub(super) fn is_empty(&self) -> bool {
        self.is_complete && self.queue.is_empty()
    }

    /// The lowest number of an event that waits here.
    pub(super) fn lowest(&self) -> Option<u64> {
        self.queue.iter().map(|(entry, _)| entry.number).min()
    }

    /// The relay has read all that is on the disk.
    pub(super) fn caught_up(&mut self) {
        self.is_complete = true;
    }
}

/// A place in the log that is read from.
#[derive(Debug)]
pub struct Cursor {
    segment: u64,
    records: Option<Records>,
    /// Events below this are stepped over. It stays as it is all the way: a higher number may lie before a lower one.
    from: u64,
}

/// What was read.
#[derive(Debug)]
pub struct Batch {
    /// The events.
    pub entries: Vec<Entry>,
    /// In how many places something was damaged.
    pub damaged: u64,
    /// The end of this segment was reached.
    pub(super) is_over: bool,
}

impl Cursor {
    /// The beginning of this segment, for events of the number `from` and higher.
    pub(super) fn at(segment: u64, from: u64) -> Self {
        Self { segment, records: None, from }
    }

    /// Reads on, up to `end` in this segment: at most so many events, and little more than so many bytes.
    pub(super) fn read(
        &mut self,
        directory: &Directory,
        end: u64,
        most: usize,
        most_bytes: usize,
    ) -> io::Result<Batch> {
        let mut batch = Batch { entries: Vec::new(), damaged: 0, is_over: false };
        let mut bytes = 0;
        if self.records.is_none() {
            self.records = Some(open(directory, self.segment, end)?);
        }
        let Some(records) = &mut self.records else { return Ok(batch) };
        records.set_end(end);
        while batch.entries.len() < most && bytes < most_bytes {
            if records.at() >= end {
                batch.is_over = true;
                break;
            }
            match records.next()? {
                Found::Record(entry, gap) => {
                    batch.damaged += u64::from(gap.bytes > 0);
                    if entry.kind == Kind::Event && entry.number >= self.from {
                        bytes += entry.len();
                        batch.entries.push(entry);
                    }
                }
                Found::End(_, gap) => {
                    batch.damaged += u64::from(gap.bytes > 0);
                    batch.is_over = true;
                    break;
                }
            }
        }
        if batch.damaged > 0 {
            let segment = self.segment;
            tracing::error!(
                segment,
                places = batch.damaged,
                "records of the journal are damaged and were stepped over"
            );
        }
        Ok(batch)
    }

    /// Goes on, where this segment is over: to the next one if there is one. False if everything has been read.
    pub(super) fn advance(&mut self, log: &Log) -> bool {
        let (end, next) = log.extent(self.segment);
        if self.records.as_ref().is_none_or(|records| records.at() < end) {
            return true;
        }
        self.go_to(next)
    }

    /// Gives this segment up: it cannot be read. False if there is no other.
    pub(super) fn skip_segment(&mut self, log: &Log) -> bool {
        self.go_to(log.extent(self.segment).1)
    }

    /// Goes on at the beginning of this segment, if there is one.
    pub(super) fn go_to(&mut self, segment: Option<u64>) -> bool {
        segment.map(|segment| *self = Self::at(segment, self.from)).is_some()
    }

    pub(super) fn segment(&self) -> u64 {
        self.segment
    }
}

fn open(directory: &Directory, segment: u64, end: u64) -> io::Result<Records> {
    let file = File::open(directory.file(segment))?;
    let at = match segment::beginning(&file)? {
        Beginning::Good(_) => HEADER,
        // The records speak for themselves.
        Beginning::Damaged | Beginning::Unused | Beginning::OtherVersion(_) => 0,
    };
    Ok(Records::new(file, at, end))
}
