//! Tests of the journal as its callers and the relay use the journal.

pub(in crate::journal) mod disk;
pub(in crate::journal) mod events;
mod faults;
mod hanging;
mod model;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use self::disk::FaultyDisk;
use self::events::{chat_started, conversation_created, message_completed};
use super::directory::LogDirectory;
use super::*;

fn settings(directory: &Path, level: DurabilityLevel) -> JournalSettings {
    JournalSettings {
        directory: directory.to_owned(),
        level,
        acknowledgement_timeout: Duration::from_millis(10),
        max_bytes: 4 << 20,
        retention: Duration::ZERO,
    }
}

fn open(settings: &JournalSettings) -> Result<Journal, JournalOpenError> {
    open_on(LogDirectory::new(&settings.directory), settings)
}

fn open_on(directory: LogDirectory, settings: &JournalSettings) -> Result<Journal, JournalOpenError> {
    Journal::open_in(directory, settings.clone(), "g", Arc::default(), Arc::default())
}

/// Opens a journal on a simulated disk, and returns both.
fn on_a_faulty_disk(level: DurabilityLevel) -> (tempfile::TempDir, JournalSettings, Arc<FaultyDisk>, Journal) {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), level);
    let on = LogDirectory::new(directory.path());
    let disk = Arc::clone(&on.disk);
    let journal = open_on(on, &settings).unwrap();
    (directory, settings, disk, journal)
}

/// Returns the reason for which the journal refuses an event.
async fn refusal(mut recorded: Recorded) -> Option<JournalError> {
    recorded.accepted().await.err()
}

async fn condition(what: &str, is_met: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_met() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Returns every entry that the relay would publish.
fn unreleased(journal: &Journal) -> Vec<JournalEntry> {
    let consumer = journal.consumer().unwrap();
    let mut cursor = consumer.cursor_from(consumer.checkpoint().released_below);
    let mut entries = Vec::new();
    loop {
        match consumer.take(64) {
            TailRead::InOrder(taken) if taken.is_empty() => return entries,
            TailRead::InOrder(taken) | TailRead::OutOfOrder(taken) => entries.extend(taken),
            TailRead::OnDisk => {
                let batch = consumer.read(&mut cursor, 64, 1 << 20);
                entries.extend(batch.into_iter().flat_map(|batch| batch.entries));
            }
        }
    }
}

#[tokio::test]
async fn a_reopened_journal_has_every_event_that_was_not_released() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), DurabilityLevel::Synced);
    let journal = open(&settings).unwrap();
    for number in 1..=10 {
        assert_eq!(journal.record(&conversation_created(number)).await, Ok(Durability::Synced));
    }
    let consumer = journal.consumer().unwrap();
    assert_eq!(consumer.advance_checkpoint(Checkpoint { released_below: 4, ..Checkpoint::default() }).events, 7);
    journal.close();
    journal.wait_until_synced();
    assert_eq!(journal.record(&conversation_created(11)).await, Err(JournalError::Closed));
    drop((journal, consumer));

    let journal = open(&settings).unwrap();
    let numbers: Vec<u64> = unreleased(&journal).iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, (4..=10).collect::<Vec<_>>());
}

#[tokio::test]
async fn events_do_not_wait_for_the_broker_while_the_relay_is_behind() {
    let directory = tempfile::tempdir().unwrap();
    let acknowledgement_timeout = Duration::from_secs(60);
    let settings =
        JournalSettings { acknowledgement_timeout, ..settings(directory.path(), DurabilityLevel::Replicated) };
    let broker_health = Arc::<BrokerHealth>::default();
    broker_health.mark_connected();
    let journal = Journal::open_in(
        LogDirectory::new(directory.path()),
        settings,
        "g",
        Arc::clone(&broker_health),
        Arc::default(),
    )
    .unwrap();
    // The relay has not read the entries on the disk, so the broker's acknowledgement will take long.
    let soon = |recorded| tokio::time::timeout(Duration::from_secs(10), recorded);
    assert_eq!(soon(journal.record(&message_completed(1, 10))).await.unwrap(), Ok(Durability::Synced));
    assert_eq!(unreleased(&journal).len(), 1);
    assert!(broker_health.is_responsive(), "the broker was not waited for, so nothing is known about its speed");
    let mut recorded = journal.record(&message_completed(2, 10));
    // The sync thread would need a few milliseconds for a sync that must not suffice here.
    tokio::time::timeout(Duration::from_millis(50), &mut recorded).await.unwrap_err();
    journal.consumer().unwrap().mark_acknowledged(&[2]);
    assert_eq!(
        soon(recorded).await.unwrap(),
        Ok(Durability::Broker),
        "the relay has caught up, so the broker must be waited for"
    );
}

#[tokio::test]
async fn an_acknowledgement_timeout_is_kept_while_the_sync_thread_sleeps() {
    let directory = tempfile::tempdir().unwrap();
    let settings = JournalSettings {
        retention: Duration::from_secs(60),
        ..settings(directory.path(), DurabilityLevel::Replicated)
    };
    let broker_health = Arc::<BrokerHealth>::default();
    broker_health.mark_connected();
    let journal =
        Journal::open_in(LogDirectory::new(directory.path()), settings, "g", broker_health, Arc::default()).unwrap();
    assert_eq!(unreleased(&journal).len(), 0);
    // The sync thread syncs once a second without being asked. A busy machine may delay any single try.
    let mut fastest = [Duration::MAX; 2];
    for number in 1..=5 {
        let since = Instant::now();
        assert_eq!(journal.record_start(&chat_started(number)).await, Ok(Durability::Synced));
        fastest[0] = fastest[0].min(since.elapsed());
        let since = Instant::now();
        assert_eq!(journal.record(&message_completed(number, 10)).await, Ok(Durability::Synced));
        fastest[1] = fastest[1].min(since.elapsed());
    }
    assert!(fastest.iter().all(|fastest| *fastest < Duration::from_millis(800)), "{fastest:?}");
}

#[tokio::test]
async fn a_directory_in_use_by_another_gateway_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), DurabilityLevel::Journal);
    let journal = open(&settings).unwrap();
    let refused = open(&settings).unwrap_err().to_string();
    let us = std::process::id();
    assert!(refused.contains(&format!("is in use by process {us}")), "{refused}");
    drop(journal);
}

#[tokio::test]
async fn a_reopened_journal_ends_the_chats_that_were_left_open_once() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), DurabilityLevel::Journal);
    let journal = open(&settings).unwrap();
    for number in 1..=3 {
        assert_eq!(journal.record(&chat_started(number)).await, Ok(Durability::Journal));
    }
    journal.record(&message_completed(2, 10)).await.unwrap();
    journal.close();
    journal.wait_until_synced();
    drop(journal);

    let types = |journal: &Journal| -> Vec<(String, Uuid)> {
        let entries = unreleased(journal);
        let events = entries.iter().filter_map(JournalEntry::event);
        events.map(|event| (event.envelope.type_name.to_owned(), event.envelope.id.0)).collect()
    };
    let journal = open(&settings).unwrap();
    let ended = types(&journal).split_off(4);
    let failed = |number: u128| shared::id::EventId::derive(Uuid::from_u128(number), "failed").0;
    let failures: Vec<_> = [1, 3].map(|number| ("stenograph.ChatFailed.v2".to_owned(), failed(number))).into();
    assert_eq!(ended, failures);
    journal.close();
    journal.wait_until_synced();
    drop(journal);
    assert_eq!(types(&open(&settings).unwrap()).len(), 6, "each chat must be ended once");
}

#[tokio::test]
async fn entries_of_a_failed_sync_are_written_again_to_a_new_segment() {
    let (directory, settings, disk, journal) = on_a_faulty_disk(DurabilityLevel::Synced);
    journal.record(&conversation_created(1)).await.unwrap();
    disk.fail_syncs(1);
    assert_eq!(journal.record(&conversation_created(2)).await, Ok(Durability::Synced));
    journal.close();
    journal.wait_until_synced();
    drop(journal);
    // The first segment seems to hold the second event too. Only the copy in the second segment is certain.
    std::fs::remove_file(LogDirectory::new(directory.path()).segment_path(1)).unwrap();
    let numbers: Vec<u64> = unreleased(&open(&settings).unwrap()).iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, [2]);
}

#[tokio::test]
async fn a_broken_disk_refuses_new_chats_and_holds_ends_in_memory_until_it_is_repaired() {
    let (_directory, settings, disk, journal) = on_a_faulty_disk(DurabilityLevel::Synced);
    journal.record(&chat_started(1)).await.unwrap();
    disk.set_broken(true);
    let mut end = journal.record(&message_completed(1, 10));
    tokio::time::timeout(Duration::from_millis(50), end.written()).await.expect_err("the disk is broken");
    assert!(!journal.is_available());
    assert_eq!(refusal(journal.record(&chat_started(2))).await, Some(JournalError::Unwritable));
    let in_memory = unreleased(&journal);
    assert!(in_memory.iter().any(|entry| entry.number == 2), "the relay must get the end from memory");
    disk.set_broken(false);
    // The sync thread retries every second. The end that is written then is synced, and thus durable.
    assert_eq!(tokio::time::timeout(Duration::from_secs(60), end).await.unwrap(), Ok(Durability::Synced));
    assert!(journal.is_available());
    journal.record(&chat_started(3)).await.unwrap();
    journal.close();
    journal.wait_until_synced();
    drop(journal);
    let numbers: Vec<u64> = unreleased(&open(&settings).unwrap()).iter().map(|entry| entry.number).collect();
    // The first event was not certain to be on the disk, so the event was written again.
    assert!(numbers.ends_with(&[2, 3, 4]), "{numbers:?}");
}

#[tokio::test]
async fn a_full_journal_refuses_new_chats_and_has_room_for_the_ends_of_running_chats() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), DurabilityLevel::Journal);
    let journal = open(&settings).unwrap();
    let mut begun = 0;
    let reason = loop {
        match refusal(journal.record(&chat_started(begun + 1))).await {
            Some(refusal) => break refusal,
            None => begun += 1,
        }
    };
    assert_eq!(reason, JournalError::Full);
    assert!(begun > 30, "{begun}");
    assert!(!journal.is_available());
    for number in 1..=begun {
        assert_eq!(journal.record(&message_completed(number, 50_000)).await, Ok(Durability::Journal));
    }
    let consumer = journal.consumer().unwrap();
    let depth = consumer.advance_checkpoint(consumer.checkpoint());
    assert!(depth.is_writable && depth.bytes <= settings.max_bytes, "{depth:?}");
    // The broker acknowledges everything, which makes room.
    let released_below = consumer.next_number();
    consumer.advance_checkpoint(Checkpoint { released_below, ..Checkpoint::default() });
    condition("the released segments make no room", || journal.is_available()).await;
    assert_eq!(refusal(journal.record(&chat_started(1_000))).await, None);
}

#[tokio::test]
async fn a_full_disk_is_reported_as_a_full_journal() {
    let (_directory, _, disk, journal) = on_a_faulty_disk(DurabilityLevel::Journal);
    disk.set_full(true);
    let mut number = 1;
    while refusal(journal.record(&chat_started(number))).await.is_none() {
        number += 1;
    }
    assert!(number > 2, "the reserved room must be used first");
    assert_eq!(refusal(journal.record(&chat_started(number))).await, Some(JournalError::Full));
    for ended in 1..number {
        assert_eq!(journal.record(&message_completed(ended, 10)).await, Ok(Durability::Journal));
    }
    disk.set_full(false);
    assert_eq!(refusal(journal.record(&chat_started(number))).await, None);
}

#[tokio::test]
async fn an_end_too_large_for_a_full_disk_is_written_when_the_disk_has_room() {
    let (_directory, settings, disk, journal) = on_a_faulty_disk(DurabilityLevel::Synced);
    journal.record(&chat_started(1)).await.unwrap();
    journal.record(&chat_started(2)).await.unwrap();
    disk.set_full(true);
    let mut large = journal.record(&message_completed(1, 300_000));
    let written = tokio::time::timeout(Duration::from_millis(50), large.written()).await;
    written.expect_err("a large end needs a segment of its own, for which there is no room");
    let small = journal.record(&message_completed(2, 10)).await;
    assert_eq!(small, Ok(Durability::Synced), "a small end must fit into the reserved room");
    disk.set_full(false);
    // No further event is recorded, and no further write fails.
    let large =
        tokio::time::timeout(Duration::from_secs(60), large).await.expect("the sync thread must write the large end");
    assert_eq!(large, Ok(Durability::Synced));
    journal.close();
    journal.wait_until_synced();
    drop(journal);
    // The large end follows higher numbers in the log. An event that has not been read must not count as released.
    let journal = open(&settings).unwrap();
    let consumer = journal.consumer().unwrap();
    let mut cursor = consumer.cursor_from(1);
    let mut numbers = Vec::new();
    while let Some(batch) = consumer.read(&mut cursor, 1, 1) {
        numbers.extend(batch.entries.iter().map(|entry| entry.number));
        let unread = (1..=4).find(|number| !numbers.contains(number));
        let ahead = consumer.lowest_number_from(cursor.segment());
        assert!(
            unread.is_none_or(|unread| ahead.unwrap() <= unread),
            "read: {numbers:?}, reported as lowest unread: {ahead:?}"
        );
    }
    assert_eq!(numbers, [1, 2, 4, 3]);
}

#[tokio::test]
async fn an_entry_that_was_not_taken_is_not_released_by_a_higher_checkpoint() {
    let (_directory, _, disk, journal) = on_a_faulty_disk(DurabilityLevel::Journal);
    journal.record(&chat_started(1)).await.unwrap();
    disk.set_full(true);
    drop(journal.record(&message_completed(1, 300_000)));
    journal.record(&conversation_created(2)).await.unwrap();
    let consumer = journal.consumer().unwrap();
    let mut cursor = consumer.cursor_from(1);
    let read = consumer.read(&mut cursor, 64, 1 << 20).unwrap();
    assert_eq!(read.entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), [1, 3]);
    consumer.advance_checkpoint(Checkpoint { released_below: 4, ..Checkpoint::default() });
    assert_eq!(consumer.checkpoint().released_below, 2, "event 2 is in memory and has not been taken");
    assert_eq!(unreleased(&journal).iter().map(|entry| entry.number).min(), Some(2));
    consumer.advance_checkpoint(Checkpoint { released_below: 4, ..Checkpoint::default() });
    assert_eq!(consumer.checkpoint().released_below, 4);
}

#[tokio::test]
async fn a_segment_made_for_a_large_event_is_read_in_the_order_of_writing() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), DurabilityLevel::Journal);
    let journal = open(&settings).unwrap();
    // Enough chats for a spare segment, which is too small for the next event.
    for number in 1..=4 {
        assert_eq!(refusal(journal.record(&chat_started(number))).await, None);
    }
    assert_eq!(journal.record(&message_completed(1, 300_000)).written().await, Ok(()));
    assert_eq!(journal.record(&message_completed(2, 10)).written().await, Ok(()));
    let (done, read) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let consumer = journal.consumer().unwrap();
        let mut cursor = consumer.cursor_from(1);
        let mut numbers = Vec::new();
        while let Some(batch) = consumer.read(&mut cursor, 2, 1 << 20) {
            numbers.extend(batch.entries.iter().map(|entry| entry.number));
            if numbers.len() > 100 {
                break;
            }
        }
        done.send(numbers).unwrap();
    });
    let numbers = read.recv_timeout(Duration::from_secs(10)).expect("the reader must reach the end of the log");
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn closing_writes_the_entries_held_in_memory() {
    let (_directory, settings, disk, journal) = on_a_faulty_disk(DurabilityLevel::Synced);
    journal.record(&chat_started(1)).await.unwrap();
    disk.set_full(true);
    let mut large = journal.record(&message_completed(1, 300_000));
    tokio::time::timeout(Duration::from_millis(50), large.written()).await.expect_err("the disk is full");
    disk.set_full(false);
    journal.close();
    journal.wait_until_synced();
    let large = tokio::time::timeout(Duration::from_secs(60), large).await.expect("the end must be resolved");
    assert_eq!(large, Ok(Durability::Synced));
    drop(journal);
    let numbers: Vec<u64> = unreleased(&open(&settings).unwrap()).iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, [1, 2]);
}

#[tokio::test]
async fn a_relay_that_falls_behind_reads_every_entry_from_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let settings = JournalSettings { max_bytes: 64 << 20, ..settings(directory.path(), DurabilityLevel::Journal) };
    let journal = open(&settings).unwrap();
    assert!(unreleased(&journal).is_empty());
    // More than the tail holds in memory for the relay.
    for number in 1..=100 {
        journal.record(&chat_started(number)).await.unwrap();
        journal.record(&message_completed(number, 150_000)).await.unwrap();
    }
    let numbers: Vec<u64> = unreleased(&journal).iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
    journal.record(&conversation_created(1)).await.unwrap();
    assert_eq!(unreleased(&journal).len(), 1, "the relay must read from memory again");
}
