//! The JSON shape of chats.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::reads;

/// A chat: a request and its answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Chat {
    /// The id.
    id: Uuid,
    /// The conversation it belongs to.
    conversation_id: Uuid,
    /// Whose it is.
    user_id: String,
    /// The gateway that served it.
    gateway: String,
    /// The model that was asked for.
    model: String,
    /// started, completed, failed, or orphaned: its gateway was lost.
    status: String,
    /// Whether a stream was asked for.
    stream: Option<bool>,
    /// The wire format that the client speaks.
    dialect: Option<String>,
    /// The temperature that was asked for.
    temperature: Option<f64>,
    /// What the caller said about it.
    caller_metadata: Option<CallerMetadata>,
    /// When it was admitted.
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    finished_at: Option<OffsetDateTime>,
    /// From admission to the end.
    duration_ms: Option<i64>,
    /// From admission to the first token.
    time_to_first_token_ms: Option<i64>,
    /// Who answered.
    upstream: Option<Upstream>,
    /// Every try at an upstream.
    attempts: Vec<Attempt>,
    /// What it cost.
    usage: Option<ChatUsage>,
    /// How it failed.
    error: Option<ChatError>,
    /// What was odd about the answer, one word each.
    notes: Vec<String>,
}

/// What a caller says about a chat.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct CallerMetadata {
    /// The caller's own user: the request's `user`.
    #[serde(default)]
    user: Option<String>,
    /// The request's `metadata`: an object, or its text where it is one that the tables cannot hold.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    metadata: Option<serde_json::Value>,
    /// The tags in `x-stenograph-tags`.
    #[serde(default)]
    tags: Vec<String>,
}

/// Who answered.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Upstream {
    /// The upstream, by its name in this deployment.
    name: String,
    /// The model, in the upstream's own word.
    model: Option<String>,
    /// The provider's id of the response.
    response_id: Option<String>,
}

/// One try at one upstream.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all(serialize = "camelCase"))]
pub(crate) struct Attempt {
    /// The upstream's name.
    #[serde(default)]
    upstream: String,
    /// When it began.
    #[serde(default)]
    #[schema(format = DateTime)]
    started_at: String,
    /// Until the response head came, or the try failed.
    #[serde(default)]
    duration_ms: i64,
    /// The HTTP status, where one came.
    #[serde(default)]
    status: Option<i32>,
    /// What went wrong, in one word.
    #[serde(default)]
    error: Option<String>,
}

/// What a chat cost, in tokens.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChatUsage {
    /// reported, estimated or unknown.
    source: String,
    /// Input tokens, cached ones included.
    prompt_tokens: Option<i64>,
    /// Output tokens.
    completion_tokens: Option<i64>,
    /// All tokens.
    total_tokens: Option<i64>,
    /// Input that was read anew.
    uncached_input_tokens: Option<i64>,
    /// Input read from the provider's cache.
    cache_read_tokens: Option<i64>,
    /// Input written to it.
    cache_write_tokens: Option<i64>,
    /// Output without reasoning.
    output_tokens: Option<i64>,
    /// Reasoning output.
    reasoning_tokens: Option<i64>,
}

/// How a chat failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatError {
    /// Where.
    stage: String,
    /// The HTTP status, where one came.
    status: Option<i32>,
    /// The provider's error type.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// The provider's error code.
    code: Option<String>,
    /// In words.
    message: String,
}

impl From<reads::chats::ChatRecord> for Chat {
    fn from(row: reads::chats::ChatRecord) -> Self {
        let upstream = row.upstream_name.map(|name| Upstream {
            name,
            model: row.upstream_model,
            response_id: row.upstream_response_id,
        });
        let usage = row.usage_source.map(|source| ChatUsage {
            source,
            prompt_tokens: row.prompt_tokens,
            completion_tokens: row.completion_tokens,
            total_tokens: row.total_tokens,
            uncached_input_tokens: row.uncached_input_tokens,
            cache_read_tokens: row.cache_read_tokens,
            cache_write_tokens: row.cache_write_tokens,
            output_tokens: row.output_tokens,
            reasoning_tokens: row.reasoning_tokens,
        });
        let error = row.stage.map(|stage| ChatError {
            stage,
            status: row.error_status,
            kind: row.error_type,
            code: row.error_code,
            message: row.error_message.unwrap_or_default(),
        });
        // These columns hold JSON from events of any version. A value in an unknown form is left out, so that the rest
        // of the chat can be shown.
        let attempts = row.attempts.and_then(|attempts| serde_json::from_value(attempts).ok()).unwrap_or_default();
        let caller_metadata = row.caller_metadata.and_then(|metadata| serde_json::from_value(metadata).ok());
        let notes = row.notes.and_then(|notes| serde_json::from_value(notes).ok()).unwrap_or_default();
        Self {
            id: row.chat_id,
            conversation_id: row.conversation_id,
            user_id: row.user_id,
            gateway: row.gateway,
            model: row.model,
            status: row.status,
            stream: row.stream,
            dialect: row.dialect,
            temperature: row.temperature,
            caller_metadata,
            started_at: row.started_at,
            finished_at: row.finished_at,
            duration_ms: row.duration_ms,
            time_to_first_token_ms: row.time_to_first_token_ms,
            upstream,
            attempts,
            usage,
            error,
            notes,
        }
    }
}
