//! Benchmark of the tap: the cost per chunk of reading, folding and passing on.

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gateway::response::dialect::Fold;
use gateway::response::tap::{ExpectedBody, Tap, UsageChunkPolicy};
use shared::event::DialectName;

/// A chunk of OpenAI's chat completions, about 260 bytes.
const CHUNK: &str = concat!(
    r#"data: {"id":"chatcmpl-BqPZ9W0yTqX3vJm8Kf2Lr5NcD1aEh","object":"chat.completion.chunk","created":1763856000,"#,
    r#""model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_0123456789","#,
    r#""choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}],"usage":null}"#,
    "\n\n"
);

fn chunks(criterion: &mut Criterion) {
    let chunk = Bytes::from_static(CHUNK.as_bytes());
    let mut group = criterion.benchmark_group("tap");
    group.throughput(Throughput::Elements(1_000));
    for (name, usage_chunk) in [("passes", UsageChunkPolicy::Forward), ("taken_out", UsageChunkPolicy::Remove)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut tap = Tap::new(Fold::new(DialectName::OpenaiChat), ExpectedBody::Answer, usage_chunk);
                for _ in 0..1_000 {
                    tap.feed(chunk.clone());
                    while tap.next_chunk().is_some() {}
                }
                tap.transcript().text.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, chunks);
criterion_main!(benches);
