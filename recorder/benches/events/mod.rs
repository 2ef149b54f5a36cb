//! Generated events for the benchmarks, in the form published by gateways: chats of many users in many conversations,
//! with some chats open at the same time.

use serde_json::json;
use shared::event::{Event, EventKind};
use shared::id::ChatId;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

/// The number of chats that are open at any time.
const UNDER_WAY: u64 = 64;

/// An encoded event, as in the stream.
pub(crate) struct Encoded {
    /// The type of the event.
    pub(crate) kind: EventKind,
    /// The payload, as JSON bytes.
    pub(crate) payload: Vec<u8>,
}

impl Encoded {
    /// Decodes the event, as the recorder does.
    pub(crate) fn decode(&self) -> Event {
        Event::decode(self.kind, &self.payload).expect("a generated event decodes")
    }
}

/// The dimensions of a generated data set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chats {
    /// The number of chats.
    pub(crate) count: u64,
    /// The number of conversations over which the chats are spread.
    pub(crate) conversations: u64,
    /// The length of each message's text, in bytes.
    pub(crate) text: usize,
}

impl Chats {
    /// A data set of the given number of chats, with typical text lengths.
    pub(crate) fn of(count: u64) -> Self {
        Self { count, conversations: 50_000, text: 1900 }
    }

    /// The `ChatStarted` and `MessageCompleted` events of all chats, interleaved.
    pub(crate) fn events(self) -> impl Iterator<Item = Encoded> {
        (0..self.count + UNDER_WAY).flat_map(move |step| {
            let begun = (step < self.count).then(|| started(step, self));
            let ended = step.checked_sub(UNDER_WAY).map(|number| completed(number, self));
            begun.into_iter().chain(ended)
        })
    }
}

/// The fields shared by both events of a chat.
struct Chat {
    id: Uuid,
    conversation: Uuid,
    user: String,
    started_at: OffsetDateTime,
}

fn chat(number: u64, conversations: u64) -> Chat {
    let scattered = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let conversation = scattered % conversations;
    let millis = 1_793_000_000_000 + number;
    let id = u128::from(millis) << 80 | 7 << 76 | u128::from(scattered & 0xFFF) << 64 | 2 << 62 | u128::from(number);
    let conversation_id =
        u128::from(millis - number + conversation) << 80 | 8 << 76 | 2 << 62 | u128::from(conversation);
    Chat {
        id: Uuid::from_u128(id),
        conversation: Uuid::from_u128(conversation_id),
        user: Uuid::from_u128(u128::from(conversation % 5000)).to_string(),
        started_at: OffsetDateTime::UNIX_EPOCH + time::Duration::milliseconds(i64::try_from(millis).unwrap_or(0)),
    }
}

fn started(number: u64, chats: Chats) -> Encoded {
    let chat = chat(number, chats.conversations);
    let id = ChatId(chat.id);
    let question = text(number, chats.text);
    let payload = json!({
        "chat_id": chat.id, "operation": "chat", "conversation_id": chat.conversation, "conversation_origin": "given",
        "user_id": chat.user, "gateway": "gateway-1", "started_at": chat.started_at.format(&Rfc3339).expect("a UTC time has an RFC 3339 form"),
        "dialect": "openai_chat", "stream": true, "model": "gpt-5-mini", "temperature": 0.7,
        "parameters": {"model": "gpt-5-mini", "stream": true, "temperature": 0.7},
        "messages": [{"role": "user", "content": question}],
        "new_messages": [{"id": id.user_message(), "role": "user", "text": question}],
        "assistant_message_id": id.assistant_message(),
    });
    Encoded { kind: EventKind::ChatStarted, payload: payload.to_string().into_bytes() }
}

fn completed(number: u64, chats: Chats) -> Encoded {
    let chat = chat(number, chats.conversations);
    let started_at = chat.started_at.format(&Rfc3339).expect("a UTC time has an RFC 3339 form");
    let finished_at =
        (chat.started_at + time::Duration::seconds(3)).format(&Rfc3339).expect("a UTC time has an RFC 3339 form");
    let payload = json!({
        "chat_id": chat.id, "operation": "chat", "conversation_id": chat.conversation, "user_id": chat.user, "gateway": "gateway-1",
        "started_at": started_at, "finished_at": finished_at, "model": "gpt-5-mini",
        "message": {"id": ChatId(chat.id).assistant_message(), "text": text(!number, chats.text), "finish_reason": "stop"},
        "usage": {"source": "reported", "prompt_tokens": 412, "completion_tokens": 388, "total_tokens": 800,
            "parts": {"uncached_input": 412, "cache_read": 0, "cache_write": 0, "output": 388, "reasoning": 0},
            "raw": {"prompt_tokens": 412, "completion_tokens": 388, "total_tokens": 800,
                "prompt_tokens_details": {"cached_tokens": 0}}},
        "time_to_first_token_ms": 310, "duration_ms": 3000,
        "upstream": {"name": "default", "model": "gpt-5-mini-2026-08-07", "response_id": format!("chatcmpl-{number:024x}")},
        "attempts": [{"upstream": "default", "started_at": started_at, "duration_ms": 300, "status": 200}],
    });
    Encoded { kind: EventKind::MessageCompleted, payload: payload.to_string().into_bytes() }
}

/// Generates words that compress about as well as prose.
fn text(seed: u64, length: usize) -> String {
    let mut text = String::with_capacity(length + 16);
    let mut state = seed | 1;
    while text.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let letters = 2 + (state >> 60) % 9;
        for place in 0..letters {
            text.push(char::from(b'a' + u8::try_from((state >> (place * 5)) % 26).unwrap_or(0)));
        }
        text.push(' ');
    }
    text.truncate(length);
    text
}
