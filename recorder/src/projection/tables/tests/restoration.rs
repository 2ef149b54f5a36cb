//! Events that are made again from rows give the rows that the log has lost.

use proptest::prelude::*;
use serde_json::Value;
use shared::event::{Event, MAX_NEW_MESSAGES};
use time::OffsetDateTime;
use time::macros::datetime;

use super::events::{Seed, event, seeds};
use super::{Tables, tables};
use crate::projection::message::{Message, Position};
use crate::projection::pg_value::PgJson;
use crate::projection::restoration::{
    ChatRows, audit_event, chat_events, conversation_events, key_events, limits_event, price_list_event, project_event,
    repricing_event,
};

const NOW: OffsetDateTime = datetime!(2026-12-03 12:00 UTC);

/// The seeds, with all events of a chat from one mould: a gateway contradicts itself nowhere. So do the events about one key or change.
fn coherent(seeds: Vec<Seed>) -> Vec<Seed> {
    let mould = |(kind, chat, _, _, _, _, _, _): Seed| {
        let hash = usize::from(chat) * 7 + 3;
        let of = |n: usize| u8::try_from(hash / n).unwrap_or_default();
        (kind, chat, of(3) % 3, of(3) % 3 % 2, i64::from(of(5) % 4), of(1) % 4, of(4) % 3, of(6) % 6)
    };
    let from_mould = |seed: Seed| match (seed.0, mould(seed)) {
        // Several changes of a key.
        (8, (kind, key, conversation, user, minute, _, _, operation)) => {
            (kind, key, conversation, user, minute, seed.6, seed.6, operation)
        }
        (0..=3 | 7 | 9 | 13 | 15, seed) => seed,
        // A conversation has one owner.
        (4..=6, _) => (seed.0, seed.1, seed.2, seed.2 % 2, seed.4, seed.5, seed.6, seed.7),
        _ => seed,
    };
    seeds.into_iter().map(from_mould).collect()
}

/// The JSON as a column of PostgreSQL prints it, apart from the order of keys: another notation.
fn printed(json: &mut PgJson) {
    let value: Value = serde_json::from_str(json.as_str()).unwrap();
    *json = PgJson::new(&serde_json::to_string_pretty(&value).unwrap());
}

/// The tables as they are read from PostgreSQL.
fn stored(mut tables: Tables) -> Tables {
    for chat in tables.chats.values_mut() {
        if let Some(request) = &mut chat.request {
            request.caller_metadata.iter_mut().for_each(printed);
        }
        if let Some(ending) = &mut chat.ending {
            ending.usage.raw.iter_mut().chain(&mut ending.media).for_each(printed);
            [&mut ending.attempts, &mut ending.notes].into_iter().for_each(printed);
        }
    }
    tables.messages.values_mut().filter_map(|message| message.tool_calls.as_mut()).for_each(printed);
    tables
}

/// Makes the events again that the log has lost, as `recorder restore-events` does.
fn restored(live: &Tables, log: &Tables) -> Vec<Event> {
    let mut events = Vec::new();
    let message = |position: Position, chat| live.messages.get(&position.message_of(chat));
    for (id, chat) in &live.chats {
        let number = chat.request.as_ref().map_or(0, |request| request.new_messages);
        let new_messages: Vec<&Message> = Position::of_new(number).filter_map(|at| message(at, *id)).collect();
        assert!(new_messages.len() == usize::from(number) && new_messages.len() <= MAX_NEW_MESSAGES);
        let conversation = chat.conversation_id.and_then(|id| live.conversations.get(&id));
        let rows = ChatRows { chat, new_messages, answer: message(Position::Assistant, *id), conversation };
        events.extend(chat_events(&rows, log.chats.get(id), NOW).into_iter().map(|event| event.expect("an event")));
    }
    let mut with_chats = log.clone();
    with_chats.apply(&events);
    for (id, row) in &live.conversations {
        events.extend(conversation_events(row, with_chats.conversations.get(id), NOW));
    }
    for (id, row) in &live.admin.api_keys {
        events
            .extend(key_events(row, log.admin.api_keys.get(id), NOW).into_iter().map(|event| event.expect("an event")));
    }
    let limits = live.admin.limits.iter().filter(|(scope, row)| log.admin.limits.get(*scope) != Some(row));
    events.extend(limits.map(|(_, row)| limits_event(row, NOW).expect("an event")));
    let projects = live.admin.projects.iter().filter(|(id, row)| log.admin.projects.get(*id) != Some(row));
    events.extend(projects.map(|(_, row)| project_event(row, NOW).expect("an event")));
    let lists = live.admin.price_lists.iter().filter(|(id, row)| log.admin.price_lists.get(*id) != Some(row));
    events.extend(lists.map(|(_, row)| price_list_event(row, NOW).expect("an event")));
    let repricings = live.admin.repricings.iter().filter(|(id, row)| log.admin.repricings.get(*id) != Some(row));
    events.extend(repricings.map(|(_, row)| repricing_event(row, NOW).expect("an event")));
    let entries = live.admin.audit_log.iter().filter(|(id, row)| log.admin.audit_log.get(*id) != Some(row));
    events.extend(entries.map(|(_, row)| audit_event(row, NOW).expect("an event")));
    events
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn give_the_tables_whatever_the_log_has_lost(seeds in seeds(), kept in prop::collection::vec(any::<bool>(), 24)) {
        let events: Vec<Event> = coherent(seeds).into_iter().map(event).collect();
        let live = stored(tables([events.as_slice()]));
        let left: Vec<Event> = events.iter().zip(kept).filter(|(_, kept)| *kept).map(|(event, _)| event.clone()).collect();
        let log = tables([left.as_slice()]);
        let restored = restored(&live, &log);
        // The events pass through the log as text.
        let restored: Vec<Event> =
            restored.iter().map(|event| Event::decode(event.kind(), &event.encode().unwrap()).unwrap()).collect();
        let mut again = log.clone();
        again.apply(&restored);
        prop_assert_eq!(&again, &live);
        // Recorders that have the rows already change nothing.
        let mut unchanged = live.clone();
        unchanged.apply(&restored);
        prop_assert_eq!(&unchanged, &live);
        // A log that has everything gets nothing.
        prop_assert_eq!(super::restoration::restored(&live, &again).len(), 0);
    }
}
