//! Syncing: what is written and may not be on the disk yet, and what is done when the disk fails.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Log;
use crate::journal::record::Entry;
use crate::journal::segment::Segment;

/// How much of what is not synced yet is remembered, in case syncing fails.
const MAX_UNSYNCED_BYTES: usize = 32 << 20;

/// How often syncing may fail in a row before the disk is given up for a while.
const MAX_FAILED_SYNCS: u32 = 2;

/// What is written and may not be on the disk yet.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    pub(super) entries: VecDeque<Entry>,
    pub(super) bytes: usize,
    /// The segments that they are in, the one that is written to included.
    pub(super) segments: Vec<Arc<Segment>>,
}

/// What is to be synced.
#[derive(Debug)]
pub(in crate::journal) struct ToSync {
    pub(in crate::journal) segments: Vec<Arc<Segment>>,
    /// The highest number of an event in them.
    pub(in crate::journal) up_to: u64,
    /// The segment that was being written to: there may be more in it by the time that it is synced.
    writing: Option<u64>,
}

impl Log {
    /// What has to be synced.
    pub(in crate::journal) fn to_sync(&self) -> Option<ToSync> {
        let writing = self.writer.as_ref().map(|writer| writer.segment.number);
        let is_begun = writing.is_none_or(|writing| writing <= self.begun);
        (!self.unsynced.entries.is_empty() || !is_begun).then(|| ToSync {
            segments: self.unsynced.segments.clone(),
            up_to: self.next_number - 1,
            writing,
        })
    }

    /// That has been synced.
    pub(in crate::journal) fn synced(&mut self, done: &ToSync) {
        self.unsynced.forget(done.up_to);
        let first_held = self.held.iter().map(|entry| entry.number).min().unwrap_or(u64::MAX);
        self.synced_below = self.synced_below.max((done.up_to + 1).min(first_held));
        self.failed_syncs = 0;
        self.begun = done.segments.iter().map(|segment| segment.number).fold(self.begun, u64::max);
        let is_done = |segment: &Segment| done.segments.iter().any(|other| other.number == segment.number);
        self.unsynced.segments.retain(|segment| Some(segment.number) == done.writing || !is_done(segment));
    }

    /// Syncing failed. What the kernel was to write may be gone although it can still be read, so these files are trusted no
    /// more: everything that was not synced before is written again, elsewhere.
    pub(in crate::journal) fn sync_failed(&mut self) {
        if !self.is_writable() {
            // Writing has failed since, so everything that was not synced is in memory, for the keeper to write again.
            return;
        }
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
}

impl Unsynced {
    pub(super) fn push(&mut self, entry: &Entry) {
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
