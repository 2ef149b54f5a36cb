//! A model test of the log: after any sequence of appends, releases, syncs, kills and power cuts, recovery finds every
//! entry that must survive.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use shared::event::Event;

use super::events::{chat_started, conversation_created, message_completed};
use crate::journal::checkpoint::{Checkpoint, CheckpointFile};
use crate::journal::directory::LogDirectory;
use crate::journal::log::{AppendOutcome, Log, LogLimits};
use crate::journal::record::{JournalEntry, UnnumberedRecord};
use crate::journal::recovery::{RecoveredJournal, recover};
use crate::journal::segment::{NextRecord, RecordReader};
use crate::journal::unended_chats::ChatChange;

const BOUNDS: LogLimits = LogLimits { max_bytes: 4 << 20, retention: Duration::ZERO };

#[derive(Clone, Debug)]
enum Operation {
    /// Starts a chat, and ends the chat with an answer of the given length.
    Chat(usize),
    /// Starts a chat and leaves the chat open.
    Start,
    /// Ends the oldest open chat, with an answer of the given length.
    End(usize),
    /// Acknowledges the given share of the unacknowledged events, in 255ths.
    Release(u8),
    Sync,
    /// Kills and restarts the gateway. Everything that the kernel has received survives.
    Kill,
    /// Cuts the machine's power. Unsynced writes survive in part, as chosen by the numbers.
    PowerCut(Vec<u16>),
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let length = prop_oneof![8 => 0..300_usize, 1 => 30_000..90_000_usize, 1 => Just(300_000_usize)];
    let operation = prop_oneof![
        6 => length.clone().prop_map(Operation::Chat),
        3 => Just(Operation::Start),
        3 => length.prop_map(Operation::End),
        2 => any::<u8>().prop_map(Operation::Release),
        2 => Just(Operation::Sync),
        1 => Just(Operation::Kill),
        1 => prop::collection::vec(any::<u16>(), 1..40).prop_map(Operation::PowerCut),
    ];
    prop::collection::vec(operation, 1..60)
}

/// The entries that must exist, and the entries that may exist.
#[derive(Default)]
struct ExpectedState {
    /// The events in the log.
    written: BTreeSet<u64>,
    /// The events in the log that survive a power cut.
    synced: BTreeSet<u64>,
    released_below: u64,
    /// The open chats, each with the number of its start.
    open: Vec<(u64, u64)>,
    next_chat: u64,
}

struct LogUnderTest {
    path: tempfile::TempDir,
    directory: LogDirectory,
    log: Log,
    checkpoint_file: CheckpointFile,
    model: ExpectedState,
}

impl LogUnderTest {
    fn new() -> Self {
        let path = tempfile::tempdir().unwrap();
        let directory = LogDirectory::new(path.path());
        let RecoveredJournal { log, checkpoint_file, .. } = recover(directory.clone(), BOUNDS).unwrap();
        let model = ExpectedState { released_below: 1, ..ExpectedState::default() };
        Self { path, directory, log, checkpoint_file, model }
    }

    fn append(&mut self, event: &Event) -> (JournalEntry, AppendOutcome) {
        let record = UnnumberedRecord::from_event(event, "g").unwrap();
        let entry = record.assign_number(self.log.next_number(), 1);
        let outcome = self.log.append(&entry, ChatChange::of(event));
        (entry, outcome)
    }

    fn start(&mut self) -> Option<u64> {
        let chat = self.model.next_chat;
        let event = chat_started(chat);
        let length = UnnumberedRecord::from_event(&event, "g").unwrap().len();
        self.log.reserve_for_new_chat(length).ok()?;
        self.model.next_chat += 1;
        let (entry, outcome) = self.append(&event);
        assert_eq!(outcome, AppendOutcome::Written);
        self.model.written.insert(entry.number);
        self.model.open.push((chat, entry.number));
        Some(chat)
    }

    fn end(&mut self, chat: u64, length: usize) {
        let event = message_completed(chat, length);
        let (entry, outcome) = self.append(&event);
        assert_eq!(outcome, AppendOutcome::Written);
        self.model.written.insert(entry.number);
        self.model.open.retain(|(open, _)| *open != chat);
    }

    fn sync(&mut self) {
        if let Some(batch) = self.log.sync_batch() {
            batch.segments.iter().for_each(|segment| segment.sync().unwrap());
            self.log.mark_synced(&batch);
        }
        self.model.synced = self.model.written.clone();
    }

    fn release(&mut self, share: u8) {
        let (from, to) = (self.model.released_below, self.log.next_number());
        self.model.released_below = from + (to - from) * u64::from(share) / 255;
        let checkpoint = Checkpoint { released_below: self.model.released_below, ..Checkpoint::default() };
        self.checkpoint_file.write(&checkpoint).unwrap();
        self.log.release_below(checkpoint.released_below);
        self.log.remove_expired_segments(Instant::now());
    }

    /// Opens the log again, and compares the contents with the model. The `certain` events must have survived.
    fn reopen(&mut self, certain: &BTreeSet<u64>) {
        let directory = LogDirectory::new(self.path.path());
        let RecoveredJournal { mut log, checkpoint_file, checkpoint, .. } = recover(directory.clone(), BOUNDS).unwrap();
        assert_eq!(checkpoint.released_below, self.model.released_below);
        let found = entry_numbers(&directory, &mut log);
        let unreleased =
            |numbers: &BTreeSet<u64>| numbers.range(checkpoint.released_below..).copied().collect::<BTreeSet<u64>>();
        let missing: Vec<_> = unreleased(certain).difference(&found).copied().collect();
        assert!(missing.is_empty(), "events {missing:?} are missing");
        let unexpected: Vec<_> = unreleased(&found).difference(&self.model.written).copied().collect();
        assert!(unexpected.is_empty(), "events {unexpected:?} were never written");
        assert!(log.next_number() > found.last().copied().unwrap_or(0), "event numbers must not be reused");
        let open: BTreeSet<_> =
            log.unended_chats.all().iter().map(crate::journal::unended_chats::UnendedChat::id).collect();
        for (chat, start) in &self.model.open {
            let is_known = open.contains(&shared::id::ChatId(uuid::Uuid::from_u128(u128::from(*chat))));
            assert!(is_known || !certain.contains(start), "recovery lost the open chat {chat}");
        }
        // The survivors are certain from now on: their pages are on the disk or, after a kill, in the kernel.
        self.model.written = found;
        self.model
            .open
            .retain(|(chat, _)| open.contains(&shared::id::ChatId(uuid::Uuid::from_u128(u128::from(*chat)))));
        (self.directory, self.log, self.checkpoint_file) = (directory, log, checkpoint_file);
    }

    fn kill(&mut self) {
        let certain = self.model.written.clone();
        self.reopen(&certain);
        // The new simulated disk knows of no unsynced writes. A real machine would have synced in the meantime.
        self.model.synced = self.model.written.clone();
    }

    fn power_cut(&mut self, choices: &[u16]) {
        let mut choices = choices.iter().cycle();
        for (segment, writes) in self.directory.disk.unsynced() {
            let path = self.directory.segment_path(segment);
            let Ok(mut bytes) = std::fs::read(&path) else { continue };
            for write in writes {
                let choice = usize::from(*choices.next().unwrap());
                let (at, len) = (usize::try_from(write.at).unwrap(), write.bytes.len());
                // A quarter of the writes survive, a quarter are lost, and half are torn: either the head or the tail
                // survives.
                let lost = match choice % 4 {
                    0 => 0..0,
                    1 => 0..len,
                    2 => choice % (len + 1)..len,
                    _ => 0..choice % (len + 1),
                };
                let end = bytes.len();
                bytes[(at + lost.start).min(end)..(at + lost.end).min(end)].fill(0);
            }
            std::fs::write(&path, bytes).unwrap();
        }
        let certain = self.model.synced.clone();
        self.reopen(&certain);
        self.model.synced = self.model.written.clone();
    }
}

/// Returns the numbers of all events in the log, read like the relay reads.
fn entry_numbers(directory: &LogDirectory, log: &mut Log) -> BTreeSet<u64> {
    let mut numbers = BTreeSet::new();
    for segment in directory.segment_numbers().unwrap() {
        let (end, _) = log.view().extent(segment);
        let file = std::fs::File::open(directory.segment_path(segment)).unwrap();
        let mut records = RecordReader::new(file, 0, end);
        while let NextRecord::Record(entry, _) = records.next().unwrap() {
            if entry.kind == crate::journal::record::RecordKind::Event {
                assert!(entry.event().is_some());
                numbers.insert(entry.number);
            }
        }
    }
    numbers
}

#[test]
fn a_failed_sync_after_a_failed_write_leaves_unwritten_entries_to_be_written() {
    let mut subject = LogUnderTest::new();
    let chat = subject.start().unwrap();
    assert!(subject.log.sync_batch().is_some(), "a sync must be under way");
    subject.directory.disk.set_broken(true);
    let end = message_completed(chat, 10);
    let (entry, outcome) = subject.append(&end);
    assert_eq!(outcome, AppendOutcome::InMemory);
    subject.directory.disk.set_broken(false);
    subject.log.handle_failed_sync();
    assert!(subject.log.is_writable() || subject.log.write_unwritten(), "the repaired disk must accept writes");
    let found = entry_numbers(&subject.directory, &mut subject.log);
    assert!(found.contains(&entry.number), "the end was not written to the log: {found:?}");
}

#[test]
fn an_unwritten_entry_does_not_count_as_synced() {
    let mut subject = LogUnderTest::new();
    let chat = subject.start().unwrap();
    subject.sync();
    subject.directory.disk.set_full(true);
    let large = message_completed(chat, 300_000);
    let (large, outcome) = subject.append(&large);
    assert_eq!(outcome, AppendOutcome::InMemory);
    let small = conversation_created(9);
    assert_eq!(subject.append(&small).1, AppendOutcome::Written);
    subject.sync();
    assert!(subject.log.view().synced_below <= large.number, "event {} was never written", large.number);
    subject.directory.disk.set_full(false);
    assert!(subject.log.write_unwritten());
    assert!(subject.log.view().synced_below <= large.number, "event {} is written, not synced", large.number);
    assert!(entry_numbers(&subject.directory, &mut subject.log).contains(&large.number));
    subject.sync();
    assert_eq!(subject.log.view().synced_below, subject.log.next_number());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn recovery_finds_every_entry_that_must_survive(operations in operations()) {
        let mut subject = LogUnderTest::new();
        for operation in operations {
            match operation {
                Operation::Chat(length) => {
                    if let Some(chat) = subject.start() {
                        subject.end(chat, length);
                    }
                }
                Operation::Start => drop(subject.start()),
                Operation::End(length) => {
                    if let Some((chat, _)) = subject.model.open.first().copied() {
                        subject.end(chat, length);
                    }
                }
                Operation::Release(share) => subject.release(share),
                Operation::Sync => subject.sync(),
                Operation::Kill => subject.kill(),
                Operation::PowerCut(choices) => subject.power_cut(&choices),
            }
        }
        subject.kill();
    }

    #[test]
    fn one_flipped_byte_loses_one_record_and_is_counted(at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let mut subject = LogUnderTest::new();
        for length in [10, 2_000, 150_000, 0, 90_000, 40, 70_000, 10] {
            if let Some(chat) = subject.start() {
                subject.end(chat, length);
            }
        }
        subject.start();
        subject.log.close();
        let directory = LogDirectory::new(subject.path.path());
        let files: Vec<_> = directory.segment_numbers().unwrap().into_iter().map(|number| directory.segment_path(number)).collect();
        prop_assert!(files.len() > 1);
        let total: usize = files.iter().map(|file| std::fs::read(file).unwrap().len()).sum();
        let mut at = at.index(total);
        for file in &files {
            let mut bytes = std::fs::read(file).unwrap();
            if at < bytes.len() {
                bytes[at] ^= flip;
                std::fs::write(file, bytes).unwrap();
                break;
            }
            at -= bytes.len();
        }
        let mut recovered = recover(directory.clone(), BOUNDS).unwrap();
        prop_assert_eq!(recovered.damage.values().sum::<u64>(), 1);
        let found = entry_numbers(&directory, &mut recovered.log);
        prop_assert!(found.len() + 1 >= subject.model.written.len(), "{} of {}", found.len(), subject.model.written.len());
    }
}
