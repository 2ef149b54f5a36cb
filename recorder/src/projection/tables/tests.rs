//! Tests of the projection: any order, any batching and any repetition of events give the same tables, and the sums
//! equal a plain count.

use proptest::prelude::*;
use serde_json::json;
use serde_json::value::RawValue;
use shared::event::{EventKind, EventType, Operation};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::datetime;
use uuid::Uuid;

use super::*;
use crate::projection::chat::ChatOutcome;
use crate::projection::message::Position;

/// The ingredients of an event. The numbers are small so that chats, conversations, users and days collide, and events
/// of the same chat contradict each other more often than events of a real gateway.
type Seed = (u8, u8, u8, u8, i64, u8, u8, u8);

/// New messages of a request: none to three, the last one with the text `x`, repeated `variant` times.
fn new_messages(variant: u8, number: u8) -> Vec<serde_json::Value> {
    let earlier = (0..number).map(|result| {
        json!({"id": Uuid::nil(), "role": "tool", "text": format!("result {result}"),
            "tool_call_id": variant.is_multiple_of(2).then(|| format!("call {result}"))})
    });
    let last = json!({"id": Uuid::nil(), "role": "user", "text": "x".repeat(variant.into())});
    if variant == 0 { Vec::new() } else { earlier.chain([last]).collect() }
}

/// An event about an API key. The numbers are small, so that changes with one id contradict each other.
fn key_event((kind, key, _, user, minute, variant, number, _): Seed) -> Event {
    let at = (datetime!(2026-11-22 23:58 UTC) + time::Duration::minutes(minute)).format(&Rfc3339).unwrap();
    let models = ["a*", "b"].iter().take(number.into()).collect::<Vec<_>>();
    let operations = ["chat", "a_word_of_tomorrow"].iter().take(variant.into()).collect::<Vec<_>>();
    let settings = json!({"name": format!("name {variant}\0"), "models": models, "operations": operations,
        "expires_at": (variant % 2 == 0).then_some(&at),
        "recording": (["full", "metadata", "a_word_of_tomorrow"][usize::from(number) % 3])});
    let ids = json!({"key_id": Uuid::from_u128(key.into()), "user_id": format!("user {user}")});
    let (kind, fields) = match kind {
        7 => (
            EventKind::KeyIssued,
            json!({"project_id": (number > 1).then(|| Uuid::from_u128(variant.into())), "issued_at": at,
                "issued_by": format!("admin {number}"), "settings": settings}),
        ),
        8 => (
            EventKind::KeyChanged,
            json!({"change_id": Uuid::from_u128(u128::from(number) + 2), "changed_at": at, "changed_by": "cli",
                "settings": settings}),
        ),
        _ => (EventKind::KeyRevoked, json!({"revoked_at": at, "revoked_by": format!("admin {number}\0")})),
    };
    let mut event = ids;
    event.as_object_mut().unwrap().extend(fields.as_object().cloned().unwrap());
    Event::decode(kind, event.to_string().as_bytes()).unwrap()
}

/// A change of limits. The numbers are small, so that changes with one id contradict each other.
fn limits_event((_, scope, _, user, minute, variant, number, _): Seed) -> Event {
    let at = (datetime!(2026-11-22 23:58 UTC) + time::Duration::minutes(minute)).format(&Rfc3339).unwrap();
    let event = json!({"change_id": Uuid::from_u128(number.into()), "changed_at": at, "changed_by": format!("user {user}"),
        "scope": (["deployment", "user:a", "model:m", "everyone"][usize::from(scope) % 4]),
        "limits": {"tokens_per_minute": (variant > 0).then(|| u64::MAX >> variant), "concurrent_chats": variant}});
    Event::decode(EventKind::LimitsChanged, event.to_string().as_bytes()).unwrap()
}

/// The last number of a seed is the operation and, from 3 on, that the call belongs to no conversation.
fn event(seed: Seed) -> Event {
    let (kind, chat, conversation, user, minute, variant, number, operation) = seed;
    if kind > 6 {
        return if kind > 9 { limits_event(seed) } else { key_event(seed) };
    }
    let has_conversation = operation < 3 || kind > 3;
    let at = |minutes: i64| {
        let at = datetime!(2026-11-22 23:58 UTC) + time::Duration::minutes(minutes);
        at.format(&Rfc3339).unwrap()
    };
    let chat_id = Uuid::from_u128(0x0193_6b6e_2f00_7abc_8def_0000_0000_0000 + u128::from(chat));
    let conversation_id = Uuid::from_u128(0x0193_6b6e_2f00_8abc_8def_0000_0000_0000 + u128::from(conversation));
    let message = json!({"id": Uuid::nil(), "text": format!("answer {variant}\0"), "finish_reason": "stop"});
    let source = ["reported", "estimated", "unknown"][usize::from(variant) % 3];
    let usage = json!({"source": source, "prompt_tokens": number, "completion_tokens": variant, "total_tokens": null,
        "raw": (number > 1).then(|| json!({"cost": f64::from(variant) / 8.0})),
        "parts": {"uncached_input": number, "cache_read": 0, "cache_write": 0, "output": variant, "reasoning": 0}});
    let (kind, mut value) = match kind {
        0 => (
            EventKind::ChatStarted,
            json!({"conversation_origin": has_conversation.then_some("minted"), "dialect": "openai_chat", "stream": true,
                "parameters": {}, "temperature": (variant % 2 == 0).then(|| f64::from(number)), "messages": [],
                "assistant_message_id": Uuid::nil(),
                "caller_metadata": (number > 0).then(|| json!({"user": format!("u{variant}\0"), "tags": ["a", format!("t{number}")],
                    "metadata": (variant > 1).then(|| json!({"a": [number, "\0"]}))})),
                "new_messages": new_messages(variant, number)}),
        ),
        1 => (
            EventKind::MessageCompleted,
            json!({"finished_at": at(minute + i64::from(number)), "message": (variant > 0 || number > 0).then_some(message),
                "media": (number > 1).then(|| json!({"input_items": variant})), "usage": usage, "duration_ms": 5,
                "upstream": {"name": "openai", "model": (number > 0).then_some(["gpt-4o", "no-such-model"][usize::from(variant) % 2])},
                "attempts": []}),
        ),
        2 | 3 => {
            let stage = if kind == 2 { "upstream_stream" } else { "gateway_lost" };
            (
                EventKind::ChatFailed,
                json!({"failed_at": at(minute + i64::from(number)), "stage": stage, "error": {"message": "broke"},
                    "message": (variant % 2 == 0).then_some(message), "usage": usage, "duration_ms": 5, "attempts": []}),
            )
        }
        4 => (
            EventKind::ConversationChanged,
            json!({"changed_at": at(minute), "change_id": Uuid::from_u128(u128::from(number)),
                "title": (variant % 2 == 0).then(|| format!("renamed {variant}")),
                "archived": (variant > 1).then_some(variant % 2 == 1)}),
        ),
        5 => (EventKind::ConversationDeleted, json!({"deleted_at": at(minute)})),
        _ => (
            EventKind::ConversationCreated,
            json!({"created_at": at(minute), "title": (variant > 1).then(|| format!("title {variant}")),
                "model": (variant == 0).then_some("m0"), "temperature": null}),
        ),
    };
    let fields = value.as_object_mut().unwrap();
    fields.insert("chat_id".into(), json!(chat_id));
    fields.insert("operation".into(), json!(["chat", "embeddings", "a_word_of_tomorrow"][usize::from(operation) % 3]));
    if has_conversation {
        fields.insert("conversation_id".into(), json!(conversation_id));
    }
    fields.insert("user_id".into(), json!(format!("user {user}")));
    // A third of the seeds with session tokens, a third with a key, a third with the key of a project.
    let key = (operation + variant) % 3;
    if key > 0 {
        fields.insert("key_id".into(), json!(Uuid::from_u128(u128::from(key))));
        fields.insert("project_id".into(), json!((key > 1).then(|| Uuid::from_u128(7))));
    }
    fields.insert("gateway".into(), json!("g"));
    fields.insert(
        "recording".into(),
        json!(["full", "metadata", "none", "a_word_of_tomorrow"][usize::from(user + number + variant) % 4]),
    );
    fields.insert("model".into(), json!(["gpt-4o", "m1"][usize::from(variant % 2)]));
    fields.insert("started_at".into(), json!(at(minute)));
    Event::decode(kind, value.to_string().as_bytes()).unwrap()
}

fn seeds() -> impl Strategy<Value = Vec<Seed>> {
    let seed = (0..11_u8, 0..4_u8, 0..3_u8, 0..2_u8, 0..4_i64, 0..4_u8, 0..3_u8, 0..6_u8);
    prop::collection::vec(seed, 0..24)
}

fn tables<'a>(batches: impl IntoIterator<Item = &'a [Event]>) -> Tables {
    let mut tables = Tables::default();
    batches.into_iter().for_each(|batch| tables.apply(batch));
    tables
}

/// Counts the totals again from the ledger and the conversations, without using differences.
fn recounted(tables: &Tables) -> BTreeMap<(UserId, Date), UsageTotals> {
    let mut recounted: BTreeMap<_, UsageTotals> = BTreeMap::new();
    for chat in tables.chats.values() {
        *recounted.entry((chat.user_id.clone(), chat.started_at.date())).or_default() += chat.usage_totals();
    }
    for conversation in tables.conversations.values() {
        let key = (conversation.user_id.clone(), conversation.created_at.date());
        recounted.entry(key).or_default().conversations_created += 1;
    }
    recounted.retain(|_, counts| !counts.is_zero());
    recounted
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_tables_do_not_depend_on_order_batching_or_repetition(
        seeds in seeds(),
        shuffle in any::<prop::sample::Index>(),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        size in 1..7_usize,
        many in 1..9_usize,
    ) {
        let once: Vec<Event> = seeds.iter().copied().map(event).collect();
        let expected = tables([once.as_slice()]);

        let mut again = seeds.clone();
        if !again.is_empty() {
            again.extend(picks.iter().map(|pick| seeds[pick.index(seeds.len())]));
            // Sorting by a hash with a random key is a shuffle that a failing case can repeat.
            let key = shuffle.index(usize::MAX);
            again.sort_by_cached_key(|seed| {
                use std::hash::{DefaultHasher, Hash, Hasher};
                let mut hasher = DefaultHasher::new();
                (key, seed).hash(&mut hasher);
                hasher.finish()
            });
        }
        let again: Vec<Event> = again.into_iter().map(event).collect();
        let got = tables(again.chunks(size));

        prop_assert_eq!(&got, &expected);
        // The number of batches for which sums are held back does not matter either.
        let (mut held, mut aggregates) = (Tables::default(), AggregateChanges::default());
        for (number, batch) in again.chunks(size).enumerate() {
            aggregates.add(held.apply_chats_and_messages(batch));
            if number % many == many - 1 {
                held.apply_aggregates(std::mem::take(&mut aggregates));
            }
        }
        held.apply_aggregates(aggregates);
        prop_assert_eq!(&held, &expected);
        prop_assert_eq!(&recounted(&got), &got.usage_stats);
        // The quarters of a day add up to the day.
        let mut days: BTreeMap<_, UsageTotals> = BTreeMap::new();
        for (key, counts) in &got.usage_slots {
            *days.entry((key.user_id.clone(), key.slot_at.date())).or_default() += *counts;
        }
        prop_assert_eq!(&days, &got.usage_stats);
        for counts in got.usage_stats.values() {
            prop_assert_eq!(counts.api_calls, counts.successful_calls + counts.failed_calls);
        }
        // The totals of each conversation equal the sum over the conversation's chats.
        for conversation in got.conversations.values() {
            let chats = got.chats.values().filter(|chat| chat.conversation_id == Some(conversation.conversation_id));
            let messages: i64 = chats.map(|chat| chat.conversation_totals().messages).sum();
            prop_assert_eq!(conversation.totals.messages, messages);
        }
        let messages: i64 = got.usage_stats.values().map(|counts| counts.messages_created).sum();
        prop_assert_eq!(got.messages.len(), usize::try_from(messages).unwrap());
        // The usage of calls that are no chats, counted again.
        let mut operations: BTreeMap<_, UsageTotals> = BTreeMap::new();
        for chat in got.chats.values().filter(|chat| chat.operation != Operation::Chat) {
            let slot = SlotKey::new(&chat.user_id, chat.started_at, &chat.model);
            *operations.entry(OperationSlotKey { slot, operation: chat.operation }).or_default() += chat.usage_totals();
        }
        operations.retain(|_, counts| !counts.is_zero());
        prop_assert_eq!(&operations, &got.operation_slots);
        // The usage of calls with an API key, counted again.
        let mut keys: BTreeMap<_, UsageTotals> = BTreeMap::new();
        for chat in got.chats.values() {
            let Some(key_id) = chat.key_id else { continue };
            let slot = SlotKey::new(&chat.user_id, chat.started_at, &chat.model);
            *keys.entry(KeySlotKey { slot, key_id, project_id: chat.project_id }).or_default() += chat.usage_totals();
        }
        keys.retain(|_, counts| !counts.is_zero());
        prop_assert_eq!(&keys, &got.key_slots);
        // The positions of a chat's messages have no gap, and the ids are those of the positions.
        for chat in got.chats.values() {
            let new = Position::of_new(chat.request.as_ref().map_or(0, |request| request.new_messages));
            let answer = chat.ending.iter().filter(|ending| ending.has_message).map(|_| Position::Assistant);
            for position in new.chain(answer) {
                let message = &got.messages[&position.message_of(chat.chat_id)];
                prop_assert_eq!((message.chat_id, message.position), (chat.chat_id, position));
                prop_assert_eq!(Position::from_number(position.number()), position);
            }
        }
    }

    #[test]
    fn projecting_two_batches_and_joining_equals_projecting_both_at_once(one in seeds(), other in seeds()) {
        let one: Vec<Event> = one.into_iter().map(event).collect();
        let other: Vec<Event> = other.into_iter().map(event).collect();
        let both: Vec<Event> = one.iter().chain(&other).cloned().collect();
        prop_assert_eq!(project(&one).join(project(&other)), project(&both));
        prop_assert_eq!(project(&other).join(project(&one)), project(&both));
        prop_assert_eq!(project(&one).join(project(&one)), project(&one));
    }
}

const STARTED: Seed = (0, 1, 1, 1, 0, 1, 0, 0);
const COMPLETED: Seed = (1, 1, 1, 1, 0, 3, 2, 0);
const FAILED: Seed = (2, 1, 1, 1, 0, 0, 0, 0);
const ORPHANED: Seed = (3, 1, 1, 1, 0, 0, 0, 0);

fn tables_of(seeds: &[Seed]) -> Tables {
    let events: Vec<Event> = seeds.iter().copied().map(event).collect();
    tables(events.chunks(1))
}

#[test]
fn a_chat_counts_once_on_the_day_on_which_it_started() {
    let tables = tables_of(&[COMPLETED, STARTED, COMPLETED, STARTED, COMPLETED]);
    let [((user, day), counts)] = &tables.usage_stats.iter().collect::<Vec<_>>()[..] else { panic!("one row") };
    assert_eq!(
        (user.as_str(), *day),
        ("user 1", time::macros::date!(2026 - 11 - 22)),
        "the chat started on the 22nd and ended on the 23rd"
    );
    let expected = UsageTotals {
        api_calls: 1,
        successful_calls: 1,
        prompt_tokens: 2,
        completion_tokens: 3,
        total_tokens: 5,
        messages_created: 2,
        conversations_created: 1,
        provider_cost_nanodollars: 375_000_000,
        unpriced_calls: 1,
        ..UsageTotals::default()
    };
    assert_eq!(**counts, expected);
    let conversation = tables.conversations.values().next().unwrap();
    assert_eq!((conversation.totals.messages, conversation.totals.total_tokens), (2, 5));
    assert_eq!(conversation.title.as_ref().unwrap().text, "x");
    let texts: Vec<_> = tables.messages.values().map(|message| message.content.as_str()).collect();
    assert!(texts.contains(&"x") && texts.contains(&"answer 3\\u0000"));
}

#[test]
fn a_chat_without_an_end_counts_its_message_but_no_call() {
    let tables = tables_of(&[STARTED]);
    let counts = tables.usage_stats.values().next().unwrap();
    assert_eq!((counts.api_calls, counts.messages_created, counts.conversations_created), (0, 1, 1));
    assert_eq!(tables.chats.values().next().unwrap().status(), "started");
}

#[test]
fn a_true_ending_replaces_an_orphaned_one_in_any_order() {
    for order in [[STARTED, ORPHANED, COMPLETED], [COMPLETED, ORPHANED, STARTED]] {
        let tables = tables_of(&order);
        let counts = tables.usage_stats.values().next().unwrap();
        assert_eq!((counts.api_calls, counts.successful_calls, counts.failed_calls), (1, 1, 0));
        assert_eq!(counts.messages_created, 2, "the whole answer replaced the orphan's partial answer");
        assert_eq!(counts.estimated_total_tokens, 0);
    }
    let chat = tables_of(&[FAILED, STARTED, ORPHANED]).chats.into_values().next().unwrap();
    assert_eq!(chat.status(), "failed");
    assert!(matches!(chat.ending.unwrap().outcome, ChatOutcome::Failed { .. }));
}

#[test]
fn the_last_title_wins_and_a_deleted_conversation_stays_deleted() {
    const RENAMED: Seed = (4, 1, 1, 1, 2, 0, 1, 0);
    const RENAMED_AGAIN: Seed = (4, 1, 1, 1, 3, 2, 2, 0);
    const DELETED: Seed = (5, 1, 1, 1, 3, 0, 0, 0);
    let only = |seeds: &[Seed]| tables_of(seeds).conversations.into_values().next().unwrap();
    for order in [[STARTED, RENAMED, RENAMED_AGAIN], [RENAMED_AGAIN, RENAMED, STARTED]] {
        let conversation = only(&order);
        assert_eq!(conversation.title.unwrap().text, "renamed 2");
        assert_eq!(conversation.archive.map(|archive| archive.archived), Some(false));
        assert_eq!(conversation.created_at, conversation.last_message_at, "renaming does not move last_message_at");
    }
    for order in [[STARTED, DELETED, COMPLETED], [DELETED, COMPLETED, STARTED]] {
        let tables = tables_of(&order);
        assert!(tables.conversations.values().all(|conversation| conversation.deleted_at.is_some()));
        assert_eq!(
            tables.usage_stats.values().next().unwrap().api_calls,
            1,
            "the usage of a deleted conversation stays counted"
        );
    }
}

#[test]
fn extreme_values_are_brought_into_range() {
    let mut hostile = event(COMPLETED);
    if let Event::MessageCompleted(event) = &mut hostile {
        event.usage.prompt_tokens = Some(u64::MAX);
        event.usage.total_tokens = Some(u64::MAX);
        event.duration_ms = u64::MAX;
        event.finished_at = OffsetDateTime::new_in_offset(
            time::macros::date!(9999 - 12 - 31),
            time::macros::time!(23:59),
            time::macros::offset!(-23:59),
        );
        event.usage.raw = Some(RawValue::from_string(r#"{"a":"\u0000\ud800","b":1e99999}"#.into()).unwrap());
    }
    let tables = tables([[hostile].as_slice()]);
    assert_eq!(tables.usage_stats.values().next().unwrap().prompt_tokens, 1_000_000_000_000);
}

/// The rows of an event of version 1 are those that the recorders before version 2 made: the digests decide between halves of
/// chats, and are in the tables.
#[test]
fn an_event_of_version_1_has_the_digests_that_it_always_had() {
    let fixture = |name: &str| {
        let path = format!("{}/../shared/tests/published/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
        let fixture: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let event_type = EventType::from_name(fixture["headers"]["ce-type"].as_str().unwrap()).unwrap();
        Event::decode(event_type, fixture["payload"].to_string().as_bytes()).unwrap()
    };
    for (name, expected) in [
        ("stenograph.ChatStarted.v1/least.json", 5_884_445_238_714_858_476),
        ("stenograph.ChatStarted.v1/whole.json", -3_819_270_765_861_089_362),
        ("stenograph.ChatStarted.v1/responses.json", -1_955_327_555_228_581_124),
        ("stenograph.MessageCompleted.v1/least.json", -1_315_261_655_274_158_777),
        ("stenograph.MessageCompleted.v1/whole.json", 8_489_653_799_323_922_202),
        ("stenograph.MessageCompleted.v1/estimated.json", 4_482_375_514_719_346_021),
        ("stenograph.ChatFailed.v1/least.json", -7_975_138_819_115_538_711),
        ("stenograph.ChatFailed.v1/whole.json", -4_495_797_486_003_296_820),
        ("stenograph.ChatFailed.v1/orphaned.json", 4_270_869_618_620_555_603),
    ] {
        let chat = tables([[fixture(name)].as_slice()]).chats.into_values().next().unwrap();
        let digest = chat.request.map(|request| request.digest).or(chat.ending.map(|ending| ending.digest)).unwrap();
        assert_eq!(digest, expected, "{name}");
    }
}
