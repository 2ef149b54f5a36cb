//! The tail of the log: the newest entries, held in memory for a relay that keeps up. A relay that falls behind reads
//! from the disk.

use std::collections::VecDeque;

use super::log::AppendOutcome;
use super::record::JournalEntry;

/// The maximum size of the entries held for the relay, in bytes. A relay that falls further behind reads from the disk.
const MAX_TAIL_BYTES: usize = 8 << 20;

/// The newest entries that the relay has not taken yet.
#[derive(Debug)]
pub(super) struct Tail {
    /// True if `queue` holds every entry that the relay has not taken. If false, `queue` holds only entries that could
    /// not be written, and the relay reads all other entries from the disk.
    is_complete: bool,
    queue: VecDeque<(JournalEntry, AppendOutcome)>,
    bytes: usize,
    /// True if the relay has been woken and has taken no entries since.
    is_woken: bool,
}

/// The urgency of publishing an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Priority {
    /// The relay is woken at once, and publishes the entry together with all earlier entries.
    Immediate,
    /// The relay publishes the entry together with the next immediate entry, or at its next tick, every 100 ms.
    Deferred,
}

/// The result of taking entries from the tail.
#[derive(Debug)]
pub enum TailRead {
    /// The next entries in order. All earlier entries have been taken.
    InOrder(Vec<JournalEntry>),
    /// Entries that are held only in memory. Earlier entries may remain on the disk.
    OutOfOrder(Vec<JournalEntry>),
    /// The tail has no entries; the relay has to read from the disk.
    OnDisk,
}

impl Tail {
    /// Returns an empty tail for a relay that starts reading from the disk.
    pub(super) fn starting_on_disk() -> Self {
        Self { is_complete: false, queue: VecDeque::new(), bytes: 0, is_woken: false }
    }

    /// Adds a new entry. Returns true if the relay has to be woken for the entry.
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

    /// Notes that an entry, which was held only in memory, is in the log. A relay that is behind reads the entry from the
    /// disk.
    pub(super) fn mark_written(&mut self, number: u64) {
        let Some(at) = self.queue.iter().position(|(entry, _)| entry.number == number) else { return };
        if self.is_complete {
            self.queue[at].1 = AppendOutcome::Written;
        } else if let Some((entry, _)) = self.queue.remove(at) {
            self.bytes -= entry.len();
        }
    }

    /// Takes at most `max_entries` entries.
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

    /// Returns true if the relay has read all entries from the disk and takes new entries from memory.
    pub(super) fn is_caught_up(&self) -> bool {
        self.is_complete
    }

    /// Returns true if no entry is left to take, neither in memory nor on the disk.
    pub(super) fn is_empty(&self) -> bool {
        self.is_complete && self.queue.is_empty()
    }

    /// Returns the lowest event number in memory.
    pub(super) fn lowest_number(&self) -> Option<u64> {
        self.queue.iter().map(|(entry, _)| entry.number).min()
    }

    /// Notes that the relay has read all entries from the disk: the tail then holds every new entry, until the relay falls behind again.
    pub(super) fn mark_caught_up(&mut self) {
        self.is_complete = true;
    }
}
