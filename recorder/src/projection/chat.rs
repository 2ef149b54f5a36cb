//! The ledger: one row for each chat, and the join that combines the facts known about a chat.
//!
//! The state of a chat is a join. The status only rises (`started < orphaned < failed < completed`). The facts of
//! `ChatStarted` and the facts of the ending are each filled once. Fields that several events carry take the least
//! value: a gateway publishes equal values, and with unequal values the row still does not depend on the order of
//! arrival.

use std::cmp::Reverse;

use shared::event::{
    ChatError, ConversationOrigin, DialectName, FailureStage, Operation, RecordingMode, UpstreamAnswer,
};
use shared::id::{ChatId, ConversationId, KeyId, ProjectId, UserId};
use shared::usage::{Usage, UsageParts, UsageSource};
use time::OffsetDateTime;

use super::chat_cost::Pricing;
use super::pg_value::{PgJson, token_count};
use super::usage_stats::{ConversationTotals, UsageTotals};

/// A row of `chats`.
#[derive(Clone, Debug, PartialEq)]
pub struct Chat {
    /// The key of the row.
    pub chat_id: ChatId,
    /// The conversation of the chat; none for a call that belongs to no conversation.
    pub conversation_id: Option<ConversationId>,
    /// The kind of the call.
    pub operation: Operation,
    /// The owner of the chat.
    pub user_id: UserId,
    /// The API key with which the caller authenticated; none for a session token.
    pub key_id: Option<KeyId>,
    /// The project of the API key.
    pub project_id: Option<ProjectId>,
    /// The gateway instance that served the chat.
    pub gateway: String,
    /// The model requested by the client.
    pub model: String,
    /// The time of admission by the gateway.
    pub started_at: OffsetDateTime,
    /// The parts of the chat that its events kept. Of several modes, the strictest.
    pub recording: RecordingMode,
    /// The facts of `ChatStarted`; none until the event has been projected.
    pub request: Option<ChatRequest>,
    /// The facts of `ChatDeferred`; none for a chat whose answer came at once.
    pub deferral: Option<Deferral>,
    /// The ending; none while the chat has no `MessageCompleted` and no `ChatFailed`.
    pub ending: Option<ChatEnding>,
}

/// The facts in `ChatStarted` beyond the fields that every event of a chat carries.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    /// A hash of the request's content. Of two different requests, the lower digest wins.
    pub digest: i64,
    /// The way in which the gateway chose the conversation; none without a conversation.
    pub origin: Option<ConversationOrigin>,
    /// The client's own name for the thread.
    pub client_thread_id: Option<String>,
    /// The wire format of the request.
    pub dialect: DialectName,
    /// True when the client requested a stream.
    pub stream: bool,
    /// The temperature requested by the client.
    pub temperature: Option<f64>,
    /// The number of messages that the request added: rows of `messages` with a position of 0 or less.
    pub new_messages: u16,
    /// The caller's own user, tags and metadata, as one JSON object.
    pub caller_metadata: Option<PgJson>,
}

/// The facts in `ChatDeferred` beyond the fields that every event of a chat carries. Of several, the least.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deferral {
    /// The time at which the provider had accepted the chat.
    pub deferred_at: OffsetDateTime,
    /// The name of the upstream that makes the answer.
    pub upstream: String,
    /// The provider's id of the response.
    pub response_id: String,
}

/// The ending of a chat: outcome, timing, usage and the upstream that answered.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatEnding {
    /// A hash of the ending's content. Of two different endings with the same rank and time, the lower digest wins.
    pub digest: i64,
    /// Completed, or failed with the stage and the error.
    pub outcome: ChatOutcome,
    /// The time of the end.
    pub finished_at: OffsetDateTime,
    /// True when an answer was recorded, whole or partial.
    pub has_message: bool,
    /// The upstream that answered; none when no upstream did.
    pub upstream: Option<UpstreamAnswer>,
    /// Every attempt to reach an upstream, as a JSON array.
    pub attempts: PgJson,
    /// Milliseconds from admission to the first token.
    pub time_to_first_token_ms: Option<i64>,
    /// Milliseconds from admission to the end.
    pub duration_ms: i64,
    /// Tokens used by the chat.
    pub usage: TokenUsage,
    /// Irregularities in the answer, as a JSON array of note words.
    pub notes: PgJson,
    /// Sizes, counts and durations of a call that is no chat, as a JSON object.
    pub media: Option<PgJson>,
    /// The price list that was asked, and the cost. None if nothing is charged, or for a row of a recorder without prices.
    pub pricing: Option<Pricing>,
    /// The provider's own figure for the cost, in nano-dollars.
    pub provider_cost_nanodollars: Option<i64>,
}

/// The outcome of a chat that has ended.
#[derive(Clone, Debug, PartialEq)]
pub enum ChatOutcome {
    /// No answer, or only part of an answer. The stage `GatewayLost` makes the status `orphaned` instead of `failed`.
    Failed {
        /// The stage at which the chat failed.
        stage: FailureStage,
        /// The error that ended the chat.
        error: ChatError,
    },
    /// The chat ended with an answer.
    Completed,
}

/// Token counts in the range of a row's columns; see [`token_count`] for the upper bound.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenUsage {
    /// The origin of the counts: reported by the provider, estimated by the gateway, or unknown.
    pub source: UsageSource,
    /// Input tokens, including cached tokens.
    pub prompt_tokens: Option<i64>,
    /// Output tokens, as counted by the provider.
    pub completion_tokens: Option<i64>,
    /// The total reported by the provider; without a reported total, the sum of input and output is used.
    pub total_tokens: Option<i64>,
    /// The same tokens, split into disjoint parts.
    pub parts: TokenParts,
    /// The provider's own usage object, unchanged.
    pub raw: Option<PgJson>,
}

/// Disjoint parts of the token counts, as in a row; see [`UsageParts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of UsageParts")]
pub struct TokenParts {
    pub uncached_input: i64,
    pub cache_read: i64,
    pub cache_write: i64,
    pub output: i64,
    pub reasoning: i64,
}

/// The parts of a row that a join replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplacedHalves {
    /// True when the facts of `ChatDeferred` were replaced.
    pub deferral: bool,
    /// True when the facts of `ChatStarted` were replaced.
    pub request: bool,
    /// True when the ending was replaced.
    pub ending: bool,
}

// === impl Chat ===

impl Chat {
    /// Joins the facts of `other`, a row of the same chat, and returns the halves that were replaced. A replaced half
    /// also replaces the half's message. The cost of an ending that stays is not changed, although a joined row may have an earlier
    /// start or another model: the caller prices the row again.
    pub fn join(&mut self, other: Self) -> ReplacedHalves {
        self.conversation_id = least_known(self.conversation_id, other.conversation_id);
        self.key_id = least_known(self.key_id, other.key_id);
        self.project_id = least_known(self.project_id, other.project_id);
        keep_least(&mut self.operation, other.operation);
        keep_least(&mut self.user_id, other.user_id);
        keep_least(&mut self.gateway, other.gateway);
        keep_least(&mut self.model, other.model);
        keep_least(&mut self.started_at, other.started_at);
        self.recording = self.recording.stricter(other.recording);
        let deferral = least_known(self.deferral.clone(), other.deferral);
        let is_deferral_new = deferral != self.deferral;
        self.deferral = deferral;
        let request = other.request.as_ref().map(ChatRequest::rank) > self.request.as_ref().map(ChatRequest::rank);
        let ending = other.ending.as_ref().map(ChatEnding::rank) > self.ending.as_ref().map(ChatEnding::rank);
        if request {
            self.request = other.request;
        }
        if ending {
            self.ending = other.ending;
        }
        ReplacedHalves { deferral: is_deferral_new, request, ending }
    }

    /// The word in the `status` column.
    pub fn status(&self) -> &'static str {
        match &self.ending {
            None => "started",
            Some(ChatEnding { outcome: ChatOutcome::Completed, .. }) => "completed",
            Some(ChatEnding { outcome: ChatOutcome::Failed { stage: FailureStage::GatewayLost, .. }, .. }) => {
                "orphaned"
            }
            Some(ChatEnding { outcome: ChatOutcome::Failed { .. }, .. }) => "failed",
        }
    }

    /// The contribution of the chat to the totals of the user's day and quarter of an hour.
    pub fn usage_totals(&self) -> UsageTotals {
        let mut counts = UsageTotals { messages_created: self.messages(), ..UsageTotals::default() };
        if let Some(ending) = &self.ending {
            counts.api_calls = 1;
            match ending.outcome {
                ChatOutcome::Completed => counts.successful_calls = 1,
                ChatOutcome::Failed { .. } => counts.failed_calls = 1,
            }
            let usage = &ending.usage;
            let (prompt, completion) = (usage.prompt_tokens.unwrap_or(0), usage.completion_tokens.unwrap_or(0));
            match usage.source {
                UsageSource::Reported => {
                    counts.prompt_tokens = prompt;
                    counts.completion_tokens = completion;
                    counts.total_tokens = usage.total();
                }
                UsageSource::Estimated => {
                    counts.estimated_prompt_tokens = prompt;
                    counts.estimated_completion_tokens = completion;
                    counts.estimated_total_tokens = usage.total();
                }
                UsageSource::Unknown | UsageSource::Other(_) => {}
            }
            match ending.pricing.as_ref().map(|pricing| &pricing.cost) {
                Some(Some(cost)) if usage.source == UsageSource::Estimated => {
                    counts.estimated_cost_nanodollars = cost.nanodollars;
                }
                Some(Some(cost)) => counts.cost_nanodollars = cost.nanodollars,
                Some(None) => counts.unpriced_calls = 1,
                None => {}
            }
            counts.provider_cost_nanodollars = ending.provider_cost_nanodollars.unwrap_or(0);
        }
        counts
    }

    /// The contribution of the chat to the totals of the conversation.
    pub fn conversation_totals(&self) -> ConversationTotals {
        let counts = self.usage_totals();
        ConversationTotals {
            messages: counts.messages_created,
            total_tokens: counts.total_tokens,
            estimated_total_tokens: counts.estimated_total_tokens,
        }
    }

    fn messages(&self) -> i64 {
        let new_messages = self.request.as_ref().map_or(0, |request| request.new_messages);
        let assistant_message = self.ending.as_ref().is_some_and(|ending| ending.has_message);
        i64::from(new_messages) + i64::from(assistant_message)
    }
}

fn least_known<T: Ord>(mine: Option<T>, theirs: Option<T>) -> Option<T> {
    match (mine, theirs) {
        (Some(mine), Some(theirs)) => Some(mine.min(theirs)),
        (mine, theirs) => mine.or(theirs),
    }
}

fn keep_least<T: Ord>(here: &mut T, other: T) {
    if other < *here {
        *here = other;
    }
}

// === impl ChatRequest ===

impl ChatRequest {
    fn rank(&self) -> impl Ord + use<> {
        Reverse(self.digest)
    }
}

// === impl ChatEnding ===

impl ChatEnding {
    fn rank(&self) -> impl Ord + use<> {
        (self.outcome.rank(), Reverse(self.finished_at), Reverse(self.digest))
    }
}

// === impl ChatOutcome ===

impl ChatOutcome {
    fn rank(&self) -> u8 {
        match self {
            Self::Failed { stage: FailureStage::GatewayLost, .. } => 1,
            Self::Failed { .. } => 2,
            Self::Completed => 3,
        }
    }
}

// === impl TokenUsage ===

impl TokenUsage {
    pub(super) fn from_usage(usage: &Usage) -> Self {
        Self {
            source: usage.source,
            prompt_tokens: usage.prompt_tokens.map(token_count),
            completion_tokens: usage.completion_tokens.map(token_count),
            total_tokens: usage.total_tokens.map(token_count),
            parts: TokenParts::from_parts(usage.parts),
            raw: usage.raw.as_ref().map(|raw| PgJson::new(raw.get())),
        }
    }

    fn total(&self) -> i64 {
        let sum = self.prompt_tokens.unwrap_or(0) + self.completion_tokens.unwrap_or(0);
        self.total_tokens.unwrap_or(sum)
    }
}

// === impl TokenParts ===

impl TokenParts {
    fn from_parts(parts: UsageParts) -> Self {
        Self {
            uncached_input: token_count(parts.uncached_input),
            cache_read: token_count(parts.cache_read),
            cache_write: token_count(parts.cache_write),
            output: token_count(parts.output),
            reasoning: token_count(parts.reasoning),
        }
    }
}
