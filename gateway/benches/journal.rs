//! What the journal costs a chat: its start and its end encoded, as they have to be for the broker anyway, and the same with the
//! log: numbered, checksummed, written, handed to the relay, released.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use gateway::journal::{DurabilityLevel, Journal, JournalSettings, TailRead};
use shared::event::{Event, EventKind};

/// As in the gateway itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many chats an iteration is; then the relay says how far it has come.
const CHATS: u64 = 100;

const STARTED: &str = include_str!("../../shared/tests/published/fixtures/stenograph.ChatStarted.v1/whole.json");
const COMPLETED: &str = include_str!("../../shared/tests/published/fixtures/stenograph.MessageCompleted.v1/whole.json");

fn main() {
    divan::main();
}

/// The start and the end of a chat, the end with an answer of a few hundred words.
fn chat() -> [Event; 2] {
    let read = |kind, published: &str| {
        let published: serde_json::Value = serde_json::from_str(published).expect("a fixture");
        Event::decode(kind, published["payload"].to_string().as_bytes()).expect("an event")
    };
    let mut completed = read(EventKind::MessageCompleted, COMPLETED);
    if let Event::MessageCompleted(completed) = &mut completed {
        completed.message.text = "stenograph ".repeat(200);
    }
    [read(EventKind::ChatStarted, STARTED), completed]
}

#[divan::bench]
fn encoding_alone(bencher: Bencher<'_, '_>) {
    let chat = chat();
    bencher.counter(ItemsCount::new(CHATS)).bench_local(|| {
        for event in std::iter::repeat_n(&chat, usize::try_from(CHATS).unwrap_or(0)).flatten() {
            black_box((shared::envelope::rfc3339_time(event), event.encode().expect("an event")));
        }
    });
}

#[divan::bench]
fn encoding_and_recording(bencher: Bencher<'_, '_>) {
    let chat = chat();
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let settings = JournalSettings {
        directory: directory.path().to_owned(),
        level: DurabilityLevel::Journal,
        acknowledgement_timeout: Duration::from_secs(1),
        max_bytes: 1 << 30,
        retention: Duration::ZERO,
    };
    let journal = Journal::open(settings, "bench", Arc::default(), Arc::default()).expect("a journal");
    let consumer = journal.consumer().expect("it is on");
    let mut cursor = consumer.cursor_from(0);
    // From here on the relay keeps up.
    while consumer.read(&mut cursor, 64, 1 << 20).is_some() {}
    bencher.counter(ItemsCount::new(CHATS)).bench_local(|| {
        for _ in 0..CHATS {
            drop(black_box(journal.record_start(&chat[0])));
            drop(black_box(journal.record(&chat[1])));
            if let TailRead::InOrder(entries) = consumer.take(64) {
                consumer.mark_acknowledged(&entries.iter().map(|entry| entry.number).collect::<Vec<_>>());
            }
        }
        let mut checkpoint = consumer.checkpoint();
        checkpoint.released_below = consumer.next_number();
        consumer.advance_checkpoint(checkpoint)
    });
    journal.close();
    journal.wait_until_synced();
}
