//! A row of `chats` as the driver reads it, and the conversion to the projection's row.

use shared::event::{ChatError, UpstreamAnswer};
use shared::id::{ChatId, ConversationId, KeyId, ProjectId};
use time::OffsetDateTime;
use uuid::Uuid;

use super::read::{UnreadableColumn, sql_enum, user_id, utc};
use crate::projection::chat::{Chat, ChatEnding, ChatOutcome, ChatRequest, Deferral, TokenParts, TokenUsage};
use crate::projection::chat_cost::{CostOfChat, Pricing};
use crate::projection::pg_value::PgJson;

/// A row as read by the driver. The column `status` is left out, because the other columns determine the status.
pub(super) struct ChatRow {
    pub(super) chat_id: Uuid,
    pub(super) conversation_id: Option<Uuid>,
    pub(super) user_id: String,
    pub(super) gateway: String,
    pub(super) model: String,
    pub(super) started_at: OffsetDateTime,
    pub(super) request_digest: Option<i64>,
    pub(super) conversation_origin: Option<String>,
    pub(super) client_thread_id: Option<String>,
    pub(super) dialect: Option<String>,
    pub(super) stream: Option<bool>,
    pub(super) temperature: Option<f64>,
    pub(super) has_user_message: bool,
    pub(super) ending_digest: Option<i64>,
    pub(super) finished_at: Option<OffsetDateTime>,
    pub(super) has_assistant_message: bool,
    pub(super) stage: Option<String>,
    pub(super) error_status: Option<i32>,
    pub(super) error_type: Option<String>,
    pub(super) error_code: Option<String>,
    pub(super) error_message: Option<String>,
    pub(super) upstream_name: Option<String>,
    pub(super) upstream_model: Option<String>,
    pub(super) upstream_response_id: Option<String>,
    pub(super) attempts: Option<String>,
    pub(super) time_to_first_token_ms: Option<i64>,
    pub(super) duration_ms: Option<i64>,
    pub(super) usage_source: Option<String>,
    pub(super) prompt_tokens: Option<i64>,
    pub(super) completion_tokens: Option<i64>,
    pub(super) total_tokens: Option<i64>,
    pub(super) uncached_input_tokens: Option<i64>,
    pub(super) cache_read_tokens: Option<i64>,
    pub(super) cache_write_tokens: Option<i64>,
    pub(super) output_tokens: Option<i64>,
    pub(super) reasoning_tokens: Option<i64>,
    pub(super) usage_raw: Option<String>,
    pub(super) notes: Option<String>,
    pub(super) caller_metadata: Option<String>,
    pub(super) new_messages: Option<i16>,
    pub(super) operation: String,
    pub(super) media: Option<String>,
    pub(super) key_id: Option<Uuid>,
    pub(super) project_id: Option<Uuid>,
    pub(super) cost_nanodollars: Option<i64>,
    pub(super) cost_parts: Option<String>,
    pub(super) price_version: Option<String>,
    pub(super) priced_as: Option<String>,
    pub(super) provider_cost_nanodollars: Option<i64>,
    pub(super) recording: String,
    pub(super) deferred_at: Option<OffsetDateTime>,
    pub(super) deferred_upstream: Option<String>,
    pub(super) deferred_response_id: Option<String>,
}

impl ChatRow {
    /// Converts the row. Fails on a value that no recorder wrote.
    pub(super) fn read(mut self) -> Result<Chat, UnreadableColumn> {
        Ok(Chat {
            chat_id: ChatId(self.chat_id),
            conversation_id: self.conversation_id.map(ConversationId),
            operation: sql_enum("operation", Some(&self.operation))?,
            user_id: user_id(std::mem::take(&mut self.user_id))?,
            key_id: self.key_id.map(KeyId),
            project_id: self.project_id.map(ProjectId),
            gateway: std::mem::take(&mut self.gateway),
            model: std::mem::take(&mut self.model),
            started_at: utc(self.started_at),
            recording: sql_enum("recording", Some(&self.recording))?,
            request: self.request()?,
            deferral: self.deferral(),
            ending: self.ending()?,
        })
    }

    fn request(&mut self) -> Result<Option<ChatRequest>, UnreadableColumn> {
        let Some(digest) = self.request_digest else { return Ok(None) };
        Ok(Some(ChatRequest {
            digest,
            origin: match self.conversation_origin.as_deref() {
                None => None,
                origin => Some(sql_enum("conversation_origin", origin)?),
            },
            client_thread_id: self.client_thread_id.take(),
            dialect: sql_enum("dialect", self.dialect.as_deref())?,
            stream: self.stream.unwrap_or_default(),
            temperature: self.temperature,
            new_messages: match self.new_messages {
                Some(number) => u16::try_from(number).unwrap_or_default(),
                None => u16::from(self.has_user_message),
            },
            caller_metadata: self.caller_metadata.take().as_deref().map(PgJson::new),
        }))
    }

    fn deferral(&mut self) -> Option<Deferral> {
        Some(Deferral {
            deferred_at: utc(self.deferred_at?),
            upstream: self.deferred_upstream.take()?,
            response_id: self.deferred_response_id.take()?,
        })
    }

    fn ending(&mut self) -> Result<Option<ChatEnding>, UnreadableColumn> {
        let (Some(digest), Some(finished_at)) = (self.ending_digest, self.finished_at) else { return Ok(None) };
        let outcome = match self.stage.as_deref() {
            None => ChatOutcome::Completed,
            stage => ChatOutcome::Failed {
                stage: sql_enum("stage", stage)?,
                error: ChatError {
                    status: self.error_status.and_then(|status| u16::try_from(status).ok()),
                    kind: self.error_type.take(),
                    code: self.error_code.take(),
                    message: self.error_message.take().unwrap_or_default(),
                },
            },
        };
        let upstream = self.upstream_name.take().map(|name| UpstreamAnswer {
            name,
            model: self.upstream_model.take(),
            response_id: self.upstream_response_id.take(),
        });
        let parts = TokenParts {
            uncached_input: self.uncached_input_tokens.unwrap_or_default(),
            cache_read: self.cache_read_tokens.unwrap_or_default(),
            cache_write: self.cache_write_tokens.unwrap_or_default(),
            output: self.output_tokens.unwrap_or_default(),
            reasoning: self.reasoning_tokens.unwrap_or_default(),
        };
        let usage = TokenUsage {
            source: sql_enum("usage_source", self.usage_source.as_deref())?,
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            total_tokens: self.total_tokens,
            parts,
            raw: self.usage_raw.take().as_deref().map(PgJson::new),
        };
        let cost = self.cost_nanodollars.map(|nanodollars| CostOfChat {
            nanodollars,
            parts: PgJson::new(self.cost_parts.as_deref().unwrap_or("{}")),
            priced_as: self.priced_as.take().unwrap_or_default(),
        });
        Ok(Some(ChatEnding {
            digest,
            outcome,
            finished_at: utc(finished_at),
            has_message: self.has_assistant_message,
            upstream,
            attempts: PgJson::new(self.attempts.as_deref().unwrap_or("[]")),
            time_to_first_token_ms: self.time_to_first_token_ms,
            duration_ms: self.duration_ms.unwrap_or_default(),
            usage,
            notes: PgJson::new(self.notes.as_deref().unwrap_or("[]")),
            media: self.media.take().as_deref().map(PgJson::new),
            pricing: self.price_version.take().map(|price_version| Pricing { price_version, cost }),
            provider_cost_nanodollars: self.provider_cost_nanodollars,
        }))
    }
}
