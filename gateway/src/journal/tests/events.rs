//! Events for tests, made from a number.

use shared::event::{ConversationCreated, Event};
use uuid::Uuid;

/// Returns a small event, distinct for each number.
pub(in crate::journal) fn conversation_created(number: u64) -> Event {
    Event::ConversationCreated(Box::new(ConversationCreated {
        conversation_id: shared::id::ConversationId(Uuid::from_u128(u128::from(number))),
        user_id: "ann".parse().unwrap(),
        created_at: shared::event::now(),
        title: Some(format!("number {number}")),
        model: None,
        temperature: None,
        restored: None,
    }))
}

/// Returns the start of a chat, distinct for each number.
pub(in crate::journal) fn chat_started(number: u64) -> Event {
    let id = Uuid::from_u128(u128::from(number));
    let text = serde_json::json!({
        "chat_id": id, "operation": "chat", "conversation_id": id, "conversation_origin": "minted", "user_id": "ann", "gateway": "g",
        "started_at": "2026-01-02T03:04:05Z", "dialect": "openai_chat", "stream": true, "model": "m", "parameters": {},
        "messages": [], "assistant_message_id": id,
    });
    Event::decode(shared::event::EventKind::ChatStarted, text.to_string().as_bytes()).unwrap()
}

/// Returns the end of the chat of [`chat_started`], with an answer of `length` bytes.
pub(in crate::journal) fn message_completed(number: u64, length: usize) -> Event {
    let id = Uuid::from_u128(u128::from(number));
    let text = serde_json::json!({
        "chat_id": id, "operation": "chat", "conversation_id": id, "user_id": "ann", "gateway": "g",
        "started_at": "2026-01-02T03:04:05Z", "finished_at": "2026-01-02T03:04:06Z", "model": "m", "message": {"id": id, "text": "x".repeat(length)},
        "usage": shared::usage::Usage::default(), "duration_ms": 1000, "upstream": {"name": "u"}, "attempts": [],
    });
    Event::decode(shared::event::EventKind::MessageCompleted, text.to_string().as_bytes()).unwrap()
}
