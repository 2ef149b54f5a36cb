//! The stored form of an idempotency key, and the chat that owns the key.

use sha2::{Digest as _, Sha256};
use shared::id::{ChatId, ConversationId, UserId};

/// A SHA-256 hash of a user and the user's idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

/// The chat that owns an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyOwner {
    /// The id of the owning chat.
    pub chat: ChatId,
    /// The id of the chat's conversation.
    pub conversation: ConversationId,
    /// The fingerprint of the request's body, to tell a repeated request from a different request.
    pub fingerprint: u128,
    /// The chat's progress, as far as known.
    pub progress: Progress,
}

/// The progress of a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The chat has not ended.
    UnderWay,
    /// The chat has ended with an answer.
    Done,
}

impl KeyHash {
    /// Hashes a user's key. Keys of two users never have the same hash.
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
