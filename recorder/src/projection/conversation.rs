//! The conversations: facts about a conversation in each event, and the join of these facts.
//!
//! The sums in a row (messages, tokens) are not joined but counted from the chats; see [`super::merge`].

use std::cmp::{Ordering, Reverse};

use shared::event::{
    ChatDeferred, ChatFailed, ChatStarted, ConversationChanged, ConversationCreated, ConversationDeleted,
    MessageCompleted,
};
use shared::id::{ChangeId, ChatId, ConversationId, UserId};
use time::OffsetDateTime;
use uuid::Uuid;

use super::chat::Chat;
use super::pg_value::{pg_text, pg_timestamp};
use super::usage_stats::ConversationTotals;

/// The maximum length of a title, in characters, including the ellipsis of a shortened title.
pub const TITLE_CHARACTERS: usize = 80;

/// A row of `conversations`.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    /// The key of the row.
    pub conversation_id: ConversationId,
    /// The owner of the conversation.
    pub user_id: UserId,
    /// The opening time: the earliest time in any event of the conversation.
    pub created_at: OffsetDateTime,
    /// The time of the latest message.
    pub last_message_at: OffsetDateTime,
    /// The title. Of two titles, the greater one wins; see [`Title`].
    pub title: Option<Title>,
    /// The archive state. Of two states, the later change wins.
    pub archive: Option<ArchiveState>,
    /// The time of the first deletion by the user. A deletion is final.
    pub deleted_at: Option<OffsetDateTime>,
    /// The latest settings: those requested by the latest chat, or else those given when the conversation was opened.
    pub settings: Option<ConversationSettings>,
    /// Sums over the chats of the conversation.
    pub totals: ConversationTotals,
}

/// A title and its origin. The greatest title ever seen wins, ordered by origin first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Title {
    /// The event that set the title.
    pub origin: TitleOrigin,
    /// The text: one line of at most [`TITLE_CHARACTERS`] characters.
    pub text: String,
}

/// The origin of a title. Of two titles, the origin that stands later in this list wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TitleOrigin {
    /// The user's message in a chat; of several chats, the first one wins.
    Chat(Reverse<ChatId>),
    /// The client, when opening the conversation.
    Created,
    /// A change by the user; of several changes, the last one wins.
    Renamed(ChangeId),
}

/// The archive state of a conversation, with the change that set the state. Compared by change first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArchiveState {
    /// The `ConversationChanged` event that set the state.
    pub change_id: ChangeId,
    /// True when the conversation is archived.
    pub archived: bool,
}

/// The model and the temperature of a conversation, with the chat that requested them.
#[derive(Clone, Debug, PartialEq)]
pub struct ConversationSettings {
    /// The chat that requested the settings; none when the conversation was opened with settings.
    pub chat_id: Option<ChatId>,
    /// The model requested by the client.
    pub model: Option<String>,
    /// The temperature requested by the client.
    pub temperature: Option<f64>,
}

// === impl Conversation ===

impl Conversation {
    /// The facts about the conversation of a chat; none when the call belongs to no conversation. So are those of an end.
    pub(super) fn from_started(event: &ChatStarted) -> Option<Self> {
        let conversation_id = event.conversation_id?;
        let user_messages = event.new_messages.iter().filter(|message| message.role == "user");
        let origin = TitleOrigin::Chat(Reverse(event.chat_id));
        let settings = ConversationSettings {
            chat_id: Some(event.chat_id),
            model: Some(pg_text(&event.model)),
            temperature: event.temperature,
        };
        Some(Self {
            title: user_messages.filter_map(|message| Title::new(origin, &message.text)).next(),
            settings: Some(settings),
            ..Self::minimal(conversation_id, &event.user_id, event.started_at)
        })
    }

    pub(super) fn from_deferred(event: &ChatDeferred) -> Option<Self> {
        Some(Self::minimal(event.conversation_id?, &event.user_id, event.started_at))
    }

    pub(super) fn from_completed(event: &MessageCompleted) -> Option<Self> {
        let row = Self::minimal(event.conversation_id?, &event.user_id, event.started_at);
        Some(Self { last_message_at: row.last_message_at.max(pg_timestamp(event.finished_at)), ..row })
    }

    pub(super) fn from_failed(event: &ChatFailed) -> Option<Self> {
        let row = Self::minimal(event.conversation_id?, &event.user_id, event.started_at);
        Some(match event.message {
            None => row,
            Some(_) => Self { last_message_at: row.last_message_at.max(pg_timestamp(event.failed_at)), ..row },
        })
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

    /// Makes the row that follows from a chat's row alone; none when the call belongs to no conversation.
    pub(super) fn from_chat_row(chat: &Chat) -> Option<Self> {
        Some(Self::minimal(chat.conversation_id?, &chat.user_id, chat.started_at))
    }

    /// A row for an event that proves the conversation's existence without adding a message: `last_message_at` is the
    /// Unix epoch.
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

    /// Joins the facts of `other`, a row of the same conversation. The sums stay as they are; see [`super::merge`].
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
    /// Makes a title of one line of at most [`TITLE_CHARACTERS`]; none when the text has no visible character.
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
    /// Reads the origin from the columns `title_chat_id` and `title_change_id`.
    pub fn from_columns(chat_id: Option<Uuid>, change_id: Option<Uuid>) -> Self {
        match (change_id, chat_id) {
            (Some(id), _) => Self::Renamed(ChangeId(id)),
            (None, Some(id)) => Self::Chat(Reverse(ChatId(id))),
            (None, None) => Self::Created,
        }
    }

    /// The value of the column `title_chat_id`.
    pub fn chat_id(self) -> Option<Uuid> {
        match self {
            Self::Chat(Reverse(chat_id)) => Some(chat_id.0),
            Self::Created | Self::Renamed(_) => None,
        }
    }

    /// The value of the column `title_change_id`.
    pub fn change_id(self) -> Option<Uuid> {
        match self {
            Self::Renamed(change_id) => Some(change_id.0),
            Self::Created | Self::Chat(_) => None,
        }
    }
}

/// Shortens a title by one character to add the ellipsis that marks a cut.
fn ellipsize(line: &str) -> String {
    let kept: String = line.chars().take(TITLE_CHARACTERS - 1).collect();
    format!("{}…", kept.trim_end())
}

// === impl ConversationSettings ===

impl ConversationSettings {
    fn compare(&self, other: &Self) -> Ordering {
        let temperature = |settings: &Self| settings.temperature.map(total_order_key);
        (self.chat_id, &self.model, temperature(self)).cmp(&(other.chat_id, &other.model, temperature(other)))
    }
}

/// Maps a number to an integer with the total order of IEEE 754.
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
