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

/// A journal, and a relay that keeps up and takes entries from memory.
struct Recording {
    journal: Journal,
    runtime: tokio::runtime::Runtime,
    _directory: tempfile::TempDir,
}

impl Recording {
    fn start() -> Self {
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
        while consumer.read(&mut cursor, 64, 1 << 20).is_some() {}
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { journal, runtime, _directory: directory }
    }

    /// Acknowledges everything recorded so far.
    fn release(&self) {
        let consumer = self.journal.consumer().expect("recording is enabled");
        while let TailRead::InOrder(entries) = consumer.take(64) {
            if entries.is_empty() {
                break;
            }
            consumer.mark_acknowledged(&entries.iter().map(|entry| entry.number).collect::<Vec<_>>());
        }
        let mut checkpoint = consumer.checkpoint();
        checkpoint.released_below = consumer.next_number();
        consumer.advance_checkpoint(checkpoint);
    }
}

/// Many chats at once: throughput.
#[divan::bench]
fn encoding_and_recording(bencher: Bencher<'_, '_>) {
    let (chat, recording) = (chat(), Recording::start());
    bencher.counter(ItemsCount::new(CHATS)).bench_local(|| {
        let mut last = None;
        for _ in 0..CHATS {
            drop(black_box(recording.journal.record_start(&chat[0])));
            last = Some(black_box(recording.journal.record(&chat[1])));
        }
        // Events are written in their order.
        recording.runtime.block_on(last.expect("a chat was recorded")).expect("the end is recorded");
        recording.release();
    });
    recording.journal.close();
    recording.journal.wait_until_synced();
}

/// One chat after the other: the time until the end of each is written.
#[divan::bench]
fn encoding_and_recording_one_by_one(bencher: Bencher<'_, '_>) {
    let (chat, recording) = (chat(), Recording::start());
    bencher.counter(ItemsCount::new(CHATS)).bench_local(|| {
        for _ in 0..CHATS {
            drop(black_box(recording.journal.record_start(&chat[0])));
            recording.runtime.block_on(recording.journal.record(&chat[1])).expect("the end is recorded");
        }
        recording.release();
    });
    recording.journal.close();
    recording.journal.wait_until_synced();
}
