//! Random events that contradict each other often.

use proptest::prelude::*;
use serde_json::json;
use shared::event::{ChatDeferred, Event, EventKind};
use time::format_description::well_known::Rfc3339;
use time::macros::datetime;
use uuid::Uuid;

/// The ingredients of an event. The numbers are small so that chats, conversations, users and days collide, and events
/// of the same chat contradict each other more often than events of a real gateway.
pub(super) type Seed = (u8, u8, u8, u8, i64, u8, u8, u8);

/// New messages of a request: none to three, the last one with the text `x`, repeated `variant` times, and U+0000 in one of them.
fn new_messages(variant: u8, number: u8) -> Vec<serde_json::Value> {
    let earlier = (0..number).map(|result| {
        json!({"id": Uuid::nil(), "role": "tool", "text": format!("result {result}"),
            "tool_call_id": variant.is_multiple_of(2).then(|| format!("call {result}"))})
    });
    let last = json!({"id": Uuid::nil(), "role": "user", "text": "x".repeat(variant.into()) + if variant == 2 { "\0y" } else { "" }});
    if variant == 0 { Vec::new() } else { earlier.chain([last]).collect() }
}

/// An event about an API key. The numbers are small, so that changes with one id contradict each other.
fn key_event((kind, key, _, user, minute, variant, number, _): Seed) -> Event {
    let at = (datetime!(2026-11-22 23:58 UTC) + time::Duration::minutes(minute)).format(&Rfc3339).unwrap();
    let models = ["a*", "b"].iter().take(number.into()).collect::<Vec<_>>();
    let operations = ["chat", "a_word_of_tomorrow"].iter().take(variant.into()).collect::<Vec<_>>();
    let settings = json!({"name": format!("name {variant}\0"), "models": models, "operations": operations,
        "expires_at": (variant % 2 == 0).then_some(&at),
        "recording": (["full", "metadata", "a_word_of_tomorrow"][usize::from(number) % 3])});
    let ids = json!({"key_id": Uuid::from_u128(key.into()), "user_id": format!("user {user}")});
    let (kind, fields) = match kind {
        7 => (
            EventKind::KeyIssued,
            json!({"project_id": (number > 1).then(|| Uuid::from_u128(variant.into())), "issued_at": at,
                "issued_by": format!("admin {number}"), "settings": settings}),
        ),
        8 => (
            EventKind::KeyChanged,
            json!({"change_id": Uuid::from_u128(u128::from(number) + 2), "changed_at": at, "changed_by": "cli",
                "settings": settings}),
        ),
        _ => (EventKind::KeyRevoked, json!({"revoked_at": at, "revoked_by": format!("admin {number}\0")})),
    };
    let mut event = ids;
    event.as_object_mut().unwrap().extend(fields.as_object().cloned().unwrap());
    Event::decode(kind, event.to_string().as_bytes()).unwrap()
}

/// A change of limits. The numbers are small, so that changes with one id contradict each other.
fn limits_event((_, scope, _, user, minute, variant, number, _): Seed) -> Event {
    let at = (datetime!(2026-11-22 23:58 UTC) + time::Duration::minutes(minute)).format(&Rfc3339).unwrap();
    let event = json!({"change_id": Uuid::from_u128(number.into()), "changed_at": at, "changed_by": format!("user {user}"),
        "scope": (["deployment", "user:a", "model:m", "everyone"][usize::from(scope) % 4]),
        "limits": {"tokens_per_minute": (variant > 0).then(|| u64::MAX >> variant), "concurrent_chats": variant}});
    Event::decode(EventKind::LimitsChanged, event.to_string().as_bytes()).unwrap()
}

/// A change of a project. The numbers are small, so that changes with one id contradict each other.
fn project_event((_, project, _, user, minute, variant, number, _): Seed) -> Event {
    let at = (datetime!(2026-11-22 23:58 UTC) + time::Duration::minutes(minute)).format(&Rfc3339).unwrap();
    let members: Vec<String> = (0..variant).map(|member| format!("user {member}")).collect();
    let event = json!({"change_id": Uuid::from_u128(number.into()), "project_id": Uuid::from_u128(project.into()),
        "changed_at": at, "changed_by": format!("user {user}"),
        "settings": {"name": format!("project {variant}\0"), "members": members, "disabled": variant == 2}});
    Event::decode(EventKind::ProjectChanged, event.to_string().as_bytes()).unwrap()
}

/// A published list or a repricing. The numbers are small, so that changes with one id contradict each other; the lists price the model
/// `m1` or `gpt-4o`, with and without an end, or cannot be read.
fn prices_event((kind, list, layer, user, minute, variant, number, change): Seed) -> Event {
    let at =
        |minute: i64| (datetime!(2026-11-22 23:56 UTC) + time::Duration::minutes(minute)).format(&Rfc3339).unwrap();
    let model = |name: &str, price: u8| json!({"id": name, "match": {"equals": name}, "prices": {"input_mtok": price, "output_mtok": 1}});
    let list = match list {
        0 => json!([{"id": "openai", "models": [model("gpt-4o", variant + 1)]}]),
        1 => json!([{"id": "own", "model_match": {"contains": "m"}, "models": [model("m1", number + 1)]}]),
        2 => json!([]),
        _ => json!("no list"),
    };
    let ids = json!({"change_id": Uuid::from_u128(change.into()), "published_by": format!("admin {user}"),
        "repriced_by": "cli", "published_at": at(minute + i64::from(number)), "repriced_at": at(minute + 4)});
    let (kind, fields) = if kind == 11 {
        (
            EventKind::PricesPublished,
            json!({"layer": (["base", "own", "third\0"][usize::from(layer) % 3]), "in_force_from": at(minute),
                "in_force_until": (variant > 2).then(|| at(minute + 3)), "sha256": "", "size": 0, "list": list.to_string()}),
        )
    } else {
        (EventKind::CostsRepriced, json!({"since": at(minute), "until": at(minute + i64::from(variant) * 2)}))
    };
    let mut event = ids;
    event.as_object_mut().unwrap().extend(fields.as_object().cloned().unwrap());
    Event::decode(kind, event.to_string().as_bytes()).unwrap()
}

/// An entry of the audit log. The numbers are small, so that entries with one id contradict each other.
fn audit_event((_, entry, target, user, minute, variant, number, _): Seed) -> Event {
    let at = (datetime!(2026-11-22 23:58 UTC) + time::Duration::minutes(minute)).format(&Rfc3339).unwrap();
    let target = (target > 0).then(|| json!({"kind": "user", "id": format!("user {target}\0")}));
    let event = json!({"audit_id": Uuid::from_u128(entry.into()), "recorded_at": at, "actor": format!("user {user}"),
        "action": (["login", "an_act_of_tomorrow"][usize::from(variant) % 2]), "target": target, "outcome": "success",
        "address": (variant > 1).then(|| "x".repeat(400)), "count": number});
    Event::decode(EventKind::AuditRecorded, event.to_string().as_bytes()).unwrap()
}

/// The last number of a seed is the operation and, from 3 on, that the call belongs to no conversation.
pub(super) fn event(seed: Seed) -> Event {
    let (kind, chat, conversation, user, minute, variant, number, operation) = seed;
    if kind > 6 {
        return match kind {
            7..=9 => key_event(seed),
            10 => limits_event(seed),
            13 => audit_event(seed),
            14 => project_event(seed),
            15 => deferred_event(seed),
            _ => prices_event(seed),
        };
    }
    let has_conversation = operation < 3 || kind > 3;
    let at = |minutes: i64| {
        let at = datetime!(2026-11-22 23:58 UTC) + time::Duration::minutes(minutes);
        at.format(&Rfc3339).unwrap()
    };
    let chat_id = Uuid::from_u128(0x0193_6b6e_2f00_7abc_8def_0000_0000_0000 + u128::from(chat));
    let conversation_id = Uuid::from_u128(0x0193_6b6e_2f00_8abc_8def_0000_0000_0000 + u128::from(conversation));
    let message = json!({"id": Uuid::nil(), "text": format!("answer {variant}\0"), "finish_reason": "stop"});
    let source = ["reported", "estimated", "unknown"][usize::from(variant) % 3];
    let usage = json!({"source": source, "prompt_tokens": number, "completion_tokens": variant, "total_tokens": null,
        "raw": (number > 1).then(|| json!({"cost": f64::from(variant) / 8.0})),
        "parts": {"uncached_input": number, "cache_read": 0, "cache_write": 0, "output": variant, "reasoning": 0}});
    let (kind, mut value) = match kind {
        0 => (
            EventKind::ChatStarted,
            json!({"conversation_origin": has_conversation.then_some("minted"), "dialect": "openai_chat", "stream": true,
                "parameters": {}, "temperature": (variant % 2 == 0).then(|| f64::from(number)), "messages": [],
                "assistant_message_id": Uuid::nil(),
                "caller_metadata": (number > 0).then(|| json!({"user": format!("u{variant}\0"), "tags": ["a", format!("t{number}")],
                    "metadata": (variant > 1).then(|| json!({"a": [number, "\0"]}))})),
                "new_messages": new_messages(variant, number)}),
        ),
        1 => (
            EventKind::MessageCompleted,
            json!({"finished_at": at(minute + i64::from(number)), "message": (variant > 0 || number > 0).then_some(message),
                "media": (number > 1).then(|| json!({"input_items": variant})), "usage": usage, "duration_ms": 5,
                "upstream": {"name": "openai", "model": (number > 0).then_some(["gpt-4o", "no-such-model"][usize::from(variant) % 2])},
                "attempts": []}),
        ),
        2 | 3 => {
            let stage = if kind == 2 { "upstream_stream" } else { "gateway_lost" };
            (
                EventKind::ChatFailed,
                json!({"failed_at": at(minute + i64::from(number)), "stage": stage, "error": {"message": "broke"},
                    "message": (variant % 2 == 0).then_some(message), "usage": usage, "duration_ms": 5, "attempts": []}),
            )
        }
        4 => (
            EventKind::ConversationChanged,
            json!({"changed_at": at(minute), "change_id": Uuid::from_u128(u128::from(number)),
                "title": (variant % 2 == 0).then(|| format!("renamed {variant}")),
                "archived": (variant > 1).then_some(variant % 2 == 1)}),
        ),
        5 => (EventKind::ConversationDeleted, json!({"deleted_at": at(minute)})),
        _ => (
            EventKind::ConversationCreated,
            json!({"created_at": at(minute), "title": (variant > 1).then(|| format!("title {variant}")),
                "model": (variant == 0).then_some("m0"), "temperature": null}),
        ),
    };
    let fields = value.as_object_mut().unwrap();
    fields.insert("chat_id".into(), json!(chat_id));
    fields.insert("operation".into(), json!(["chat", "embeddings", "a_word_of_tomorrow"][usize::from(operation) % 3]));
    if has_conversation {
        fields.insert("conversation_id".into(), json!(conversation_id));
    }
    fields.insert("user_id".into(), json!(format!("user {user}")));
    // A third of the seeds with session tokens, a third with a key, a third with the key of a project.
    let key = (operation + variant) % 3;
    if key > 0 {
        fields.insert("key_id".into(), json!(Uuid::from_u128(u128::from(key))));
        fields.insert("project_id".into(), json!((key > 1).then(|| Uuid::from_u128(7))));
    }
    fields.insert("gateway".into(), json!("g"));
    fields.insert(
        "recording".into(),
        json!(["full", "metadata", "none", "a_word_of_tomorrow"][usize::from(user + number + variant) % 4]),
    );
    fields.insert("model".into(), json!(["gpt-4o", "m1"][usize::from(variant % 2)]));
    fields.insert("started_at".into(), json!(at(minute)));
    Event::decode(kind, value.to_string().as_bytes()).unwrap()
}

fn deferred_event(seed: Seed) -> Event {
    let (_, chat, conversation, user, minute, variant, number, operation) = seed;
    // The members that all events of a chat have, from its start.
    let Event::ChatStarted(started) = event((0, chat, conversation, user, minute, variant, number, operation)) else {
        unreachable!("a seed of kind 0 is a start")
    };
    Event::ChatDeferred(Box::new(ChatDeferred {
        chat_id: started.chat_id,
        operation: started.operation,
        conversation_id: started.conversation_id,
        user_id: started.user_id,
        key_id: started.key_id,
        project_id: started.project_id,
        gateway: started.gateway,
        started_at: started.started_at,
        deferred_at: started.started_at + time::Duration::seconds(i64::from(number)),
        model: started.model,
        upstream: ["openai", "azure\0"][usize::from(variant) % 2].to_owned(),
        response_id: format!("resp_{variant}\0"),
        recording: started.recording,
        traceparent: None,
        restored: None,
    }))
}

pub(super) fn seeds() -> impl Strategy<Value = Vec<Seed>> {
    let seed = (0..16_u8, 0..4_u8, 0..3_u8, 0..2_u8, 0..4_i64, 0..4_u8, 0..3_u8, 0..6_u8);
    prop::collection::vec(seed, 0..24)
}
