//! Reservation of disk room: a chat is admitted only if the disk has room for the chat's start and for the ends of all
//! running chats.

use super::{BYTES_RESERVED_PER_CHAT, Log};
use crate::journal::descriptors::is_exhausted;
use crate::journal::error::JournalError;
use crate::journal::segment::SEGMENT_HEADER_BYTES;

impl Log {
    /// Reserves room for a chat whose start has `len` bytes, and for the ends of all running chats and the new chat.
    /// Fails if the log cannot be written, or if the journal or the disk is full.
    pub(in crate::journal) fn reserve_for_new_chat(&mut self, len: usize) -> Result<(), JournalError> {
        if self.active.is_none() {
            return Err(JournalError::Unwritable);
        }
        let len = len as u64;
        let needed = (self.unended_chats.len() as u64 + 1) * BYTES_RESERVED_PER_CHAT;
        if len > self.segment_bytes - SEGMENT_HEADER_BYTES {
            // A start of such a length gets a segment of its own size.
            self.ensure_capacity(len + SEGMENT_HEADER_BYTES)?;
            return if self.reserved_bytes() < needed { self.add_spare_segment() } else { Ok(()) };
        }
        while self.reserved_bytes() < needed + len {
            self.add_spare_segment()?;
        }
        Ok(())
    }

    /// Returns the number of bytes on the disk that are certain to be available.
    pub(super) fn reserved_bytes(&self) -> u64 {
        let ahead = self.spare_segments.len() as u64 * (self.segment_bytes - SEGMENT_HEADER_BYTES);
        ahead + self.active.as_ref().map_or(0, |active| active.capacity.saturating_sub(active.offset))
    }

    /// Returns the size of all segment files in bytes, spare segments included.
    fn disk_bytes(&self) -> u64 {
        self.sealed.iter().map(|sealed| sealed.end_offset).sum::<u64>() + self.unsealed_bytes()
    }

    /// Returns the size of the active segment and of the spare segments in bytes.
    pub(super) fn unsealed_bytes(&self) -> u64 {
        self.spare_segments.len() as u64 * self.segment_bytes + self.active.as_ref().map_or(0, |active| active.capacity)
    }

    fn add_spare_segment(&mut self) -> Result<(), JournalError> {
        self.ensure_capacity(self.segment_bytes)?;
        match self.create_spare_segment(self.segment_bytes) {
            Ok(spare) => self.spare_segments.push_back(spare),
            Err(error) => {
                if !std::mem::replace(&mut self.is_shortage_reported, true) {
                    tracing::error!(%error, "the journal cannot reserve room on the disk; new chats are refused");
                }
                return Err(if is_exhausted(&error) { JournalError::Unwritable } else { JournalError::Full });
            }
        }
        self.is_shortage_reported = false;
        Ok(())
    }

    /// Makes room for a file of `size` bytes within the journal's maximum size, if necessary by removing released
    /// segments before their retention ends: room for new chats is worth more than protection against a broker that
    /// loses events.
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
