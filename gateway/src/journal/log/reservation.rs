//! Room on the disk: a chat is begun only where there is some for its start, and for the ends of all that are running.

use super::Log;
use crate::journal::error::JournalError;
use crate::journal::segment::HEADER;

/// The room that is kept for the end of each running chat. A longer end takes from the common room.
const ROOM_PER_CHAT: u64 = 64 << 10;

impl Log {
    /// Whether a chat can be begun: there is room for its start, this long, and for the ends of all that are running.
    pub(in crate::journal) fn check_room(&mut self, len: usize) -> Result<(), JournalError> {
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
    pub(in crate::journal) fn bytes(&self) -> u64 {
        let sealed: u64 = self.sealed.iter().map(|sealed| sealed.end).sum();
        sealed + self.spares.len() as u64 * self.segment_size + self.writer.as_ref().map_or(0, |writer| writer.size)
    }

    fn add_spare(&mut self) -> Result<(), JournalError> {
        self.make_room(self.segment_size)?;
        match self.create_spare(self.segment_size) {
            Ok(spare) => self.spares.push_back(spare),
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
}
