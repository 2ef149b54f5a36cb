//! The journal as its callers and the relay see it.

pub(in crate::journal) mod disk;
mod model;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shared::event::{ConversationCreated, Event};
use uuid::Uuid;

use self::disk::Disk;
use super::segment::Directory;
use super::*;

/// An event of its own for each number; a small one.
pub(super) fn conversation_created(number: u64) -> Event {
    Event::ConversationCreated(Box::new(ConversationCreated {
        conversation_id: shared::id::ConversationId(Uuid::from_u128(u128::from(number))),
        user_id: "ann".parse().unwrap(),
        created_at: shared::event::now(),
        title: Some(format!("number {number}")),
        model: None,
        temperature: None,
    }))
}

fn settings(directory: &Path, level: Level) -> Settings {
    Settings {
        directory: directory.to_owned(),
        level,
        patience: Duration::from_millis(10),
        max_bytes: 4 << 20,
        keep: Duration::ZERO,
    }
}

fn open(settings: &Settings) -> Result<Journal, OpenError> {
    open_on(Directory::new(&settings.directory), settings)
}

fn open_on(directory: Directory, settings: &Settings) -> Result<Journal, OpenError> {
    Journal::open_in(directory, settings.clone(), "g", Arc::default(), Arc::default())
}

/// A journal, and the disk that it is on.
fn on_a_disk(level: Level) -> (tempfile::TempDir, Settings, Arc<Disk>, Journal) {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), level);
    let on = Directory::new(directory.path());
    let disk = Arc::clone(&on.disk);
    let journal = open_on(on, &settings).unwrap();
    (directory, settings, disk, journal)
}

/// Everything that the relay would publish.
fn waiting(journal: &Journal) -> Vec<Entry> {
    let outlet = journal.outlet().unwrap();
    let mut cursor = outlet.cursor_at(outlet.released().below);
    let mut entries = Vec::new();
    loop {
        match outlet.take(64) {
            Source::InOrder(taken) if taken.is_empty() => return entries,
            Source::InOrder(taken) | Source::OutOfOrder(taken) => entries.extend(taken),
            Source::Disk => {
                let batch = outlet.read(&mut cursor, 64, 1 << 20);
                entries.extend(batch.into_iter().flat_map(|batch| batch.entries));
            }
        }
    }
}

#[tokio::test]
async fn a_journal_that_is_opened_again_has_what_was_not_released() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), Level::Synced);
    let journal = open(&settings).unwrap();
    for number in 1..=10 {
        assert_eq!(journal.record(&conversation_created(number)).await, Ok(Durability::Synced));
    }
    let outlet = journal.outlet().unwrap();
    assert_eq!(outlet.release(Released { below: 4, ..Released::default() }).events, 7);
    journal.close();
    journal.wait_until_synced();
    assert_eq!(journal.record(&conversation_created(11)).await, Err(JournalError::Closed));
    drop((journal, outlet));

    let journal = open(&settings).unwrap();
    let numbers: Vec<u64> = waiting(&journal).iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, (4..=10).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_broker_that_has_much_to_catch_up_with_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let patience = Duration::from_secs(60);
    let settings = Settings { patience, ..settings(directory.path(), Level::Replicated) };
    let health = Arc::<BrokerHealth>::default();
    health.is_back();
    let journal =
        Journal::open_in(Directory::new(directory.path()), settings, "g", Arc::clone(&health), Arc::default()).unwrap();
    // The relay has not read what is on the disk, so the broker's acknowledgement is far away.
    let soon = |recorded| tokio::time::timeout(Duration::from_secs(10), recorded);
    assert_eq!(soon(journal.record(&message_completed(1, 10))).await.unwrap(), Ok(Durability::Synced));
    assert_eq!(waiting(&journal).len(), 1);
    let recorded = journal.record(&message_completed(2, 10));
    journal.outlet().unwrap().acknowledged(&[2]);
    assert_eq!(soon(recorded).await.unwrap(), Ok(Durability::Broker), "it has caught up, and is waited for");
}

#[tokio::test]
async fn what_runs_out_of_patience_during_a_nap_of_the_keeper_is_synced_then() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { keep: Duration::from_secs(60), ..settings(directory.path(), Level::Replicated) };
    let health = Arc::<BrokerHealth>::default();
    health.is_back();
    let journal = Journal::open_in(Directory::new(directory.path()), settings, "g", health, Arc::default()).unwrap();
    assert_eq!(waiting(&journal).len(), 0);
    // The keeper syncs by itself once a second, and has just begun.
    let since = Instant::now();
    assert_eq!(journal.record_start(&chat_started(1)).await, Ok(Durability::Synced));
    assert!(since.elapsed() < Duration::from_millis(800), "{:?}", since.elapsed());
    let since = Instant::now();
    assert_eq!(journal.record(&message_completed(1, 10)).await, Ok(Durability::Synced));
    assert!(since.elapsed() < Duration::from_millis(800), "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_second_gateway_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), Level::Journal);
    let journal = open(&settings).unwrap();
    let refused = open(&settings).unwrap_err().to_string();
    let us = std::process::id();
    assert!(refused.contains(&format!("is in use by process {us}")), "{refused}");
    drop(journal);
}

/// The start of a chat of its own for each number.
pub(super) fn chat_started(number: u64) -> Event {
    let id = Uuid::from_u128(u128::from(number));
    let text = serde_json::json!({
        "chat_id": id, "conversation_id": id, "conversation_origin": "minted", "user_id": "ann", "gateway": "g",
        "started_at": "2026-01-02T03:04:05Z", "dialect": "openai_chat", "stream": true, "model": "m", "parameters": {},
        "messages": [], "assistant_message_id": id,
    });
    Event::decode(shared::event::EventKind::ChatStarted, text.to_string().as_bytes()).unwrap()
}

/// The end of that chat, with an answer of this length.
pub(super) fn message_completed(number: u64, length: usize) -> Event {
    let id = Uuid::from_u128(u128::from(number));
    let text = serde_json::json!({
        "chat_id": id, "conversation_id": id, "user_id": "ann", "gateway": "g", "started_at": "2026-01-02T03:04:05Z",
        "finished_at": "2026-01-02T03:04:06Z", "model": "m", "message": {"id": id, "text": "x".repeat(length)},
        "usage": shared::usage::Usage::default(), "duration_ms": 1000, "upstream": {"name": "u"}, "attempts": [],
    });
    Event::decode(shared::event::EventKind::MessageCompleted, text.to_string().as_bytes()).unwrap()
}

#[tokio::test]
async fn a_gateway_that_comes_back_ends_the_chats_that_were_open() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), Level::Journal);
    let journal = open(&settings).unwrap();
    for number in 1..=3 {
        assert_eq!(journal.record(&chat_started(number)).await, Ok(Durability::Journal));
    }
    journal.record(&message_completed(2, 10)).await.unwrap();
    journal.close();
    journal.wait_until_synced();
    drop(journal);

    let types = |journal: &Journal| -> Vec<(String, Uuid)> {
        let entries = waiting(journal);
        let events = entries.iter().filter_map(Entry::event);
        events.map(|event| (event.envelope.type_name.to_owned(), event.envelope.id.0)).collect()
    };
    let journal = open(&settings).unwrap();
    let ended = types(&journal).split_off(4);
    let failed = |number: u128| shared::id::EventId::derive(Uuid::from_u128(number), "failed").0;
    let failures: Vec<_> = [1, 3].map(|number| ("stenograph.ChatFailed.v1".to_owned(), failed(number))).into();
    assert_eq!(ended, failures);
    journal.close();
    journal.wait_until_synced();
    drop(journal);
    assert_eq!(types(&open(&settings).unwrap()).len(), 6, "they are ended once");
}

#[tokio::test]
async fn a_sync_that_fails_is_not_trusted_and_what_it_held_is_written_again() {
    let (directory, settings, disk, journal) = on_a_disk(Level::Synced);
    journal.record(&conversation_created(1)).await.unwrap();
    disk.fail_syncs(1);
    assert_eq!(journal.record(&conversation_created(2)).await, Ok(Durability::Synced));
    journal.close();
    journal.wait_until_synced();
    drop(journal);
    // The first segment holds the second event too, as it seems; it is the other one that vouches for it.
    std::fs::remove_file(Directory::new(directory.path()).file(1)).unwrap();
    let numbers: Vec<u64> = waiting(&open(&settings).unwrap()).iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, [2]);
}

#[tokio::test]
async fn a_disk_that_fails_refuses_beginnings_and_keeps_ends_until_it_is_mended() {
    let (_directory, settings, disk, journal) = on_a_disk(Level::Synced);
    journal.record(&chat_started(1)).await.unwrap();
    disk.broken(true);
    let end = journal.record(&message_completed(1, 10));
    assert_eq!(end.refusal(), None);
    assert!(!journal.is_available());
    assert_eq!(journal.record(&chat_started(2)).refusal(), Some(JournalError::Unwritable));
    let held = waiting(&journal);
    assert!(held.iter().any(|entry| entry.number == 2), "the relay gets it from memory");
    disk.broken(false);
    // The keeper tries again every second. What it writes then is synced, and the end is durable.
    assert_eq!(tokio::time::timeout(Duration::from_secs(60), end).await.unwrap(), Ok(Durability::Synced));
    assert!(journal.is_available());
    journal.record(&chat_started(3)).await.unwrap();
    journal.close();
    journal.wait_until_synced();
    drop(journal);
    let numbers: Vec<u64> = waiting(&open(&settings).unwrap()).iter().map(|entry| entry.number).collect();
    // The first was not certain to be on the disk, so it was written once more.
    assert!(numbers.ends_with(&[2, 3, 4]), "{numbers:?}");
}

#[tokio::test]
async fn a_full_journal_refuses_beginnings_and_has_room_for_ends() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), Level::Journal);
    let journal = open(&settings).unwrap();
    let mut begun = 0;
    let refusal = loop {
        let recorded = journal.record(&chat_started(begun + 1));
        match recorded.refusal() {
            Some(refusal) => break refusal,
            None => begun += 1,
        }
    };
    assert_eq!(refusal, JournalError::Full);
    assert!(begun > 30, "{begun}");
    assert!(!journal.is_available());
    for number in 1..=begun {
        assert_eq!(journal.record(&message_completed(number, 50_000)).await, Ok(Durability::Journal));
    }
    let outlet = journal.outlet().unwrap();
    let depth = outlet.release(outlet.released());
    assert!(depth.is_writable && depth.bytes <= settings.max_bytes, "{depth:?}");
    // The broker takes it all, and there is room again.
    let below = outlet.next_number();
    outlet.release(Released { below, ..Released::default() });
    assert!(journal.is_available());
    assert_eq!(journal.record(&chat_started(1_000)).refusal(), None);
}

#[tokio::test]
async fn a_disk_without_room_is_a_full_journal() {
    let (_directory, _, disk, journal) = on_a_disk(Level::Journal);
    disk.full(true);
    let mut number = 1;
    while journal.record(&chat_started(number)).refusal().is_none() {
        number += 1;
    }
    assert!(number > 2, "the room that is reserved is used");
    assert_eq!(journal.record(&chat_started(number)).refusal(), Some(JournalError::Full));
    for ended in 1..number {
        assert_eq!(journal.record(&message_completed(ended, 10)).await, Ok(Durability::Journal));
    }
    disk.full(false);
    assert_eq!(journal.record(&chat_started(number)).refusal(), None);
}

#[tokio::test]
async fn an_end_too_large_for_a_disk_without_room_is_written_as_soon_as_there_is_some() {
    let (_directory, settings, disk, journal) = on_a_disk(Level::Synced);
    journal.record(&chat_started(1)).await.unwrap();
    journal.record(&chat_started(2)).await.unwrap();
    disk.full(true);
    let large = journal.record(&message_completed(1, 300_000));
    assert!(!large.is_written() && large.refusal().is_none(), "it needs a segment of its own, and there is no room");
    let small = journal.record(&message_completed(2, 10)).await;
    assert_eq!(small, Ok(Durability::Synced), "the others have theirs");
    disk.full(false);
    // Nothing else is recorded, and nothing else fails.
    let large = tokio::time::timeout(Duration::from_secs(60), large).await.expect("it is written by itself");
    assert_eq!(large, Ok(Durability::Synced));
    journal.close();
    journal.wait_until_synced();
    drop(journal);
    // It lies behind higher numbers. Nothing may be taken for released that was not read yet.
    let journal = open(&settings).unwrap();
    let outlet = journal.outlet().unwrap();
    let mut cursor = outlet.cursor_at(1);
    let mut numbers = Vec::new();
    while let Some(batch) = outlet.read(&mut cursor, 1, 1) {
        numbers.extend(batch.entries.iter().map(|entry| entry.number));
        let unread = (1..=4).find(|number| !numbers.contains(number));
        let ahead = outlet.lowest_ahead(&cursor);
        assert!(
            unread.is_none_or(|unread| ahead.unwrap() <= unread),
            "{numbers:?} are read, {ahead:?} is said to be next"
        );
    }
    assert_eq!(numbers, [1, 2, 4, 3]);
}

#[tokio::test]
async fn what_is_not_taken_is_not_released_whatever_is_said() {
    let (_directory, _, disk, journal) = on_a_disk(Level::Journal);
    journal.record(&chat_started(1)).await.unwrap();
    disk.full(true);
    drop(journal.record(&message_completed(1, 300_000)));
    journal.record(&conversation_created(2)).await.unwrap();
    let outlet = journal.outlet().unwrap();
    let mut cursor = outlet.cursor_at(1);
    let read = outlet.read(&mut cursor, 64, 1 << 20).unwrap();
    assert_eq!(read.entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), [1, 3]);
    outlet.release(Released { below: 4, ..Released::default() });
    assert_eq!(outlet.released().below, 2, "the second is in memory, and nobody has taken it");
    assert_eq!(waiting(&journal).iter().map(|entry| entry.number).min(), Some(2));
    outlet.release(Released { below: 4, ..Released::default() });
    assert_eq!(outlet.released().below, 4);
}

#[test]
fn a_segment_for_a_large_event_lies_where_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), Level::Journal);
    let journal = open(&settings).unwrap();
    // So many that a segment is made ahead, which is too small for the next.
    for number in 1..=4 {
        assert_eq!(journal.record(&chat_started(number)).refusal(), None);
    }
    assert!(journal.record(&message_completed(1, 300_000)).is_written());
    assert!(journal.record(&message_completed(2, 10)).is_written());
    let (done, read) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let outlet = journal.outlet().unwrap();
        let mut cursor = outlet.cursor_at(1);
        let mut numbers = Vec::new();
        while let Some(batch) = outlet.read(&mut cursor, 2, 1 << 20) {
            numbers.extend(batch.entries.iter().map(|entry| entry.number));
            if numbers.len() > 100 {
                break;
            }
        }
        done.send(numbers).unwrap();
    });
    let numbers = read.recv_timeout(Duration::from_secs(10)).expect("reading comes to an end");
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn what_is_in_memory_alone_is_written_when_the_journal_is_closed() {
    let (_directory, settings, disk, journal) = on_a_disk(Level::Synced);
    journal.record(&chat_started(1)).await.unwrap();
    disk.full(true);
    let large = journal.record(&message_completed(1, 300_000));
    disk.full(false);
    journal.close();
    journal.wait_until_synced();
    let large = tokio::time::timeout(Duration::from_secs(60), large).await.expect("it is known what became of it");
    assert_eq!(large, Ok(Durability::Synced));
    drop(journal);
    let numbers: Vec<u64> = waiting(&open(&settings).unwrap()).iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, [1, 2]);
}

#[tokio::test]
async fn a_relay_that_falls_behind_reads_from_the_disk_and_misses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { max_bytes: 64 << 20, ..settings(directory.path(), Level::Journal) };
    let journal = open(&settings).unwrap();
    assert!(waiting(&journal).is_empty());
    // More than is kept in memory for the relay.
    for number in 1..=100 {
        journal.record(&chat_started(number)).await.unwrap();
        journal.record(&message_completed(number, 150_000)).await.unwrap();
    }
    let numbers: Vec<u64> = waiting(&journal).iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
    journal.record(&conversation_created(1)).await.unwrap();
    assert_eq!(waiting(&journal).len(), 1, "from memory again");
}
