//! Benchmark of the journal: the cost per chat of encoding the start and the end, which the broker needs in any case,
//! and of encoding and recording: numbering, checksums, writing, handing to the relay, releasing.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use gateway::journal::{DurabilityLevel, Journal, JournalSettings, TailRead};
use shared::event::{Event, EventType};

/// The same allocator as in the gateway.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The number of chats in an iteration. The relay reports the checkpoint once per iteration.
const CHATS: u64 = 100;

const STARTED: &str = include_str!("../../shared/tests/published/fixtures/stenograph.ChatStarted.v2/whole.json");
const COMPLETED: &str = include_str!("../../shared/tests/published/fixtures/stenograph.MessageCompleted.v2/whole.json");

fn main() {
    divan::main();
}

/// Returns the start and the end of a chat, with an answer of 200 words.
fn chat() -> [Event; 2] {
    let read = |published: &str| {
        let published: serde_json::Value = serde_json::from_str(published).expect("the fixture is JSON");
        let event_type = published["headers"]["ce-type"].as_str().and_then(EventType::from_name);
        Event::decode(event_type.expect("the type is known"), published["payload"].to_string().as_bytes())
            .expect("the payload is an event")
    };
    let mut completed = read(COMPLETED);
    if let Event::MessageCompleted(completed) = &mut completed {
        completed.message.as_mut().expect("the fixture has an answer").text = "stenograph ".repeat(200);
    }
    [read(STARTED), completed]
}

#[divan::bench]
fn encoding_alone(bencher: Bencher<'_, '_>) {
    let chat = chat();
    bencher.counter(ItemsCount::new(CHATS)).bench_local(|| {
        for event in std::iter::repeat_n(&chat, usize::try_from(CHATS).unwrap_or(0)).flatten() {
            black_box((shared::envelope::rfc3339_time(event), event.encode().expect("the event is encodable")));
        }
    });
}

#[divan::bench]
fn encoding_and_recording(bencher: Bencher<'_, '_>) {
    let chat = chat();
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
    let settings = JournalSettings {
        directory: directory.path().to_owned(),
        level: DurabilityLevel::Journal,
        acknowledgement_timeout: Duration::from_secs(1),
        max_bytes: 1 << 30,
        retention: Duration::ZERO,
    };
    let journal = Journal::open(settings, "bench", Arc::default(), Arc::default()).expect("an open journal");
    let consumer = journal.consumer().expect("recording is enabled");
    let mut cursor = consumer.cursor_from(0);
    // From here on, the relay keeps up, and takes entries from memory.
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
