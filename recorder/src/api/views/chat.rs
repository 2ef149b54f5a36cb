//! The JSON shape of chats.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::reads;

/// A chat, or another call to a model: a request and its answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Chat {
    /// The id.
    id: Uuid,
    /// The kind of the call: chat, text_completion, embeddings and others. Clients must accept words that they do not know.
    operation: String,
    /// The conversation; null for a call that belongs to no conversation.
    conversation_id: Option<Uuid>,
    /// The user of the chat.
    user_id: String,
    /// The API key of the caller; null for a session token.
    key_id: Option<Uuid>,
    /// The project of the API key.
    project_id: Option<Uuid>,
    /// The gateway instance that served the chat.
    gateway: String,
    /// The model that the client asked for.
    model: String,
    /// started, completed, failed, or orphaned (the gateway was lost).
    status: String,
    /// The parts of the chat that were recorded: full, metadata (no texts) or none (no contents at all). Clients must accept words that
    /// they do not know.
    recording: String,
    /// True if the client asked for a stream.
    stream: Option<bool>,
    /// The wire format of the client.
    dialect: Option<String>,
    /// The sampling temperature that the client asked for.
    temperature: Option<f64>,
    /// Metadata that the caller attached to the chat.
    caller_metadata: Option<CallerMetadata>,
    /// The time of admission.
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    /// The time of the end.
    #[serde(with = "time::serde::rfc3339::option")]
    finished_at: Option<OffsetDateTime>,
    /// Milliseconds from admission to the end.
    duration_ms: Option<i64>,
    /// Milliseconds from admission to the first token.
    time_to_first_token_ms: Option<i64>,
    /// The upstream that answered.
    upstream: Option<Upstream>,
    /// Every try at an upstream.
    attempts: Vec<Attempt>,
    /// The tokens of the chat.
    usage: Option<ChatUsage>,
    /// The cost according to the price list; null if nothing was charged, or if no price is known.
    cost: Option<ChatCost>,
    /// True if the chat may have cost something, and no price is known.
    unpriced: bool,
    /// The provider's own figure for the cost, in nano-dollars (10⁻⁹ US dollars). Most providers send none.
    provider_cost_nanodollars: Option<i64>,
    /// The error, if the chat failed.
    error: Option<ChatError>,
    /// Unusual properties of the request or the answer, one word each.
    notes: Vec<String>,
    /// Sizes, counts and durations of a call that is no chat.
    media: Option<Media>,
}

/// A chat, with what lists of chats leave out.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WholeChat {
    #[serde(flatten)]
    pub(crate) chat: Chat,
    /// The provider's own usage object, as the provider sent it; a text if the tables cannot hold the object.
    #[schema(value_type = Option<Object>)]
    pub(crate) raw_usage: Option<serde_json::Value>,
}

/// Sizes, counts and durations of a call that is no chat; null where unknown.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all(serialize = "camelCase"))]
pub(crate) struct Media {
    /// The size of the request body, in bytes.
    #[serde(default)]
    input_bytes: Option<u64>,
    /// The size of the response body, in bytes.
    #[serde(default)]
    output_bytes: Option<u64>,
    /// The number of inputs: texts to embed, documents to rank, images to edit.
    #[serde(default)]
    input_items: Option<u64>,
    /// The number of outputs: vectors, ranked documents, images.
    #[serde(default)]
    output_items: Option<u64>,
    /// The length of the audio in the request, in seconds.
    #[serde(default)]
    input_seconds: Option<f64>,
    /// The length of the audio in the response, in seconds.
    #[serde(default)]
    output_seconds: Option<f64>,
}

/// Metadata that a caller attached to a chat.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct CallerMetadata {
    /// The caller's own user: `user` of the request.
    #[serde(default)]
    user: Option<String>,
    /// `metadata` of the request: an object, or a text if the tables cannot hold the object.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    metadata: Option<serde_json::Value>,
    /// The tags of the header `x-stenograph-tags`.
    #[serde(default)]
    tags: Vec<String>,
}

/// The upstream that answered.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Upstream {
    /// The upstream's name in this deployment.
    name: String,
    /// The model, as the upstream named it.
    model: Option<String>,
    /// The provider's id of the response.
    response_id: Option<String>,
}

/// A try at an upstream.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all(serialize = "camelCase"))]
pub(crate) struct Attempt {
    /// The upstream's name.
    #[serde(default)]
    upstream: String,
    /// The time at which the try began.
    #[serde(default)]
    #[schema(format = DateTime)]
    started_at: String,
    /// Milliseconds until the response head came, or the try failed.
    #[serde(default)]
    duration_ms: i64,
    /// The HTTP status, if a response came.
    #[serde(default)]
    status: Option<i32>,
    /// The error in one word, if the try failed.
    #[serde(default)]
    error: Option<String>,
}

/// The tokens of a chat.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChatUsage {
    /// reported, estimated or unknown.
    source: String,
    /// Input tokens, cached tokens included.
    prompt_tokens: Option<i64>,
    /// Output tokens.
    completion_tokens: Option<i64>,
    /// All tokens.
    total_tokens: Option<i64>,
    /// Input tokens that were neither read from nor written to a cache.
    uncached_input_tokens: Option<i64>,
    /// Input tokens read from the provider's cache.
    cache_read_tokens: Option<i64>,
    /// Input tokens written to the provider's cache.
    cache_write_tokens: Option<i64>,
    /// Output tokens without reasoning.
    output_tokens: Option<i64>,
    /// Output tokens of reasoning.
    reasoning_tokens: Option<i64>,
}

/// The cost of a chat according to the price list in force when the chat started.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChatCost {
    /// The whole cost, in nano-dollars (10⁻⁹ US dollars): the sum of the parts.
    nanodollars: i64,
    /// True if the tokens were estimated, and so the cost is.
    estimated: bool,
    /// The parts of the cost.
    parts: CostParts,
    /// The price list: the first 16 digits of its SHA-256.
    price_version: String,
    /// The provider and the model whose prices applied, such as `openai/gpt-5`.
    priced_as: String,
}

/// The parts of a cost, in nano-dollars.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, rename_all(serialize = "camelCase"))]
pub(crate) struct CostParts {
    /// Input that was neither read from nor written to a cache, audio excluded.
    input: i64,
    /// Input read from the provider's cache.
    cache_read: i64,
    /// Input written to the provider's cache for five minutes, or for a time that the provider does not name.
    cache_write_5m: i64,
    /// Input written to the provider's cache for an hour.
    cache_write_1h: i64,
    /// Output without reasoning, audio excluded.
    output: i64,
    /// Reasoning.
    reasoning: i64,
    /// Spoken input and output.
    audio: i64,
    /// Searches of the provider's own tools, pages, and charges for each request.
    other: i64,
}

/// The error of a chat.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatError {
    /// The point of failure. Clients must accept words that they do not know.
    stage: String,
    /// The HTTP status, if a response came.
    status: Option<i32>,
    /// The provider's error type.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// The provider's error code.
    code: Option<String>,
    /// The error in words; empty if the words were not recorded.
    message: String,
}

impl From<reads::chats::ChatRecord> for Chat {
    fn from(row: reads::chats::ChatRecord) -> Self {
        let unpriced = row.price_version.is_some() && row.cost_nanodollars.is_none();
        let estimated = row.usage_source.as_deref() == Some("estimated");
        let cost = row.cost_nanodollars.map(|nanodollars| ChatCost {
            nanodollars,
            estimated,
            parts: row.cost_parts.and_then(|parts| serde_json::from_value(parts).ok()).unwrap_or_default(),
            price_version: row.price_version.unwrap_or_default(),
            priced_as: row.priced_as.unwrap_or_default(),
        });
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
        let media = row.media.and_then(|media| serde_json::from_value(media).ok());
        let notes = row.notes.and_then(|notes| serde_json::from_value(notes).ok()).unwrap_or_default();
        Self {
            id: row.chat_id,
            operation: row.operation,
            conversation_id: row.conversation_id,
            user_id: row.user_id,
            key_id: row.key_id,
            project_id: row.project_id,
            gateway: row.gateway,
            model: row.model,
            status: row.status,
            recording: row.recording,
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
            cost,
            unpriced,
            provider_cost_nanodollars: row.provider_cost_nanodollars,
            error,
            notes,
            media,
        }
    }
}
