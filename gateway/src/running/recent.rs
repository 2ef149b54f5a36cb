//! The chats that have ended here recently, bounded in number. The record may not have them yet.

use std::collections::VecDeque;

use shared::id::{ChatId, UserId};

/// The maximum number of chats. At 1,000 chats a second, these are the chats of four seconds; the record is behind by less.
const MAX_CHATS: usize = 4096;

/// The chats that have ended, the oldest first.
#[derive(Debug, Default)]
pub(super) struct RecentChats(VecDeque<(ChatId, UserId)>);

impl RecentChats {
    /// Adds a chat of a user.
    pub(super) fn add(&mut self, id: ChatId, user: UserId) {
        if self.0.len() == MAX_CHATS {
            self.0.pop_front();
        }
        self.0.push_back((id, user));
    }

    /// Returns true if the chat is known, and is a chat of this user.
    pub(super) fn has(&self, id: ChatId, user: &UserId) -> bool {
        self.0.iter().any(|(known, owner)| *known == id && owner == user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_chats_are_forgotten_first() {
        let (mut recent, user): (_, UserId) = (RecentChats::default(), "ann".parse().unwrap());
        let ids: Vec<_> = (0..=MAX_CHATS).map(|_| ChatId::mint()).collect();
        ids.iter().for_each(|id| recent.add(*id, user.clone()));
        assert!(!recent.has(ids[0], &user) && recent.has(ids[1], &user) && recent.has(ids[MAX_CHATS], &user));
        assert!(!recent.has(ids[1], &"bob".parse().unwrap()));
    }
}
