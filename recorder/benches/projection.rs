//! The cost of an event before the database: decoding, projecting and merging.

mod events;

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use recorder::projection::merge::{self, AggregateChanges};
use recorder::projection::pricing::Prices;
use recorder::projection::usage_stats::UsageChanges;
use recorder::projection::{Changes, project};
use shared::event::Event;

const BATCH: usize = 1000;

fn merge_all(changes: Changes) -> (merge::ChatWrites, UsageChanges) {
    let mut writes = merge::merge_chats(changes.chats, &BTreeMap::new(), Some(&mut Prices::default()));
    let (conversation_totals, usage) =
        (std::mem::take(&mut writes.conversation_totals), std::mem::take(&mut writes.usage));
    let AggregateChanges { conversations, mut usage } =
        AggregateChanges::new(changes.conversations, conversation_totals, usage);
    merge::merge_conversations(conversations, &changes.created_conversations, &BTreeMap::new(), &mut usage);
    (writes, usage)
}

fn projection(criterion: &mut Criterion) {
    let encoded: Vec<_> = events::Chats::of(BATCH as u64).events().take(BATCH).collect();
    let decoded: Vec<Event> = encoded.iter().map(events::Encoded::decode).collect();
    let mut group = criterion.benchmark_group("batch of 1000 events");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("decode", |bencher| {
        bencher.iter(|| encoded.iter().map(events::Encoded::decode).collect::<Vec<_>>());
    });
    group.bench_function("project", |bencher| bencher.iter(|| project(black_box(&decoded))));
    group.bench_function("project and settle", |bencher| bencher.iter(|| merge_all(project(black_box(&decoded)))));
    group.finish();
}

criterion_group!(benches, projection);
criterion_main!(benches);
