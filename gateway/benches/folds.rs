//! Benchmark of the tap for each dialect: the time and the allocated memory for reading, folding and passing on a
//! chunk. An iteration is an answer of 1,000 chunks.

use bytes::Bytes;
use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher};
use gateway::response::dialect::Fold;
use gateway::response::tap::{ExpectedBody, Tap, UsageChunkPolicy};
use shared::event::DialectName;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const CHUNKS: usize = 1_000;

/// A chunk of OpenAI's chat completions API, 307 bytes.
const OPENAI_CHAT: &str = concat!(
    r#"data: {"id":"chatcmpl-BqPZ9W0yTqX3vJm8Kf2Lr5NcD1aEh","object":"chat.completion.chunk","created":1763856000,"#,
    r#""model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_0123456789","#,
    r#""choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}],"usage":null}"#,
    "\n\n"
);

/// A chunk of OpenAI's responses API, 248 bytes.
const OPENAI_RESPONSES: &str = concat!(
    "event: response.output_text.delta\n",
    r#"data: {"type":"response.output_text.delta","sequence_number":17,"item_id":"msg_0123456789abcdef0123456789abcdef","#,
    r#""output_index":0,"content_index":0,"delta":" token","logprobs":[],"obfuscation":"0123456789abcdef"}"#,
    "\n\n"
);

/// A chunk of Anthropic's messages API, 121 bytes.
const ANTHROPIC_MESSAGES: &str = concat!(
    "event: content_block_delta\n",
    r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" token"}}"#,
    "\n\n"
);

/// The events that Anthropic's API sends before the first text.
const ANTHROPIC_START: &str = concat!(
    r#"data: {"type":"message_start","message":{"id":"m","model":"c","content":[],"usage":{"input_tokens":1}}}"#,
    "\n\n",
    r#"data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
    "\n\n"
);

fn main() {
    divan::main();
}

#[divan::bench]
fn openai_chat(bencher: Bencher<'_, '_>) {
    chunks(bencher, DialectName::OpenaiChat, "", OPENAI_CHAT);
}

#[divan::bench]
fn openai_responses(bencher: Bencher<'_, '_>) {
    chunks(bencher, DialectName::OpenaiResponses, "", OPENAI_RESPONSES);
}

#[divan::bench]
fn anthropic_messages(bencher: Bencher<'_, '_>) {
    chunks(bencher, DialectName::AnthropicMessages, ANTHROPIC_START, ANTHROPIC_MESSAGES);
}

fn chunks(bencher: Bencher<'_, '_>, dialect: DialectName, start: &'static str, chunk: &'static str) {
    let (start, chunk) = (Bytes::from_static(start.as_bytes()), Bytes::from_static(chunk.as_bytes()));
    bencher.counter(ItemsCount::new(CHUNKS)).bench_local(|| {
        let mut tap = Tap::new(Fold::new(dialect), ExpectedBody::Answer, UsageChunkPolicy::Forward);
        for chunk in std::iter::once(&start).chain(std::iter::repeat_n(&chunk, CHUNKS)) {
            tap.feed(chunk.clone());
            while tap.next_chunk().is_some() {}
        }
        assert_eq!(tap.transcript().text.len(), CHUNKS * " token".len());
        tap
    });
}
