//! What the relay reads: the newest events from memory while it keeps up, else from the disk.

use std::collections::VecDeque;

use super::log::AppendOutcome;
use super::record::JournalEntry;

/// How much waits for the relay in memory. If it falls further behind, it reads from the disk.
const MAX_TAIL_BYTES: usize = 8 << 20;

/// The events that the relay has not taken.
#[derive(Debug)]
pub(super) struct Tail {
    /// Whether `queue` holds everything that the relay has not taken. Else all but what is in memory alone is on the disk.
    is_complete: bool,
    queue: VecDeque<(JournalEntry, AppendOutcome)>,
    bytes: usize,
    /// The relay has been woken, and has taken nothing since.
    is_woken: bool,
}

/// Whether somebody waits for the broker to have an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Priority {
    /// It goes out at once, with all that lies before it.
    Immediate,
    /// It goes out with the next one that does, or when the relay looks by itself, ten times a second.
    Deferred,
}

/// Where the relay reads from next.
#[derive(Debug)]
pub enum TailRead {
    /// These, and nothing before them is left.
    InOrder(Vec<JournalEntry>),
    /// These, which are in memory alone; others before them are on the disk.
    OutOfOrder(Vec<JournalEntry>),
    /// The disk.
    OnDisk,
}

impl Tail {
    /// A tail that begins on the disk.
    pub(super) fn starting_on_disk() -> Self {
        Self { is_complete: false, queue: VecDeque::new(), bytes: 0, is_woken: false }
    }

    /// A new event. Returns whether the relay has to be woken for it.
    pub(super) fn push(&mut self, entry: &JournalEntry, appended: AppendOutcome, priority: Priority) -> bool {
        let must_wake = priority == Priority::Immediate && !std::mem::replace(&mut self.is_woken, true);
        if !self.is_complete && appended == AppendOutcome::Written {
            return must_wake;
        }
        self.bytes += entry.len();
        self.queue.push_back((entry.clone(), appended));
        if self.bytes > MAX_TAIL_BYTES {
            self.is_complete = false;
            self.queue.retain(|(_, appended)| *appended == AppendOutcome::InMemory);
            self.bytes = self.queue.iter().map(|(entry, _)| entry.len()).sum();
        }
        must_wake
    }

    /// The next events for the relay, at most so many.
    pub(super) fn take(&mut self, max_entries: usize) -> TailRead {
        self.is_woken = false;
        if self.queue.is_empty() && !self.is_complete {
            return TailRead::OnDisk;
        }
        let taken = self.queue.len().min(max_entries);
        let entries: Vec<JournalEntry> = self.queue.drain(..taken).map(|(entry, _)| entry).collect();
        self.bytes -= entries.iter().map(JournalEntry::len).sum::<usize>();
        if self.is_complete { TailRead::InOrder(entries) } else { TailRead::OutOfOrder(entries) }
    }

    /// Whether the relay has all but what is in memory.
    pub(super) fn is_caught_up(&self) -> bool {
        self.is_complete
    }

    /// Whether there is nothing to take.
    pub(super) fn is_empty(&self) -> bool {
        self.is_complete && self.queue.is_empty()
    }

    /// The lowest number of an event that waits here.
    pub(super) fn lowest_number(&self) -> Option<u64> {
        self.queue.iter().map(|(entry, _)| entry.number).min()
    }

    /// The relay has read all that is on the disk.
    pub(super) fn mark_caught_up(&mut self) {
        self.is_complete = true;
    }
}
