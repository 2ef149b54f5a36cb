//! The conversations of recent responses, so that `previous_response_id` leads to the conversation of the response that it
//! names.
//!
//! Kept in memory, by user: an id of another user's response is never found. Each gateway knows the responses that it served;
//! docs/DISCONNECTS.md has the limits.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use shared::id::{ConversationId, UserId};

/// The number of responses in one generation. At most two generations are kept: 131,072 responses, in some 20 MiB.
const GENERATION: usize = 1 << 16;

/// The maximum length of a response id that is kept, in bytes. Providers use up to 80.
const MAX_ID_BYTES: usize = 128;

/// The conversations of recent responses. When the newer generation is full, the older one is dropped.
#[derive(Debug, Default)]
pub struct ResponseConversations(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    newer: HashMap<Key, ConversationId>,
    older: HashMap<Key, ConversationId>,
}

/// The user and the id of a response.
type Key = (UserId, Box<str>);

impl ResponseConversations {
    /// Remembers the conversation of a user's response.
    pub fn remember(&self, user: &UserId, response_id: &str, conversation: ConversationId) {
        if response_id.is_empty() || response_id.len() > MAX_ID_BYTES {
            return;
        }
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if generations.newer.len() >= GENERATION {
            generations.older = std::mem::take(&mut generations.newer);
        }
        generations.newer.insert((user.clone(), response_id.into()), conversation);
    }

    /// The conversation of a user's response. `None` if this gateway does not know the response, or if it is another user's.
    pub fn find(&self, user: &UserId, response_id: &str) -> Option<ConversationId> {
        if response_id.len() > MAX_ID_BYTES {
            return None;
        }
        let key = (user.clone(), response_id.into());
        let generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        generations.newer.get(&key).or_else(|| generations.older.get(&key)).copied()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_response_is_found_by_its_user_alone_until_it_is_old() {
        let (ann, bob): (UserId, UserId) = ("ann".parse().unwrap(), "bob".parse().unwrap());
        let known = ResponseConversations::default();
        let conversation = ConversationId(Uuid::from_u128(7));
        known.remember(&ann, "resp_1", conversation);
        assert_eq!(known.find(&ann, "resp_1"), Some(conversation));
        assert_eq!(known.find(&bob, "resp_1"), None);
        assert_eq!(known.find(&ann, "resp_2"), None);
        known.remember(&ann, &"x".repeat(MAX_ID_BYTES + 1), conversation);
        known.remember(&ann, "", conversation);
        assert_eq!(known.find(&ann, ""), None);
        for number in 0..GENERATION {
            known.remember(&bob, &format!("resp_{number}"), conversation);
        }
        assert_eq!(known.find(&ann, "resp_1"), Some(conversation), "one generation later it is still known");
        for number in 0..=GENERATION {
            known.remember(&bob, &format!("other_{number}"), conversation);
        }
        assert_eq!(known.find(&ann, "resp_1"), None);
        let generations = known.0.lock().unwrap();
        assert!(generations.newer.len() <= GENERATION && generations.older.len() <= GENERATION);
    }
}
