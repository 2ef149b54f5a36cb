//! The cases that are no chats: vectors, pictures, sounds and transcripts.

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use harness::upstream::{Script, Step};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use recorder::projection::chat::Chat;
use serde_json::{Value, json};
use shared::event::{Event, Operation};

use crate::upstream::TEXT;

/// The size of the sound that the upstream makes, in bytes.
const SOUND_BYTES: usize = 300_000;

/// The operation of a case. `None` if the case is a chat.
pub(crate) fn operation(case: &str) -> Option<Operation> {
    Some(match case {
        "embeddings" => Operation::Embeddings,
        "images" => Operation::ImageGeneration,
        "image-edit" => Operation::ImageEdit,
        "speech" => Operation::Speech,
        "transcription" => Operation::Transcription,
        _ => return None,
    })
}

/// Script of the answer to a request below this path. `None` if the path is no call's.
pub(crate) fn answer(path: &str, body: &Value) -> Option<Script> {
    let answer = match path {
        "/v1/embeddings" => {
            let vector = if body["encoding_format"] == "base64" {
                json!(BASE64_STANDARD.encode([0_u8; 12]))
            } else {
                json!([0.0, 0.5, -1.0])
            };
            let count = body["input"].as_array().map_or(1, Vec::len);
            let data: Vec<_> =
                (0..count).map(|at| json!({"object": "embedding", "index": at, "embedding": vector})).collect();
            json!({"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 7, "total_tokens": 7}})
        }
        "/v1/models/embeddings:batchEmbedContents" => {
            let count = body["requests"].as_array().map_or(1, Vec::len);
            json!({"embeddings": vec![json!({"values": [0.0, 0.5, -1.0]}); count]})
        }
        "/v1/images/generations" | "/v1/images/edits" => {
            let count = if path.ends_with("edits") { 1 } else { 2 };
            json!({"created": 1, "data": vec![json!({"b64_json": "iVBORw0KGgo".repeat(9_000)}); count],
                   "usage": {"input_tokens": 5, "output_tokens": 272, "total_tokens": 277}})
        }
        "/v1/audio/speech" => {
            let piece = vec![0xff_u8; SOUND_BYTES / 100];
            return Some(Script {
                body: (0..100).map(|_| Step::Send(piece.clone().into())).collect(),
                ..Script::new(StatusCode::OK).header(CONTENT_TYPE, "audio/mpeg")
            });
        }
        "/v1/audio/transcriptions" => json!({"text": TEXT, "usage": {"type": "tokens", "input_tokens": 9,
            "input_token_details": {"text_tokens": 0, "audio_tokens": 9}, "output_tokens": 5, "total_tokens": 14}}),
        _ => return None,
    };
    Some(Script::json(StatusCode::OK, answer.to_string()))
}

/// Compares the observation of a client with the record of the call.
pub(crate) fn check(saw: &str, operation: Operation, chat: &Chat, events: &[Event]) -> anyhow::Result<()> {
    ensure!(chat.operation == operation && chat.conversation_id.is_none(), "the record says {:?}", chat.operation);
    let completed = events.iter().find_map(|event| match event {
        Event::MessageCompleted(completed) if completed.chat_id == chat.chat_id => Some(completed),
        _ => None,
    });
    let completed = completed.context("the record has no end of the call")?;
    let media = completed.media.as_ref().context("the record has no counts")?;
    let items = media.output_items.unwrap_or_default();
    let tokens = completed.usage.total_tokens.map(|tokens| format!(", {tokens} tokens")).unwrap_or_default();
    let recorded = match operation {
        Operation::Embeddings => format!("{items} vectors{tokens}"),
        Operation::ImageGeneration | Operation::ImageEdit => format!("{items} pictures{tokens}"),
        Operation::Speech => format!("{} bytes", media.output_bytes.unwrap_or_default()),
        _ => completed.message.as_ref().map_or_else(String::new, |message| message.text.clone()),
    };
    // LangChain says nothing of the usage.
    ensure!(saw == recorded || Some(saw) == recorded.strip_suffix(&tokens), "the record says {recorded:?}");
    if matches!(operation, Operation::ImageEdit | Operation::Transcription) {
        ensure!(media.input_bytes.is_some_and(|bytes| bytes > 400_000), "the record says {media:?}");
    }
    Ok(())
}
