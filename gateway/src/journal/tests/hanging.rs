//! Tests of the journal on a disk that hangs: only what waits for the disk waits.

use super::disk::Hanging;
use super::*;

/// Fails if `call` waits for the disk. A busy machine may delay a call that does not.
fn at_once<T>(call: impl FnOnce() -> T) -> T {
    let since = Instant::now();
    let result = call();
    assert!(since.elapsed() < Duration::from_secs(1), "the call waited for the disk: {:?}", since.elapsed());
    result
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("the future never resolves")
}

async fn pending<T: std::fmt::Debug>(future: impl Future<Output = T>) {
    tokio::time::timeout(Duration::from_millis(50), future).await.expect_err("the future must wait for the disk");
}

/// Opens a journal at the level `replicated` on a simulated disk, with a broker that is connected and answers.
fn replicated(directory: &Path) -> (Arc<FaultyDisk>, Journal) {
    let broker_health = Arc::<BrokerHealth>::default();
    broker_health.mark_connected();
    let settings = JournalSettings {
        acknowledgement_timeout: Duration::from_secs(60),
        ..settings(directory, DurabilityLevel::Replicated)
    };
    let on = LogDirectory::new(directory);
    let disk = Arc::clone(&on.disk);
    (disk, Journal::open_in(on, settings, "g", broker_health, Arc::default()).unwrap())
}

fn tick(journal: &Journal) -> Backlog {
    let consumer = journal.consumer().unwrap();
    consumer.advance_checkpoint(consumer.checkpoint())
}

#[tokio::test]
async fn no_call_waits_for_the_disk_and_every_event_is_written_when_it_answers() {
    let (_directory, settings, disk, journal) = on_a_faulty_disk(DurabilityLevel::Journal);
    for number in 1..=3 {
        soon(journal.record_start(&chat_started(number)).written()).await.unwrap();
    }
    let hanging = disk.hang(Hanging::Everything);
    let mut end = at_once(|| journal.record(&message_completed(1, 10)));
    pending(end.written()).await;
    let mut start = at_once(|| journal.record_start(&chat_started(4)));
    assert_eq!(soon(start.accepted()).await, Ok(()), "room for the chat was found before");
    pending(start.written()).await;
    let second = at_once(|| journal.record(&message_completed(2, 10)));
    assert!(at_once(|| journal.is_available()), "a short wait is no reason to refuse chats");
    at_once(|| tick(&journal));
    at_once(|| journal.consumer().unwrap().mark_acknowledged(&[1]));
    condition("the journal must refuse chats", || !journal.is_available()).await;
    assert_eq!(refusal(at_once(|| journal.record_start(&chat_started(5)))).await, Some(JournalError::Stuck));
    assert!(!at_once(|| tick(&journal)).is_writable);
    let third = at_once(|| journal.record(&message_completed(3, 10)));
    drop(hanging);
    for end in [end, second, third] {
        assert_eq!(soon(end).await, Ok(Durability::Journal));
    }
    assert_eq!(soon(start.written()).await, Ok(()));
    condition("the journal must take chats again", || journal.is_available()).await;
    soon(journal.record_start(&chat_started(5)).written()).await.unwrap();
    assert!(tick(&journal).is_writable);
    journal.close();
    journal.wait_until_synced();
    drop(journal);
    let numbers: Vec<u64> = unreleased(&open(&settings).unwrap()).iter().map(|entry| entry.number).collect();
    // The last two are the ends of chats 4 and 5, which the reopened journal adds.
    assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_relay_gets_events_from_memory_when_the_disk_takes_too_long() {
    let directory = tempfile::tempdir().unwrap();
    let (disk, journal) = replicated(directory.path());
    let consumer = journal.consumer().unwrap();
    assert_eq!(unreleased(&journal).len(), 0);
    soon(journal.record_start(&chat_started(1)).written()).await.unwrap();
    assert_eq!(unreleased(&journal).len(), 1);
    let hanging = disk.hang(Hanging::Everything);
    let end = journal.record(&message_completed(1, 10));
    tick(&journal);
    assert_eq!(unreleased(&journal).len(), 0, "the disk gets a moment");
    let overdue = || {
        tick(&journal);
        unreleased(&journal).iter().map(|entry| entry.number).collect::<Vec<_>>()
    };
    condition("the end must be published", || overdue() == [2]).await;
    // A checkpoint releases nothing that is neither on the disk nor at the broker.
    let mut later = journal.record(&conversation_created(2));
    let released_below = 9;
    consumer.advance_checkpoint(Checkpoint { released_below, ..Checkpoint::default() });
    assert_eq!(consumer.checkpoint().released_below, 3);
    consumer.mark_acknowledged(&[2]);
    assert_eq!(soon(end).await, Ok(Durability::Broker), "an acknowledged end waits for no disk");
    pending(later.written()).await;
    drop(hanging);
    soon(later.written()).await.unwrap();
    condition("an event is published once more", || overdue() != [2]).await;
}

#[tokio::test]
async fn events_that_the_broker_has_not_got_are_written_and_published_once() {
    let directory = tempfile::tempdir().unwrap();
    let (disk, journal) = replicated(directory.path());
    assert_eq!(unreleased(&journal).len(), 0);
    let hanging = disk.hang(Hanging::Everything);
    let mut recorded: Vec<Recorded> = (1..=100).map(|number| journal.record(&message_completed(number, 10))).collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    tick(&journal);
    tick(&journal);
    recorded.extend((101..=200).map(|number| journal.record(&message_completed(number, 10))));
    drop(hanging);
    for recorded in &mut recorded {
        soon(recorded.written()).await.unwrap();
    }
    let numbers: Vec<u64> = unreleased(&journal).iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_memory_of_a_disk_that_hangs_is_bounded() {
    let (_directory, _, disk, journal) = on_a_faulty_disk(DurabilityLevel::Journal);
    let _hanging = disk.hang(Hanging::Everything);
    let mut accepted = Vec::new();
    let lost = loop {
        assert!(accepted.len() < 100, "the queue is not bounded");
        let mut end = journal.record(&message_completed(accepted.len() as u64, 1 << 20));
        if tokio::time::timeout(Duration::from_millis(1), &mut end).await.is_ok() {
            break end;
        }
        accepted.push(end);
    };
    assert_eq!(lost.await, Ok(Durability::Lost));
    assert!((60..=64).contains(&accepted.len()), "64 MiB of ends are kept: {}", accepted.len());
}

#[tokio::test]
async fn an_end_that_waits_for_a_hanging_disk_counts_as_held_in_memory() {
    let (_directory, _, disk, journal) = on_a_faulty_disk(DurabilityLevel::Synced);
    let _hanging = disk.hang(Hanging::Everything);
    let end = journal.record(&message_completed(1, 10));
    let deadline = Instant::now() + waiters::MAX_WAIT;
    while Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
        tick(&journal);
    }
    tick(&journal);
    assert_eq!(soon(end).await, Ok(Durability::Memory));
}
