//! Making the copy of the facts about the log.

use std::sync::Arc;

use super::view::{LogView, SealedExtents, SegmentExtent};
use super::{BYTES_RESERVED_PER_CHAT, Log};

impl Log {
    /// Returns the present facts.
    pub(in crate::journal) fn view(&mut self) -> LogView {
        let known = &self.sealed_extents.extents;
        // Segments are added at the end with ascending numbers, and removed at the front.
        let first = |extents: &[SegmentExtent]| extents.first().map(|extent| extent.number);
        if known.len() != self.sealed.len() || first(known) != self.sealed.front().map(|sealed| sealed.number) {
            let extents = self.sealed.iter().map(|sealed| SegmentExtent {
                number: sealed.number,
                lowest_number: sealed.lowest_number,
                last_number: sealed.last_number,
                end_offset: sealed.end_offset,
            });
            let bytes = self.sealed.iter().map(|sealed| sealed.end_offset).sum();
            self.sealed_extents = SealedExtents { extents: extents.collect(), bytes };
        }
        let reserved_for_chats = self.unended_chats.len() as u64 * BYTES_RESERVED_PER_CHAT;
        LogView {
            is_writable: self.is_writable(),
            has_unwritten: self.has_unwritten(),
            has_unsynced: self.has_unsynced(),
            synced_below: self.synced_below,
            next_number: self.next_number,
            free_bytes: self.reserved_bytes().saturating_sub(reserved_for_chats),
            disk_bytes: self.sealed_extents.bytes + self.unsealed_bytes(),
            sealed: Arc::clone(&self.sealed_extents.extents),
            active: self.active.as_ref().map(|active| SegmentExtent {
                number: active.segment.number,
                lowest_number: active.lowest_number,
                last_number: u64::MAX,
                end_offset: active.offset,
            }),
        }
    }
}
