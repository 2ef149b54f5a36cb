//! Room on the disk: a chat is begun only where there is some for its start, and for the ends of all that are running.

use super::Log;
use crate::journal::error::JournalError;
use crate::journal::segment::SEGMENT_HEADER_BYTES;

/// The room that is kept for the end of each running chat. A longer end takes from the common room.
const BYTES_RESERVED_PER_CHAT: u64 = 64 << 10;

impl Log {
    /// Whether a chat can be begun: there is room for its start, this long, and for the ends of all that are running.
    pub(in crate::journal) fn reserve_for_new_chat(&mut self, len: usize) -> Result<(), JournalError> {
        if self.active.is_none() {
            return Err(JournalError::Unwritable);
        }
        let len = len as u64;
        let needed = (self.unended_chats.len() as u64 + 1) * BYTES_RESERVED_PER_CHAT;
        if len > self.segment_bytes - SEGMENT_HEADER_BYTES {
            // It gets a segment of its own size.
            self.ensure_capacity(len + SEGMENT_HEADER_BYTES)?;
            return if self.reserved_bytes() < needed { self.add_spare_segment() } else { Ok(()) };
        }
        while self.reserved_bytes() < needed + len {
            self.add_spare_segment()?;
        }
        Ok(())
    }

    /// The room that there is on the disk for certain.
    fn reserved_bytes(&self) -> u64 {
        let ahead = self.spare_segments.len() as u64 * (self.segment_bytes - SEGMENT_HEADER_BYTES);
        ahead + self.active.as_ref().map_or(0, |active| active.capacity.saturating_sub(active.offset))
    }

    /// The size of all files.
    pub(in crate::journal) fn disk_bytes(&self) -> u64 {
        let sealed: u64 = self.sealed.iter().map(|sealed| sealed.end_offset).sum();
        sealed
            + self.spare_segments.len() as u64 * self.segment_bytes
            + self.active.as_ref().map_or(0, |active| active.capacity)
    }

    fn add_spare_segment(&mut self) -> Result<(), JournalError> {
        self.ensure_capacity(self.segment_bytes)?;
        match self.create_spare_segment(self.segment_bytes) {
            Ok(spare) => self.spare_segments.push_back(spare),
            Err(error) => {
                if !std::mem::replace(&mut self.is_shortage_reported, true) {
                    tracing::error!(%error, "the journal cannot reserve room on the disk; new chats are refused");
                }
                return Err(JournalError::Full);
            }
        }
        self.is_shortage_reported = false;
        Ok(())
    }

    /// Sees to it that a file of this size fits. Room for new chats is worth more than what is kept in case the broker
    /// loses it.
    fn ensure_capacity(&mut self, size: u64) -> Result<(), JournalError> {
        while self.disk_bytes() + size > self.max_bytes {
            if !self.remove_oldest_released_segment() {
                if !std::mem::replace(&mut self.is_shortage_reported, true) {
                    tracing::error!(bytes = self.disk_bytes(), "the journal is full; new chats are refused");
                }
                return Err(JournalError::Full);
            }
        }
        Ok(())
    }
}
