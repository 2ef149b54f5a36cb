//! The filter of a replay: selects events by user, kind, time, model and conversation.

use std::borrow::Cow;
use std::collections::BTreeSet;

use shared::envelope;
use shared::event::{About, Event, EventKind, EventType};
use shared::id::{ConversationId, UserId};
use shared::subject;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::source::delivery::Delivery;

/// The maximum number of subjects in the consumer's filter. Above the maximum, the reader receives every event and
/// skips most.
const MAX_SUBJECTS: usize = 64;

/// The conditions on an event. All conditions must hold; an empty set or `None` accepts every value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The users of the events.
    pub users: BTreeSet<UserId>,
    /// The kinds of the events.
    pub kinds: BTreeSet<EventKind>,
    /// The earliest time of an event, inclusive.
    pub since: Option<OffsetDateTime>,
    /// The end of the time range, exclusive.
    pub until: Option<OffsetDateTime>,
    /// The models, by the name in the client's request.
    pub models: BTreeSet<String>,
    /// The conversations of the events.
    pub conversations: BTreeSet<ConversationId>,
}

impl Filter {
    /// Returns the subjects for the consumer's filter; empty for all subjects.
    pub fn subjects(&self) -> Vec<String> {
        let users: Vec<Cow<'_, str>> = self.users.iter().map(subject::user_token).collect();
        let kinds: Vec<Cow<'_, str>> = self.kinds.iter().map(|kind| kind.subject_token().into()).collect();
        let or_wildcard = |list: Vec<_>| if list.is_empty() { vec![Cow::Borrowed("*")] } else { list };
        if users.is_empty() && kinds.is_empty() {
            return Vec::new();
        }
        let (users, kinds) = (or_wildcard(users), or_wildcard(kinds));
        if users.len() * kinds.len() > MAX_SUBJECTS {
            return Vec::new();
        }
        kinds.iter().flat_map(|kind| users.iter().map(move |user| format!("chats.{kind}.{user}"))).collect()
    }

    /// Returns true if the kind and the time in the envelope fulfil the conditions. The payload is not decoded.
    pub fn matches_envelope(&self, delivery: &Delivery) -> bool {
        let kind = || delivery.event_type().map(EventType::kind);
        let time = || delivery.header(envelope::TIME).and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok());
        (self.kinds.is_empty() || kind().is_some_and(|kind| self.kinds.contains(&kind)))
            && ((self.since.is_none() && self.until.is_none()) || time().is_some_and(|time| self.matches_time(time)))
    }

    /// Returns true if a condition (user, model or conversation) needs the decoded payload.
    pub fn needs_payload(&self) -> bool {
        !(self.users.is_empty() && self.models.is_empty() && self.conversations.is_empty())
    }

    /// Returns true if the decoded event fulfils all conditions.
    pub fn matches(&self, event: &Event) -> bool {
        fn contains_or_empty<T: Ord + ?Sized>(
            set: &BTreeSet<impl std::borrow::Borrow<T> + Ord>,
            value: Option<&T>,
        ) -> bool {
            set.is_empty() || value.is_some_and(|value| set.iter().any(|one| one.borrow() == value))
        }
        contains_or_empty(&self.users, Some(event.user_id()))
            && contains_or_empty(&self.kinds, Some(&event.kind()))
            && contains_or_empty(&self.conversations, conversation(event).as_ref())
            && contains_or_empty::<str>(&self.models, model(event))
            && self.matches_time(event.time())
    }

    fn matches_time(&self, time: OffsetDateTime) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }
}

fn model(event: &Event) -> Option<&str> {
    match event {
        Event::ChatStarted(event) => Some(&event.model),
        Event::MessageCompleted(event) => Some(&event.model),
        Event::ChatFailed(event) => Some(&event.model),
        Event::ChatDeferred(event) => Some(&event.model),
        Event::ConversationCreated(event) => event.model.as_deref(),
        _ => None,
    }
}

fn conversation(event: &Event) -> Option<ConversationId> {
    match event.about() {
        About::Chat { conversation_id, .. } => conversation_id,
        About::Conversation(id) => Some(id),
        About::Deployment => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_kinds_become_subjects() {
        let mut filter = Filter::default();
        assert!(filter.subjects().is_empty());
        filter.users.insert("ann".parse().unwrap());
        assert_eq!(filter.subjects(), ["chats.*.ann"]);
        filter.users.insert("a.b".parse().unwrap());
        filter.kinds.insert(EventKind::ChatFailed);
        assert_eq!(filter.subjects(), ["chats.failed.~YS5i", "chats.failed.ann"]);
        filter.users.extend((0..100).map(|n| format!("u{n}").parse::<UserId>().unwrap()));
        assert!(filter.subjects().is_empty(), "above the maximum, no subject filter: the payload decides");
        assert!(filter.needs_payload());
    }
}
