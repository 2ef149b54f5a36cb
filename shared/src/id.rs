//! The ids in events, table rows and URLs.
//!
//! No id is taken from a provider, because providers reuse ids, send empty ids or send none.

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
    /// The id of a request and its answer: a UUIDv7, made by the gateway when it admits the request.
    ChatId
}

uuid_id! {
    /// The id of a thread of chats of one user: a UUIDv8 that only the gateway can make and check.
    ConversationId
}

uuid_id! {
    /// The id of a message, derived from its chat, so that every program that reads the chat gives the message the same id.
    MessageId
}

uuid_id! {
    /// The id of a change of a conversation: a UUIDv7 of the gateway. The later of two changes has the greater id.
    ChangeId
}

uuid_id! {
    /// The id of an API key: a UUIDv7, made when the key is issued.
    KeyId
}

uuid_id! {
    /// The id of an entry of the audit log.
    AuditId
}

uuid_id! {
    /// The id of a project: a UUIDv7, made when the project is created.
    ProjectId
}

uuid_id! {
    /// The id of an event, derived from the subject matter of the event, so that a repeated publication is the same event.
    EventId
}

impl ChatId {
    /// Returns a new chat id (UUIDv7) with the current time.
    pub fn mint() -> Self {
        Self(Uuid::now_v7())
    }

    /// Returns the id of the message that the user sent with the chat: of several new messages, the last one.
    pub fn user_message(self) -> MessageId {
        MessageId(derive(self.0, "message:user"))
    }

    /// Returns the id of a new message of the chat. `before_last` is the number of new messages after this message: 0 for the
    /// last one, the [`user_message`](Self::user_message).
    pub fn new_message(self, before_last: usize) -> MessageId {
        match before_last {
            0 => self.user_message(),
            before_last => MessageId(derive(self.0, &format!("message:user:-{before_last}"))),
        }
    }

    /// Returns the id of the answer to the chat.
    pub fn assistant_message(self) -> MessageId {
        MessageId(derive(self.0, "message:assistant"))
    }
}

impl KeyId {
    /// Returns a new key id (UUIDv7) with the current time.
    pub fn mint() -> Self {
        Self(Uuid::now_v7())
    }
}

impl ProjectId {
    /// Returns a new project id (UUIDv7) with the current time.
    pub fn mint() -> Self {
        Self(Uuid::now_v7())
    }
}

impl ChangeId {
    /// Returns a new change id (UUIDv7) with the current time.
    pub fn mint() -> Self {
        Self(Uuid::now_v7())
    }

    /// Returns a new change id that is greater than `earlier`, even if the clock was set back since.
    pub fn after(earlier: Uuid) -> Self {
        Self(Uuid::now_v7().max(Uuid::from_u128(earlier.as_u128().saturating_add(1))))
    }
}

impl EventId {
    /// Returns the id of the event `label` (such as `started`) about `subject`, the id of a chat, conversation or
    /// change.
    pub fn derive(subject: Uuid, label: &str) -> Self {
        Self(derive(subject, label))
    }
}

/// Returns a UUIDv8 that starts with the timestamp of `source` and ends with a hash of `source` and `label`.
///
/// The timestamp makes ids that are derived from time-ordered ids time-ordered too.
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

/// The id of a user: the subject of a verified token. Users of this deployment have UUIDs; other identity providers use other
/// texts. The id is a text of 1 to 255 bytes without control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct UserId(std::sync::Arc<str>);

/// The error for a text that is not a valid user id.
#[derive(Debug, thiserror::Error)]
#[error("expected a user id of 1 to 255 bytes without control characters")]
pub struct InvalidUserId;

impl UserId {
    /// Returns true for the form of an external identity provider's users: the host of the provider, `|`, and the provider's own id.
    pub fn is_external(&self) -> bool {
        self.0.split_once('|').is_some_and(|(host, sub)| !host.is_empty() && !sub.is_empty())
    }

    /// Returns the user id as text.
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
        // The expected value must never change: with another value, every replayed event would be counted twice.
        assert_eq!(user.to_string(), "01936b6e-2f00-8784-a514-c19a14c72d61");
        assert_eq!(chat.new_message(0), user);
        assert_eq!(chat.new_message(1).to_string(), "01936b6e-2f00-8fb2-8a68-7fbc6473eadb");
        assert_ne!(chat.new_message(1), chat.new_message(2));
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
