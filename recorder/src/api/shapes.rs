//! The shapes of answers. Names are camelCase; what is not known is null, never left out.

use serde::{Deserialize, Serialize};
use shared::token::Role;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::projection::usage_stats::Counts;
use crate::reads;
use crate::store::invite_codes;
use crate::store::users;

/// A list's page.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct List<T> {
    /// What is on it.
    pub(super) data: Vec<T>,
    /// Where the next page begins; null: there is none.
    pub(super) next_cursor: Option<String>,
}

/// What a user may do beyond their own record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum UserRole {
    /// Reads everyone's.
    Admin,
}

/// A user.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct User {
    /// The id, as in events and tokens.
    pub(super) id: String,
    /// The login name; null for a user of an external identity provider, of whom only the id is known.
    pub(super) name: Option<String>,
    /// What they may do beyond their own record.
    pub(super) role: Option<UserRole>,
    /// When the account was made.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(super) created_at: Option<OffsetDateTime>,
    /// Since when it is disabled.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(super) disabled_at: Option<OffsetDateTime>,
    /// The id of who invited them.
    pub(super) invited_by: Option<String>,
}

/// Counts of calls, tokens, messages and conversations. Reported and estimated tokens are never mixed.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UsageCounts {
    /// Chats that have ended.
    api_calls: i64,
    /// Chats that completed.
    successful_calls: i64,
    /// Chats that failed, or whose gateway was lost.
    failed_calls: i64,
    /// Input tokens that providers reported.
    prompt_tokens: i64,
    /// Output tokens that providers reported.
    completion_tokens: i64,
    /// All tokens that providers reported.
    total_tokens: i64,
    /// Input tokens of chats without a report, estimated.
    estimated_prompt_tokens: i64,
    /// Output tokens of chats without a report, estimated.
    estimated_completion_tokens: i64,
    /// All tokens of chats without a report, estimated.
    estimated_tokens: i64,
    /// Messages, of both sides.
    messages_created: i64,
    /// Conversations opened.
    conversations_created: i64,
}

/// What a user used on one UTC day.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DayOfUsage {
    /// The day.
    #[schema(format = Date)]
    pub(super) date: String,
    /// The sums.
    #[serde(flatten)]
    pub(super) counts: UsageCounts,
}

/// A conversation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Conversation {
    /// The id.
    pub(super) id: Uuid,
    /// The title: as given, else made from the first message.
    title: Option<String>,
    /// The model of the latest chat.
    model: Option<String>,
    /// The temperature of the latest chat.
    temperature: Option<f64>,
    /// When it was opened.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When the last message came.
    #[serde(with = "time::serde::rfc3339")]
    last_message_at: OffsetDateTime,
    /// How many messages it has.
    message_count: i64,
    /// Tokens that providers reported.
    total_tokens: i64,
    /// Tokens of chats without a report.
    estimated_tokens: i64,
    /// Whether it is put away.
    archived: bool,
}

/// A message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Message {
    /// The id.
    id: Uuid,
    /// The chat it belongs to.
    chat_id: Uuid,
    /// user, tool (or whatever role the client gave it), or assistant.
    role: String,
    /// complete; partial: the answer broke off; truncated: it was longer than what is recorded.
    status: String,
    /// The text.
    content: String,
    /// Reasoning, where the model showed any.
    reasoning: Option<String>,
    /// The model's refusal, where it came apart from the text.
    refusal: Option<String>,
    /// Calls of tools: an array of id, name, arguments.
    #[schema(value_type = Option<Vec<Object>>)]
    tool_calls: Option<serde_json::Value>,
    /// Why the answer ended, in the provider's word.
    finish_reason: Option<String>,
    /// The model that was asked for.
    model: String,
    /// Output tokens of an answer.
    tokens: Option<i64>,
    /// When it was asked, or when the answer ended.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

/// Messages of a conversation, and the chats they belong to.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Messages {
    /// The messages.
    pub(super) data: Vec<Message>,
    /// The chats of these messages: where their state and errors are.
    pub(super) chats: Vec<Chat>,
    /// Where the next page begins; null: there is none.
    pub(super) next_cursor: Option<String>,
}

/// A chat: a request and its answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Chat {
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
pub(super) struct CallerMetadata {
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
pub(super) struct Upstream {
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
pub(super) struct Attempt {
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
pub(super) struct ChatUsage {
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
pub(super) struct ChatError {
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

/// An invite, without its code.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Invite {
    /// The id.
    id: Uuid,
    /// What it is for.
    note: Option<String>,
    /// The role of accounts made with it.
    role: Option<UserRole>,
    /// The id of who made it; null: an operator.
    created_by: Option<String>,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// Until when it is good.
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
    /// How many accounts may be made with it.
    max_uses: i32,
    /// How many have been.
    uses: i32,
    /// Since when it is good for nothing.
    #[serde(with = "time::serde::rfc3339::option")]
    revoked_at: Option<OffsetDateTime>,
}

impl From<Role> for UserRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Admin => Self::Admin,
        }
    }
}

impl From<users::User> for User {
    fn from(user: users::User) -> Self {
        Self {
            id: user.user_id.as_str().to_owned(),
            name: Some(user.name),
            role: user.role.map(UserRole::from),
            created_at: Some(user.created_at),
            disabled_at: user.disabled_at,
            invited_by: user.invited_by,
        }
    }
}

impl User {
    /// Someone of whom only the id is known.
    pub(super) fn unknown(id: String) -> Self {
        Self { id, name: None, role: None, created_at: None, disabled_at: None, invited_by: None }
    }
}

impl From<Counts> for UsageCounts {
    fn from(counts: Counts) -> Self {
        Self {
            api_calls: counts.api_calls,
            successful_calls: counts.successful_calls,
            failed_calls: counts.failed_calls,
            prompt_tokens: counts.prompt_tokens,
            completion_tokens: counts.completion_tokens,
            total_tokens: counts.total_tokens,
            estimated_prompt_tokens: counts.estimated_prompt_tokens,
            estimated_completion_tokens: counts.estimated_completion_tokens,
            estimated_tokens: counts.estimated_total_tokens,
            messages_created: counts.messages_created,
            conversations_created: counts.conversations_created,
        }
    }
}

impl From<reads::conversations::Conversation> for Conversation {
    fn from(row: reads::conversations::Conversation) -> Self {
        Self {
            id: row.conversation_id,
            title: row.title,
            model: row.model,
            temperature: row.temperature,
            created_at: row.created_at,
            last_message_at: row.last_message_at,
            message_count: row.message_count,
            total_tokens: row.total_tokens,
            estimated_tokens: row.estimated_total_tokens,
            archived: row.archived,
        }
    }
}

impl From<reads::messages::Message> for Message {
    fn from(row: reads::messages::Message) -> Self {
        Self {
            id: row.message_id,
            chat_id: row.chat_id,
            role: row.role,
            status: row.status,
            content: row.content,
            reasoning: row.reasoning,
            refusal: row.refusal,
            tool_calls: row.tool_calls.filter(serde_json::Value::is_array),
            finish_reason: row.finish_reason,
            model: row.model,
            tokens: row.tokens,
            created_at: row.created_at,
        }
    }
}

impl From<reads::chats::Chat> for Chat {
    fn from(row: reads::chats::Chat) -> Self {
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
        // What an event of another time may hold there, and this does not know, is not shown rather than in the way.
        let attempts = row.attempts.and_then(|attempts| serde_json::from_value(attempts).ok()).unwrap_or_default();
        let caller_metadata = row.caller_metadata.and_then(|said| serde_json::from_value(said).ok());
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

impl From<invite_codes::Invite> for Invite {
    fn from(invite: invite_codes::Invite) -> Self {
        Self {
            id: invite.invite_id,
            note: invite.note,
            role: invite.role.map(UserRole::from),
            created_by: invite.created_by,
            created_at: invite.created_at,
            expires_at: invite.expires_at,
            max_uses: invite.max_uses,
            uses: invite.uses,
            revoked_at: invite.revoked_at,
        }
    }
}
