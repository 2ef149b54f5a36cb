//! Tests of the journal under faults: damage, a disk that is full at the start, and a process without file descriptors.

use std::collections::BTreeSet;

use super::*;
use crate::journal::disk_watch::DiskWatch;
use crate::journal::tests::disk::Hanging;
use crate::stall::StallChange;

fn open_with(settings: &JournalSettings, directory: LogDirectory, metrics: &Arc<Metrics>) -> Journal {
    Journal::open_in(directory, settings.clone(), "g", Arc::default(), Arc::clone(metrics)).unwrap()
}

fn close(journal: Journal) {
    journal.close();
    journal.wait_until_synced();
    drop(journal);
}

/// Acknowledges events, as the relay does.
fn acknowledge(journal: &Journal, events: &[JournalEntry]) {
    let consumer = journal.consumer().unwrap();
    let numbers: Vec<u64> = events.iter().map(|entry| entry.number).collect();
    // The relay's bound does not include the events that were never on the disk.
    let in_memory = journal.store.as_ref().unwrap().lock_disk().log.unwritten_numbers();
    consumer.mark_acknowledged(&numbers);
    let on_disk = numbers.iter().copied().filter(|number| !in_memory.contains(number)).max().unwrap_or(0);
    consumer.advance_checkpoint(Checkpoint { released_below: on_disk + 1, ..Checkpoint::default() });
}

#[tokio::test]
async fn a_damaged_place_is_counted_once_however_often_the_segment_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), DurabilityLevel::Journal);
    let journal = open(&settings).unwrap();
    for number in 1..=4 {
        journal.record(&conversation_created(number)).await.unwrap();
    }
    close(journal);
    let path = LogDirectory::new(directory.path()).segment_path(1);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let metrics = Arc::<Metrics>::default();
    let journal = open_with(&settings, LogDirectory::new(directory.path()), &metrics);
    assert_eq!(metrics.journal_damaged.get(), 1, "recovery counts the damaged place");
    assert_eq!(unreleased(&journal).len(), 3);
    let consumer = journal.consumer().unwrap();
    let mut cursor = consumer.start_republication().unwrap();
    while consumer.read_for_republication(&mut cursor, 1, 1).is_some() {}
    assert_eq!(metrics.journal_damaged.get(), 1, "the relay and a republication find the same place");

    // Damage that appears while the gateway runs is counted too.
    let path = LogDirectory::new(directory.path()).segment_path(2);
    for number in 5..=6 {
        journal.record(&conversation_created(number)).await.unwrap();
    }
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[60] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    for _ in 0..2 {
        let mut cursor = consumer.start_republication().unwrap();
        while consumer.read_for_republication(&mut cursor, 1, 1).is_some() {}
    }
    assert_eq!(metrics.journal_damaged.get(), 2);
}

#[tokio::test]
async fn a_sync_opens_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(&directory.path().join("journal"), DurabilityLevel::Synced);
    let metrics = Arc::<Metrics>::default();
    let journal = open_with(&settings, LogDirectory::new(&settings.directory), &metrics);
    // A path that leads nowhere stands for a process that can open no file.
    std::fs::rename(&settings.directory, directory.path().join("elsewhere")).unwrap();
    for number in 1..=3 {
        assert_eq!(journal.record(&conversation_created(number)).await, Ok(Durability::Synced));
    }
    assert_eq!(metrics.journal_fsync_failures.get(), 0);
}

#[tokio::test]
async fn segments_are_created_from_the_reserve_when_no_descriptor_is_free() {
    let (_directory, _, disk, journal) = on_a_faulty_disk(DurabilityLevel::Journal);
    disk.exhaust_descriptors(3);
    assert_eq!(refusal(journal.record(&chat_started(1))).await, None);
    let mut number = 1;
    while disk.exhausted_descriptors() > 0 {
        number += 1;
        assert_eq!(refusal(journal.record(&chat_started(number))).await, None, "chat {number}");
    }
    assert_eq!(journal.record(&message_completed(1, 10)).await, Ok(Durability::Journal));
}

#[tokio::test]
async fn a_segment_that_cannot_be_opened_for_lack_of_descriptors_is_not_skipped() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), DurabilityLevel::Journal);
    let journal = open(&settings).unwrap();
    for number in 1..=4 {
        journal.record(&conversation_created(number)).await.unwrap();
    }
    let metrics = Arc::<Metrics>::default();
    close(journal);
    let on = LogDirectory::new(directory.path());
    let disk = Arc::clone(&on.disk);
    let journal = open_with(&settings, on, &metrics);
    disk.exhaust_descriptors(1000);
    let consumer = journal.consumer().unwrap();
    let mut cursor = consumer.cursor_from(1);
    for _ in 0..3 {
        assert!(consumer.read(&mut cursor, 64, 1 << 20).unwrap().entries.is_empty());
    }
    disk.exhaust_descriptors(0);
    assert_eq!(consumer.read(&mut cursor, 64, 1 << 20).unwrap().entries.len(), 4);
    assert_eq!(metrics.journal_damaged.get(), 0);
}

#[tokio::test]
async fn a_journal_opens_on_a_full_disk_delivers_its_events_and_takes_chats_again() {
    let (directory, settings, disk, journal) = on_a_faulty_disk(DurabilityLevel::Synced);
    journal.record(&chat_started(1)).await.unwrap();
    journal.record(&message_completed(1, 10)).await.unwrap();
    journal.record(&chat_started(2)).await.unwrap();
    close(journal);
    drop(disk);

    let on = LogDirectory::new(directory.path());
    let disk = Arc::clone(&on.disk);
    disk.set_room(0);
    let journal = open_on(on, &settings).unwrap();
    assert!(!journal.is_available());
    assert_eq!(refusal(journal.record(&chat_started(3))).await, Some(JournalError::Unwritable));
    let events = unreleased(&journal);
    assert_eq!(events.iter().map(|entry| entry.number).collect::<BTreeSet<_>>(), (1..=4).collect::<BTreeSet<_>>());
    // Removing a segment makes room for one.
    acknowledge(&journal, &events);
    condition("the journal takes no chat", || journal.is_available()).await;
    assert_eq!(refusal(journal.record(&chat_started(4))).await, None);
}

/// The end of a chat is held in memory; until the broker has the end, the chat's start must stay on the disk.
#[tokio::test]
async fn a_full_disk_keeps_the_starts_of_chats_whose_ends_are_only_in_memory() {
    let (directory, settings, _, journal) = on_a_faulty_disk(DurabilityLevel::Synced);
    journal.record(&chat_started(1)).await.unwrap();
    close(journal);
    let on = LogDirectory::new(directory.path());
    on.disk.set_room(0);
    let journal = open_on(on, &settings).unwrap();
    let consumer = journal.consumer().unwrap();
    assert_eq!(unreleased(&journal).len(), 2);
    consumer.mark_acknowledged(&[1]);
    consumer.advance_checkpoint(Checkpoint { released_below: 2, ..Checkpoint::default() });
    let store = journal.store.as_ref().unwrap();
    condition("the acknowledgement reaches the log", || !store.lock().housekeeping.is_due).await;
    assert!(!store.lock_disk().log.write_unwritten());
    // Killed: the next process finds the chat and ends the chat again, under the same id.
    drop((journal, consumer));
    let reopened = LogDirectory::new(directory.path());
    assert_eq!(reopened.segment_numbers().unwrap(), [1]);
}

#[test]
fn a_hanging_sync_is_seen_from_outside() {
    let (_directory, _, disk, journal) = on_a_faulty_disk(DurabilityLevel::Synced);
    let operations = Arc::clone(&journal.store.as_ref().unwrap().directory.operations);
    let hanging = disk.hang(Hanging::Syncs);
    drop(journal.record(&conversation_created(1)));
    let deadline = Instant::now() + Duration::from_secs(60);
    while operations.syncs.progress().is_none() {
        assert!(Instant::now() < deadline, "no sync begins");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (mut watch, now) = (DiskWatch::default(), Instant::now());
    let looks = [0, 2, 3, 10].map(|seconds| watch.observe(&operations, now + Duration::from_secs(seconds)).1);
    assert_eq!(looks, [None, None, Some(StallChange::Began(Duration::from_secs(3))), None]);
    drop(hanging);
    while operations.syncs.progress().is_some() {
        assert!(Instant::now() < deadline, "the sync never ends");
        std::thread::sleep(Duration::from_millis(5));
    }
    let over = watch.observe(&operations, now + Duration::from_secs(11)).1;
    assert_eq!(over, Some(StallChange::Ended(Duration::from_secs(11))));
}
