//! The ids that appear in events, rows and URLs.
//!
//! None of them is ever taken from a provider: providers reuse ids, send empty ones, or none.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

uuid_id! {
    /// One request and its answer. A UUIDv7, minted by the gateway when it admits the request.
    ChatId
}

uuid_id! {
    /// A thread of chats of one user. A UUIDv8 that only the gateway can make and check: see the gateway's `conversation_id`.
    ConversationId
}

uuid_id! {
    /// One message of a chat. Derived from the chat, so that whoever describes the chat names the same message.
    MessageId
}

uuid_id! {
    /// One change of a conversation. A UUIDv7 of the gateway: the later of two changes has the greater id.
    ChangeId
}

uuid_id! {
    /// One event. Derived from what the event is about, so that any retry by anyone is the same event.
    EventId
}

impl ChatId {
    /// A new chat, now.
    pub fn mint() -> Self {
        Self(Uuid::now_v7())
    }

    /// The message that the user sent with this chat.
    pub fn user_message(self) -> MessageId {
        MessageId(derive(self.0, "message:user"))
    }

    /// The message that answers it.
    pub fn assistant_message(self) -> MessageId {
        MessageId(derive(self.0, "message:assistant"))
    }
}

impl ChangeId {
    /// A new change, now.
    pub fn mint() -> Self {
        Self(Uuid::now_v7())
    }
}

impl EventId {
    /// The id of the event that says `what` of `subject`.
    pub fn derive(subject: Uuid, label: &str) -> Self {
        Self(derive(subject, label))
    }
}

/// A UUIDv8 with the time of `of` in front (so that ids derived from time-ordered ids are time-ordered too),
/// and a hash of `of` and `label` behind it.
fn derive(source: Uuid, label: &str) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(source.as_bytes());
    hash.update(label.as_bytes());
    let hash = hash.finalize();
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&source.as_bytes()[..6]);
    bytes[6..].copy_from_slice(&hash[..10]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// Who a chat belongs to: the subject of a verified token. Ours are UUIDs; those of other identity providers
/// are whatever they are, so this is text: 1 to 255 bytes, no control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct UserId(std::sync::Arc<str>);

/// Why a text is not a user id.
#[derive(Debug, thiserror::Error)]
#[error("a user id has 1 to 255 bytes and no control characters")]
pub struct InvalidUserId;

impl UserId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UserId {
    type Err = InvalidUserId;

    fn from_str(text: &str) -> Result<Self, InvalidUserId> {
        if text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
            return Err(InvalidUserId);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for UserId {
    type Error = InvalidUserId;

    fn try_from(text: String) -> Result<Self, InvalidUserId> {
        text.parse()
    }
}

impl From<UserId> for String {
    fn from(id: UserId) -> Self {
        id.0.as_ref().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_are_stable_distinct_and_keep_the_time() {
        let chat: ChatId = "01936b6e-2f00-7abc-8def-0123456789ab".parse().unwrap();
        let user = chat.user_message();
        // Frozen: a different value here would count every replayed event twice.
        assert_eq!(user.to_string(), "01936b6e-2f00-8784-a514-c19a14c72d61");
        assert_ne!(user, chat.assistant_message());
        assert_eq!(user.0.as_bytes()[..6], chat.0.as_bytes()[..6]);
        assert_eq!(user.0.get_version_num(), 8);
    }

    #[test]
    fn user_ids_are_bounded_text() {
        assert!("auth0|7f3c ü".parse::<UserId>().is_ok());
        assert!("".parse::<UserId>().is_err());
        assert!("a\nb".parse::<UserId>().is_err());
        assert!("x".repeat(256).parse::<UserId>().is_err());
        assert!(serde_json::from_str::<UserId>("\"\"").is_err());
    }
}
