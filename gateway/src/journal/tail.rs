//! What the relay reads: the newest events from memory while it keeps up, else from the disk.

use std::collections::VecDeque;

use super::log::Kept;
use super::record::Entry;

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
