//! Conversations: what each event says of its conversation, and how that joins.
//!
//! The sums in a row (messages, tokens) are not joined but counted from the chats; see [`super::merge`].

use std::cmp::{Ordering, Reverse};

use shared::event::{
    ChatFailed, ChatStarted, ConversationChanged, ConversationCreated, ConversationDeleted, MessageCompleted,
};
use shared::id::{ChangeId, ChatId, ConversationId, UserId};
use time::OffsetDateTime;
use uuid::Uuid;

use super::chat::Chat;
use super::pg_value::{pg_text, pg_timestamp};
use super::usage_stats::ConversationTotals;

/// How long a title may be, in characters.
pub const TITLE_CHARACTERS: usize = 80;

/// A row of `conversations`.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Whose it is.
    pub user_id: UserId,
    /// When it was opened: the least time in any of its events.
    pub created_at: OffsetDateTime,
    /// When the last message came.
    pub last_message_at: OffsetDateTime,
    /// Its title. Of two, the greater one stands: see [`Title`].
    pub title: Option<Title>,
    /// Whether it is put away. Of two, the later one stands.
    pub archive: Option<ArchiveState>,
    /// When the user deleted it: the first time. Nothing brings it back.
    pub deleted_at: Option<OffsetDateTime>,
    /// Its latest settings. Of two, the ones with the greatest origin stand.
    pub settings: Option<ConversationSettings>,
    /// Sums over its chats.
    pub totals: ConversationTotals,
}

/// A title, and where it comes from. The greatest of those that were ever seen stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Title {
    /// Where it comes from.
    pub origin: TitleOrigin,
    /// The title: one line.
    pub text: String,
}

/// Where a title comes from: of two, the later in this list stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TitleOrigin {
    /// The message of a chat: the first one.
    Chat(Reverse<ChatId>),
    /// The client, when it opened the conversation.
    Created,
    /// The user renamed it: the last time.
    Renamed(ChangeId),
}

/// Whether a conversation is put away, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArchiveState {
    /// The change.
    pub change_id: ChangeId,
    /// What it says.
    pub archived: bool,
}

/// Model and temperature, and where they come from.
#[derive(Clone, Debug, PartialEq)]
pub struct ConversationSettings {
    /// The chat that asked for them; none where the conversation was opened with them.
    pub chat_id: Option<ChatId>,
    /// The model.
    pub model: Option<String>,
    /// The temperature.
    pub temperature: Option<f64>,
}

// === impl Conversation ===

impl Conversation {
    pub(super) fn from_started(event: &ChatStarted) -> Self {
        let user_message = event.user_message.as_ref().filter(|message| message.role == "user");
        let settings = ConversationSettings {
            chat_id: Some(event.chat_id),
            model: Some(pg_text(&event.model)),
            temperature: event.temperature,
        };
        Self {
            title: user_message
                .and_then(|message| Title::new(TitleOrigin::Chat(Reverse(event.chat_id)), &message.text)),
            settings: Some(settings),
            ..Self::minimal(event.conversation_id, &event.user_id, event.started_at)
        }
    }

    pub(super) fn from_completed(event: &MessageCompleted) -> Self {
        let row = Self::minimal(event.conversation_id, &event.user_id, event.started_at);
        Self { last_message_at: row.last_message_at.max(pg_timestamp(event.finished_at)), ..row }
    }

    pub(super) fn from_failed(event: &ChatFailed) -> Self {
        let row = Self::minimal(event.conversation_id, &event.user_id, event.started_at);
        match event.message {
            None => row,
            Some(_) => Self { last_message_at: row.last_message_at.max(pg_timestamp(event.failed_at)), ..row },
        }
    }

    pub(super) fn from_created(event: &ConversationCreated) -> Self {
        let has_settings = event.model.is_some() || event.temperature.is_some();
        let settings = ConversationSettings {
            chat_id: None,
            model: event.model.as_deref().map(pg_text),
            temperature: event.temperature,
        };
        Self {
            title: event.title.as_deref().and_then(|title| Title::new(TitleOrigin::Created, title)),
            settings: has_settings.then_some(settings),
            ..Self::minimal(event.conversation_id, &event.user_id, event.created_at)
        }
    }

    pub(super) fn from_changed(event: &ConversationChanged) -> Self {
        let change_id = event.change_id;
        Self {
            title: event.title.as_deref().and_then(|title| Title::new(TitleOrigin::Renamed(change_id), title)),
            archive: event.archived.map(|archived| ArchiveState { change_id, archived }),
            ..Self::without_messages(event.conversation_id, &event.user_id, event.changed_at)
        }
    }

    pub(super) fn from_deleted(event: &ConversationDeleted) -> Self {
        Self {
            deleted_at: Some(pg_timestamp(event.deleted_at)),
            ..Self::without_messages(event.conversation_id, &event.user_id, event.deleted_at)
        }
    }

    /// What a chat's row alone says of its conversation.
    pub(super) fn from_chat_row(chat: &Chat) -> Self {
        Self::minimal(chat.conversation_id, &chat.user_id, chat.started_at)
    }

    /// What was changed is there, but nothing was said in it.
    fn without_messages(conversation_id: ConversationId, user_id: &UserId, at: OffsetDateTime) -> Self {
        Self { last_message_at: OffsetDateTime::UNIX_EPOCH, ..Self::minimal(conversation_id, user_id, at) }
    }

    fn minimal(conversation_id: ConversationId, user_id: &UserId, at: OffsetDateTime) -> Self {
        Self {
            conversation_id,
            user_id: user_id.clone(),
            created_at: pg_timestamp(at),
            last_message_at: pg_timestamp(at),
            title: None,
            archive: None,
            deleted_at: None,
            settings: None,
            totals: ConversationTotals::default(),
        }
    }

    /// Takes in what `other` knows of the same conversation, sums aside.
    pub fn join(&mut self, other: Self) {
        if other.user_id < self.user_id {
            self.user_id = other.user_id;
        }
        self.created_at = self.created_at.min(other.created_at);
        self.last_message_at = self.last_message_at.max(other.last_message_at);
        self.title = self.title.take().max(other.title);
        self.archive = self.archive.max(other.archive);
        self.deleted_at = match (self.deleted_at, other.deleted_at) {
            (Some(mine), Some(theirs)) => Some(mine.min(theirs)),
            (mine, theirs) => mine.or(theirs),
        };
        self.settings = match (self.settings.take(), other.settings) {
            (Some(mine), Some(theirs)) if mine.compare(&theirs).is_lt() => Some(theirs),
            (mine, theirs) => mine.or(theirs),
        };
    }
}

// === impl Title ===

impl Title {
    /// One line of at most [`TITLE_CHARACTERS`], if there is anything to see in the text.
    fn new(origin: TitleOrigin, from: &str) -> Option<Self> {
        let blank = |c: char| c.is_whitespace() || c.is_control();
        let mut line = String::new();
        let mut characters_left = TITLE_CHARACTERS;
        for word in from.split(blank).filter(|word| !word.is_empty()) {
            let space = usize::from(!line.is_empty());
            if characters_left == 0 || (space == 1 && characters_left == 1) {
                return Some(Self { origin, text: ellipsize(&line) });
            }
            if space == 1 {
                line.push(' ');
            }
            characters_left -= space;
            for character in word.chars() {
                if characters_left == 0 {
                    return Some(Self { origin, text: ellipsize(&line) });
                }
                line.push(character);
                characters_left -= 1;
            }
        }
        (!line.is_empty()).then_some(Self { origin, text: line })
    }
}

// === impl TitleOrigin ===

impl TitleOrigin {
    /// From a row's columns.
    pub fn from_columns(chat_id: Option<Uuid>, change_id: Option<Uuid>) -> Self {
        match (change_id, chat_id) {
            (Some(id), _) => Self::Renamed(ChangeId(id)),
            (None, Some(id)) => Self::Chat(Reverse(ChatId(id))),
            (None, None) => Self::Created,
        }
    }

    /// The chat, as a row has it.
    pub fn chat_id(self) -> Option<Uuid> {
        match self {
            Self::Chat(Reverse(chat_id)) => Some(chat_id.0),
            Self::Created | Self::Renamed(_) => None,
        }
    }

    /// The change, as a row has it.
    pub fn change_id(self) -> Option<Uuid> {
        match self {
            Self::Renamed(change_id) => Some(change_id.0),
            Self::Created | Self::Chat(_) => None,
        }
    }
}

/// Makes room for the ellipsis that says that there was more.
fn ellipsize(line: &str) -> String {
    let kept: String = line.chars().take(TITLE_CHARACTERS - 1).collect();
    format!("{}…", kept.trim_end())
}

// === impl Settings ===

impl ConversationSettings {
    fn compare(&self, other: &Self) -> Ordering {
        let temperature = |settings: &Self| settings.temperature.map(total_order_key);
        (self.chat_id, &self.model, temperature(self)).cmp(&(other.chat_id, &other.model, temperature(other)))
    }
}

/// A number with the total order of IEEE 754.
fn total_order_key(number: f64) -> i64 {
    let bits = i64::from_ne_bytes(number.to_ne_bytes());
    if bits < 0 { bits ^ i64::MAX } else { bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn title(from: &str) -> Option<String> {
        Title::new(TitleOrigin::Created, from).map(|title| title.text)
    }

    #[test]
    fn titles_are_one_line_of_at_most_80_characters() {
        assert_eq!(title("  Why is\n\tthe sky\u{0}blue? ").as_deref(), Some("Why is the sky blue?"));
        assert_eq!(title(" \n\u{0}\t "), None);
        let exact = "ü".repeat(80);
        assert_eq!(title(&exact).as_deref(), Some(exact.as_str()));
        assert_eq!(title(&format!("{exact}x")).unwrap(), format!("{}…", "ü".repeat(79)));
        let words = title(&"word ".repeat(40)).unwrap();
        assert!(words.ends_with("word…") || words.ends_with("wor…") || words.ends_with('…'));
        assert!(words.chars().count() <= 80);
        assert!(title(&format!("{} b", "a".repeat(79))).unwrap().chars().count() <= 80);
    }

    #[test]
    fn temperatures_are_totally_ordered() {
        let mut sorted = [f64::MIN, -1.5, -0.0, 0.0, 0.7, f64::MAX].map(total_order_key);
        assert!(sorted.is_sorted());
        sorted.reverse();
        assert!(!sorted.is_sorted());
    }
}
