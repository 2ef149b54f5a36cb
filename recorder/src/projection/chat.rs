//! The ledger: one row a chat, and how what is known of a chat grows.
//!
//! A chat's state is a join. Its status only rises (`started < orphaned < failed < completed`), what `ChatStarted` says and
//! what the ending says are each filled once, and fields that several events carry take the least value; they are all equal
//! in what a gateway publishes, and where they are not, the row still does not depend on the order of arrival.

use std::cmp::Reverse;

use shared::event::{ChatError, ConversationOrigin, DialectName, FailureStage, UpstreamAnswer};
use shared::id::{ChatId, ConversationId, UserId};
use shared::usage::{Usage, UsageParts, UsageSource};
use time::OffsetDateTime;

use super::pg_value::{PgJson, token_count};
use super::usage_stats::{ConversationTotals, UsageTotals};

/// A row of `chats`.
#[derive(Clone, Debug, PartialEq)]
pub struct Chat {
    /// The chat.
    pub chat_id: ChatId,
    /// Its conversation.
    pub conversation_id: ConversationId,
    /// Whose it is.
    pub user_id: UserId,
    /// The gateway instance that served it.
    pub gateway: String,
    /// The model that the client asked for.
    pub model: String,
    /// When it was admitted.
    pub started_at: OffsetDateTime,
    /// What `ChatStarted` said, once it was seen.
    pub request: Option<ChatRequest>,
    /// How it ended, once it did.
    pub ending: Option<ChatEnding>,
}

/// What `ChatStarted` says beyond what every event of a chat says.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    /// Decides between two different ones.
    pub digest: i64,
    /// How the chat came by its conversation.
    pub origin: ConversationOrigin,
    /// The client's own name for the thread.
    pub client_thread_id: Option<String>,
    /// The wire format.
    pub dialect: DialectName,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// The temperature that was asked for.
    pub temperature: Option<f64>,
    /// Whether it added a message to the conversation.
    pub has_message: bool,
    /// What the caller said about it.
    pub caller_metadata: Option<PgJson>,
}

/// How a chat ended.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatEnding {
    /// Decides between two different ones of the same rank and time.
    pub digest: i64,
    /// Well, or not.
    pub outcome: ChatOutcome,
    /// When.
    pub finished_at: OffsetDateTime,
    /// Whether there is an answer, whole or partial.
    pub has_message: bool,
    /// Who answered.
    pub upstream: Option<UpstreamAnswer>,
    /// Every try.
    pub attempts: PgJson,
    /// From admission to the first token, in milliseconds.
    pub time_to_first_token_ms: Option<i64>,
    /// From admission to the end, in milliseconds.
    pub duration_ms: i64,
    /// What it cost.
    pub usage: TokenUsage,
    /// What was odd about the answer.
    pub notes: PgJson,
}

/// The outcome of a chat that has ended.
#[derive(Clone, Debug, PartialEq)]
pub enum ChatOutcome {
    /// Without an answer, or with part of one. Of a lost gateway (`orphaned`) where the stage says so.
    Failed {
        /// Where.
        stage: FailureStage,
        /// What went wrong.
        error: ChatError,
    },
    /// With an answer.
    Completed,
}

/// Token numbers as a row holds them.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenUsage {
    /// Where they come from.
    pub source: UsageSource,
    /// Input tokens.
    pub prompt_tokens: Option<i64>,
    /// Output tokens.
    pub completion_tokens: Option<i64>,
    /// All tokens.
    pub total_tokens: Option<i64>,
    /// The same in disjoint parts.
    pub parts: TokenParts,
    /// The provider's own object.
    pub raw: Option<PgJson>,
}

/// Disjoint parts as a row holds them; see [`UsageParts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of UsageParts")]
pub struct TokenParts {
    pub uncached_input: i64,
    pub cache_read: i64,
    pub cache_write: i64,
    pub output: i64,
    pub reasoning: i64,
}

/// Which halves of a row a join replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplacedHalves {
    /// What `ChatStarted` says.
    pub request: bool,
    /// How the chat ended.
    pub ending: bool,
}

// === impl Chat ===

impl Chat {
    /// Takes in what `other` knows of the same chat.
    pub fn join(&mut self, other: Self) -> ReplacedHalves {
        keep_least(&mut self.conversation_id, other.conversation_id);
        keep_least(&mut self.user_id, other.user_id);
        keep_least(&mut self.gateway, other.gateway);
        keep_least(&mut self.model, other.model);
        keep_least(&mut self.started_at, other.started_at);
        let request = other.request.as_ref().map(ChatRequest::rank) > self.request.as_ref().map(ChatRequest::rank);
        let ending = other.ending.as_ref().map(ChatEnding::rank) > self.ending.as_ref().map(ChatEnding::rank);
        if request {
            self.request = other.request;
        }
        if ending {
            self.ending = other.ending;
        }
        ReplacedHalves { request, ending }
    }

    /// The word for its state.
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

    /// What it contributes to its user's day.
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
                UsageSource::Unknown => {}
            }
        }
        counts
    }

    /// What it contributes to its conversation.
    pub fn conversation_totals(&self) -> ConversationTotals {
        let counts = self.usage_totals();
        ConversationTotals {
            messages: counts.messages_created,
            total_tokens: counts.total_tokens,
            estimated_total_tokens: counts.estimated_total_tokens,
        }
    }

    fn messages(&self) -> i64 {
        let user_message = self.request.as_ref().is_some_and(|request| request.has_message);
        let assistant_message = self.ending.as_ref().is_some_and(|ending| ending.has_message);
        i64::from(user_message) + i64::from(assistant_message)
    }
}

fn keep_least<T: Ord>(here: &mut T, other: T) {
    if other < *here {
        *here = other;
    }
}

// === impl Request ===

impl ChatRequest {
    fn rank(&self) -> impl Ord + use<> {
        Reverse(self.digest)
    }
}

// === impl Ending ===

impl ChatEnding {
    fn rank(&self) -> impl Ord + use<> {
        (self.outcome.rank(), Reverse(self.finished_at), Reverse(self.digest))
    }
}

// === impl Outcome ===

impl ChatOutcome {
    fn rank(&self) -> u8 {
        match self {
            Self::Failed { stage: FailureStage::GatewayLost, .. } => 1,
            Self::Failed { .. } => 2,
            Self::Completed => 3,
        }
    }
}

// === impl UsageNumbers ===

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

// === impl PartNumbers ===

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
