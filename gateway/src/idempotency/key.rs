//! A key as it is kept, and the chat that it belongs to.

use sha2::{Digest as _, Sha256};
use shared::id::{ChatId, ConversationId, UserId};

/// A key as it is kept: a hash of the user and the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

/// Whose key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyOwner {
    /// The chat.
    pub chat: ChatId,
    /// Its conversation.
    pub conversation: ConversationId,
    /// Tells whether it was the same request.
    pub fingerprint: u128,
    /// How far it is, as far as is known.
    pub progress: Progress,
}

/// How far a chat is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It goes on.
    UnderWay,
    /// It has ended, with an answer.
    Done,
}

impl KeyHash {
    /// Of this user's key. Two users never share one.
    pub fn new(user: &UserId, key: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update((user.as_str().len() as u64).to_le_bytes());
        hash.update(user.as_str());
        hash.update(key);
        Self(hash.finalize().into())
    }

    pub(super) fn hex(self) -> String {
        use std::fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}
