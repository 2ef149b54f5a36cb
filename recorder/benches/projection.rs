//! What an event costs before it meets the database: reading it, projecting it, settling it.

mod events;

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use recorder::projection::merge::{self, Sums};
use recorder::projection::usage_stats::UsageChanges;
use recorder::projection::{Changes, project};
use shared::event::Event;

const BATCH: usize = 1000;

fn settle_all(changes: Changes) -> (merge::ChatWrites, UsageChanges) {
    let mut writes = merge::chats(changes.chats, &BTreeMap::new());
    let (tallies, usage) = (std::mem::take(&mut writes.tallies), std::mem::take(&mut writes.usage));
    let Sums { conversations, mut usage } = Sums::new(changes.conversations, tallies, usage);
    merge::conversations(conversations, &changes.opened, &BTreeMap::new(), &mut usage);
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
    group.bench_function("project and settle", |bencher| bencher.iter(|| settle_all(project(black_box(&decoded)))));
    group.finish();
}

criterion_group!(benches, projection);
criterion_main!(benches);
