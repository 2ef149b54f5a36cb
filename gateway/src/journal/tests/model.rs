//! The log against a model: whatever is appended, released, synced, killed or cut off from its power, what must be there is.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{chat_started, conversation_created, message_completed};
use crate::journal::checkpoint::{Released, ReleasedFile};
use crate::journal::log::{Bounds, Kept, Log};
use crate::journal::record::Draft;
use crate::journal::recovery::{Recovered, recover};
use crate::journal::segment::{Directory, Found, Records};

const BOUNDS: Bounds = Bounds { max_bytes: 4 << 20, keep: Duration::ZERO };

#[derive(Clone, Debug)]
enum Step {
    /// A chat begins, and ends with an answer of this length.
    Chat(usize),
    /// A chat begins.
    Start,
    /// The oldest chat that is open ends.
    End(usize),
    /// The broker acknowledges this share of what it has not, in 256ths.
    Release(u8),
    Sync,
    /// The gateway is killed, and comes back. What the kernel had is there.
    Kill,
    /// The machine loses its power. What was not synced is there in part: the numbers choose.
    PowerCut(Vec<u16>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = prop_oneof![8 => 0..300_usize, 1 => 30_000..90_000_usize, 1 => Just(300_000_usize)];
    let step = prop_oneof![
        6 => length.clone().prop_map(Step::Chat),
        3 => Just(Step::Start),
        3 => length.prop_map(Step::End),
        2 => any::<u8>().prop_map(Step::Release),
        2 => Just(Step::Sync),
        1 => Just(Step::Kill),
        1 => prop::collection::vec(any::<u16>(), 1..40).prop_map(Step::PowerCut),
    ];
    prop::collection::vec(step, 1..60)
}

/// What must be, and what may be.
#[derive(Default)]
struct Model {
    /// Events that are in the log.
    written: BTreeSet<u64>,
    /// Those of them that survive a power cut.
    synced: BTreeSet<u64>,
    released_below: u64,
    /// Chats that are open, and the number of their start.
    open: Vec<(u64, u64)>,
    next_chat: u64,
}

struct World {
    path: tempfile::TempDir,
    directory: Directory,
    log: Log,
    released: ReleasedFile,
    model: Model,
}

impl World {
    fn new() -> Self {
        let path = tempfile::tempdir().unwrap();
        let directory = Directory::new(path.path());
        let Recovered { log, released_file, .. } = recover(directory.clone(), BOUNDS).unwrap();
        let model = Model { released_below: 1, ..Model::default() };
        Self { path, directory, log, released: released_file, model }
    }

    fn start(&mut self) -> Option<u64> {
        let chat = self.model.next_chat;
        let event = chat_started(chat);
        let draft = Draft::of_event(&event, "g").unwrap();
        self.log.check_room(draft.len()).ok()?;
        self.model.next_chat += 1;
        let (entry, kept) = self.log.append(&event, draft);
        assert_eq!(kept, Kept::Written);
        self.model.written.insert(entry.number);
        self.model.open.push((chat, entry.number));
        Some(chat)
    }

    fn end(&mut self, chat: u64, length: usize) {
        let event = message_completed(chat, length);
        let (entry, kept) = self.log.append(&event, Draft::of_event(&event, "g").unwrap());
        assert_eq!(kept, Kept::Written);
        self.model.written.insert(entry.number);
        self.model.open.retain(|(open, _)| *open != chat);
    }

    fn sync(&mut self) {
        if let Some(to_sync) = self.log.to_sync() {
            to_sync.segments.iter().for_each(|segment| segment.sync().unwrap());
            self.log.synced(&to_sync);
        }
        self.model.synced = self.model.written.clone();
    }

    fn release(&mut self, share: u8) {
        let (from, to) = (self.model.released_below, self.log.next_number());
        self.model.released_below = from + (to - from) * u64::from(share) / 255;
        let released = Released { below: self.model.released_below, ..Released::default() };
        self.released.write(&released).unwrap();
        self.log.release_below(released.below);
        self.log.forget_old(Instant::now());
    }

    /// Opens what is there, and checks that it is what must be there.
    fn come_back(&mut self, certain: &BTreeSet<u64>) {
        let directory = Directory::new(self.path.path());
        let Recovered { log, released_file, released, .. } = recover(directory.clone(), BOUNDS).unwrap();
        assert_eq!(released.below, self.model.released_below);
        let found = numbers(&directory, &log);
        let waiting = |numbers: &BTreeSet<u64>| numbers.range(released.below..).copied().collect::<BTreeSet<u64>>();
        let missing: Vec<_> = waiting(certain).difference(&found).copied().collect();
        assert!(missing.is_empty(), "{missing:?} are missing");
        let invented: Vec<_> = waiting(&found).difference(&self.model.written).copied().collect();
        assert!(invented.is_empty(), "{invented:?} were never written");
        assert!(log.next_number() > found.last().copied().unwrap_or(0), "numbers are not used twice");
        let open: BTreeSet<_> = log.open.all().iter().map(crate::journal::open_chats::OpenChat::chat).collect();
        for (chat, start) in &self.model.open {
            let is_known = open.contains(&shared::id::ChatId(uuid::Uuid::from_u128(u128::from(*chat))));
            assert!(is_known || !certain.contains(start), "chat {chat} is open, and forgotten");
        }
        // What survived is certain from now on: the pages are on the disk, or in the kernel for a kill.
        self.model.written = found;
        self.model
            .open
            .retain(|(chat, _)| open.contains(&shared::id::ChatId(uuid::Uuid::from_u128(u128::from(*chat)))));
        (self.directory, self.log, self.released) = (directory, log, released_file);
    }

    fn kill(&mut self) {
        let certain = self.model.written.clone();
        self.come_back(&certain);
        // Nothing of it is unsynced as far as the test's disk remembers; a machine would have synced it in the meantime.
        self.model.synced = self.model.written.clone();
    }

    fn power_cut(&mut self, choices: &[u16]) {
        let mut choices = choices.iter().cycle();
        for (segment, writes) in self.directory.disk.unsynced() {
            let path = self.directory.file(segment);
            let Ok(mut bytes) = std::fs::read(&path) else { continue };
            for write in writes {
                let choice = usize::from(*choices.next().unwrap());
                let (at, len) = (usize::try_from(write.at).unwrap(), write.bytes.len());
                // A third is there, a third is not, a third is torn: its beginning is there, or its end.
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
        self.come_back(&certain);
        self.model.synced = self.model.written.clone();
    }
}

/// The numbers of all events in the log, read as the relay would.
fn numbers(directory: &Directory, log: &Log) -> BTreeSet<u64> {
    let mut numbers = BTreeSet::new();
    for segment in directory.segments().unwrap() {
        let (end, _) = log.extent(segment);
        let file = std::fs::File::open(directory.file(segment)).unwrap();
        let mut records = Records::new(file, 0, end);
        while let Found::Record(entry, _) = records.next().unwrap() {
            if entry.kind == crate::journal::record::Kind::Event {
                assert!(entry.event().is_some());
                numbers.insert(entry.number);
            }
        }
    }
    numbers
}

#[test]
fn a_sync_that_fails_after_writing_did_leaves_what_is_in_memory_to_be_written() {
    let mut world = World::new();
    let chat = world.start().unwrap();
    assert!(world.log.to_sync().is_some(), "it is being synced");
    world.directory.disk.broken(true);
    let end = message_completed(chat, 10);
    let (entry, kept) = world.log.append(&end, Draft::of_event(&end, "g").unwrap());
    assert_eq!(kept, Kept::InMemory);
    world.directory.disk.broken(false);
    world.log.sync_failed();
    assert!(world.log.is_writable() || world.log.try_to_write(), "the disk can be written again");
    let found = numbers(&world.directory, &world.log);
    assert!(found.contains(&entry.number), "the end is in memory alone, and nobody will write it: {found:?}");
}

#[test]
fn what_is_in_memory_alone_does_not_pass_for_synced() {
    let mut world = World::new();
    let chat = world.start().unwrap();
    world.sync();
    world.directory.disk.full(true);
    let large = message_completed(chat, 300_000);
    let (large, kept) = world.log.append(&large, Draft::of_event(&large, "g").unwrap());
    assert_eq!(kept, Kept::InMemory);
    let small = conversation_created(9);
    assert_eq!(world.log.append(&small, Draft::of_event(&small, "g").unwrap()).1, Kept::Written);
    world.sync();
    assert!(world.log.synced_below() <= large.number, "{} was never written", large.number);
    world.directory.disk.full(false);
    assert!(world.log.try_to_write());
    assert!(world.log.synced_below() <= large.number, "{} is written, not synced", large.number);
    assert!(numbers(&world.directory, &world.log).contains(&large.number));
    world.sync();
    assert_eq!(world.log.synced_below(), world.log.next_number());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_must_be_there_is(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Chat(length) => {
                    if let Some(chat) = world.start() {
                        world.end(chat, length);
                    }
                }
                Step::Start => drop(world.start()),
                Step::End(length) => {
                    if let Some((chat, _)) = world.model.open.first().copied() {
                        world.end(chat, length);
                    }
                }
                Step::Release(share) => world.release(share),
                Step::Sync => world.sync(),
                Step::Kill => world.kill(),
                Step::PowerCut(choices) => world.power_cut(&choices),
            }
        }
        world.kill();
    }

    #[test]
    fn one_flipped_byte_costs_one_record_and_is_reported(at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let mut world = World::new();
        for length in [10, 2_000, 150_000, 0, 90_000, 40, 70_000, 10] {
            if let Some(chat) = world.start() {
                world.end(chat, length);
            }
        }
        world.start();
        world.log.close();
        let directory = Directory::new(world.path.path());
        let files: Vec<_> = directory.segments().unwrap().into_iter().map(|number| directory.file(number)).collect();
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
        let recovered = recover(directory.clone(), BOUNDS).unwrap();
        prop_assert_eq!(recovered.damaged, 1);
        let found = numbers(&directory, &recovered.log);
        prop_assert!(found.len() + 1 >= world.model.written.len(), "{} of {}", found.len(), world.model.written.len());
    }
}
