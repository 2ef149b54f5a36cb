//! Tests of the projection: any order, any batching and any repetition of events give the same tables, and the sums
//! equal a plain count.

mod events;
mod restoration;

use proptest::prelude::*;
use serde_json::value::RawValue;
use shared::event::{EventType, Operation};
use time::OffsetDateTime;

use events::{Seed, event, seeds};

use super::*;
use crate::projection::chat::ChatOutcome;
use crate::projection::message::Position;

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
