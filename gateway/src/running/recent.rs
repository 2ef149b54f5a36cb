//! The chats that have ended here recently, bounded in number. The record may not have them yet.

use std::collections::VecDeque;

use shared::id::{ChatId, ConversationId, UserId};

/// The maximum number of chats. At 1,000 chats a second, these are the chats of four seconds; the record is behind by less.
const MAX_CHATS: usize = 4096;

/// The chats that have ended, the oldest first.
#[derive(Debug, Default)]
pub(super) struct RecentChats(VecDeque<(ChatId, UserId, Option<ConversationId>)>);

impl RecentChats {
    /// Adds a chat of a user.
    pub(super) fn add(&mut self, id: ChatId, user: UserId, conversation: Option<ConversationId>) {
        if self.0.len() == MAX_CHATS {
            self.0.pop_front();
        }
        self.0.push_back((id, user, conversation));
    }

    /// Returns the conversation of a chat of this user; `None` if no such chat is known.
    pub(super) fn find(&self, id: ChatId, user: &UserId) -> Option<Option<ConversationId>> {
        let found = self.0.iter().find(|(known, owner, _)| *known == id && owner == user);
        found.map(|(_, _, conversation)| *conversation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_chats_are_forgotten_first() {
        let (mut recent, user): (_, UserId) = (RecentChats::default(), "ann".parse().unwrap());
        let ids: Vec<_> = (0..=MAX_CHATS).map(|_| ChatId::mint()).collect();
        ids.iter().for_each(|id| recent.add(*id, user.clone(), None));
        assert_eq!(recent.find(ids[0], &user), None);
        assert_eq!((recent.find(ids[1], &user), recent.find(ids[MAX_CHATS], &user)), (Some(None), Some(None)));
        assert_eq!(recent.find(ids[1], &"bob".parse().unwrap()), None);
    }
}
