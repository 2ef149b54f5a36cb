//! The opening, the changes and the deletion of a conversation, made again from the row of the conversation.

use shared::event::{ConversationChanged, ConversationCreated, ConversationDeleted, Event, Restored};
use shared::id::ChangeId;
use time::OffsetDateTime;

use crate::projection::conversation::{Conversation, TitleOrigin};

/// Makes the events of a conversation again, as far as `projected` lacks their facts: the row that the log gives together with the chats
/// that were made again.
pub fn conversation_events(
    row: &Conversation,
    projected: Option<&Conversation>,
    restored_at: OffsetDateTime,
) -> Vec<Event> {
    let mut facts = Facts { row, restored: Restored::new(restored_at, None), events: Vec::new() };
    // A title and an archived state can come from one change.
    let lost_title = row.title.as_ref().filter(|title| projected.is_none_or(|now| now.title.as_ref() < Some(title)));
    let archive = row.archive.filter(|archive| projected.is_none_or(|now| now.archive < Some(*archive)));
    let renamed = lost_title.and_then(|title| Some((title.origin.change_id().map(ChangeId)?, title.text.clone())));
    match (renamed, archive) {
        (Some((change_id, title)), Some(archive)) if change_id == archive.change_id => {
            facts.changed(change_id, Some(title), Some(archive.archived));
        }
        (renamed, archive) => {
            if let Some((change_id, title)) = renamed {
                facts.changed(change_id, Some(title), None);
            }
            if let Some(archive) = archive {
                facts.changed(archive.change_id, None, Some(archive.archived));
            }
        }
    }
    if let Some(deleted_at) = row.deleted_at
        && projected.is_none_or(|now| now.deleted_at.is_none_or(|other| deleted_at < other))
    {
        facts.deleted(deleted_at);
    }
    let title = lost_title.filter(|title| title.origin == TitleOrigin::Created).map(|title| title.text.clone());
    let settings = row.settings.as_ref().filter(|settings| settings.chat_id.is_none());
    let settings = settings.filter(|settings| projected.is_none_or(|now| now.settings.as_ref() != Some(settings)));
    let earliest = facts.events.iter().map(Event::time).chain(projected.map(|now| now.created_at)).min();
    let is_opening_lost = earliest.is_none_or(|earliest| row.created_at < earliest);
    // Only messages and the opening count as use. By clocks that differ, an opening can come after the first chat or change.
    let is_use_lost = projected.is_none_or(|now| now.last_message_at < row.last_message_at);
    let is_owner_lost = projected.is_some_and(|now| row.user_id < now.user_id);
    let opened_at = if is_use_lost { row.last_message_at } else { row.created_at };
    let has_to_open = facts.has_opening() && (is_opening_lost || is_use_lost || is_owner_lost);
    if title.is_some() || settings.is_some() || has_to_open {
        facts.events.push(Event::ConversationCreated(Box::new(ConversationCreated {
            conversation_id: row.conversation_id,
            user_id: row.user_id.clone(),
            created_at: opened_at,
            title,
            model: settings.and_then(|settings| settings.model.clone()),
            temperature: settings.and_then(|settings| settings.temperature),
            restored: Some(facts.restored.clone()),
        })));
    }
    if facts.events.iter().map(Event::time).chain(earliest).min().is_none_or(|earliest| row.created_at < earliest) {
        // A change that a later change replaced: all that is left of it is its time.
        facts.changed_at(row.created_at, ChangeId(row.conversation_id.0), None, None);
    }
    facts.events
}

struct Facts<'a> {
    row: &'a Conversation,
    restored: Restored,
    events: Vec<Event>,
}

impl Facts<'_> {
    /// False for a conversation of which no chat and no opening is known: then its earliest change is the time of its opening.
    fn has_opening(&self) -> bool {
        self.row.last_message_at >= self.row.created_at
    }

    fn changed(&mut self, change_id: ChangeId, title: Option<String>, archived: Option<bool>) {
        let opened = self.row.created_at;
        let at = if self.has_opening() { opened.max(time_of(change_id).unwrap_or(opened)) } else { opened };
        self.changed_at(at, change_id, title, archived);
    }

    fn changed_at(&mut self, at: OffsetDateTime, change_id: ChangeId, title: Option<String>, archived: Option<bool>) {
        self.events.push(Event::ConversationChanged(Box::new(ConversationChanged {
            change_id,
            conversation_id: self.row.conversation_id,
            user_id: self.row.user_id.clone(),
            changed_at: at,
            title,
            archived,
            restored: Some(self.restored.clone()),
        })));
    }

    fn deleted(&mut self, deleted_at: OffsetDateTime) {
        self.events.push(Event::ConversationDeleted(Box::new(ConversationDeleted {
            conversation_id: self.row.conversation_id,
            user_id: self.row.user_id.clone(),
            deleted_at,
            restored: Some(self.restored.clone()),
        })));
    }
}

/// The time in the id of a change, a UUIDv7. No row has the time of a change itself.
fn time_of(change_id: ChangeId) -> Option<OffsetDateTime> {
    let (seconds, nanoseconds) = change_id.0.get_timestamp()?.to_unix();
    let nanoseconds = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok()
}
