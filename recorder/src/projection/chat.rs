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

use super::pg_value::{Json, tokens};
use super::usage_stats::{Counts, Tally};

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
    pub request: Option<Request>,
    /// How it ended, once it did.
    pub ending: Option<Ending>,
}

/// What `ChatStarted` says beyond what every event of a chat says.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
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
    pub caller_metadata: Option<Json>,
}

/// How a chat ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    /// Decides between two different ones of the same rank and time.
    pub digest: i64,
    /// Well, or not.
    pub outcome: Outcome,
    /// When.
    pub finished_at: OffsetDateTime,
    /// Whether there is an answer, whole or partial.
    pub has_message: bool,
    /// Who answered.
    pub upstream: Option<UpstreamAnswer>,
    /// Every try.
    pub attempts: Json,
    /// From admission to the first token, in milliseconds.
    pub time_to_first_token_ms: Option<i64>,
    /// From admission to the end, in milliseconds.
    pub duration_ms: i64,
    /// What it cost.
    pub usage: UsageNumbers,
    /// What was odd about the answer.
    pub notes: Json,
}

/// The outcome of a chat that has ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
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
pub struct UsageNumbers {
    /// Where they come from.
    pub source: UsageSource,
    /// Input tokens.
    pub prompt_tokens: Option<i64>,
    /// Output tokens.
    pub completion_tokens: Option<i64>,
    /// All tokens.
    pub total_tokens: Option<i64>,
    /// The same in disjoint parts.
    pub parts: PartNumbers,
    /// The provider's own object.
    pub raw: Option<Json>,
}

/// Disjoint parts as a row holds them; see [`UsageParts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of UsageParts")]
pub struct PartNumbers {
    pub uncached_input: i64,
    pub cache_read: i64,
    pub cache_write: i64,
    pub output: i64,
    pub reasoning: i64,
}

/// Which halves of a row a join replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// What `ChatStarted` says.
    pub request: bool,
    /// How the chat ended.
    pub ending: bool,
}

// === impl Chat ===

impl Chat {
    /// Takes in what `other` knows of the same chat.
    pub fn join(&mut self, other: Self) -> Replaced {
        lower(&mut self.conversation_id, other.conversation_id);
        lower(&mut self.user_id, other.user_id);
        lower(&mut self.gateway, other.gateway);
        lower(&mut self.model, other.model);
        lower(&mut self.started_at, other.started_at);
        let request = other.request.as_ref().map(Request::rank) > self.request.as_ref().map(Request::rank);
        let ending = other.ending.as_ref().map(Ending::rank) > self.ending.as_ref().map(Ending::rank);
        if request {
            self.request = other.request;
        }
        if ending {
            self.ending = other.ending;
        }
        Replaced { request, ending }
    }

    /// The word for its state.
    pub fn status(&self) -> &'static str {
        match &self.ending {
            None => "started",
            Some(Ending { outcome: Outcome::Completed, .. }) => "completed",
            Some(Ending { outcome: Outcome::Failed { stage: FailureStage::GatewayLost, .. }, .. }) => "orphaned",
            Some(Ending { outcome: Outcome::Failed { .. }, .. }) => "failed",
        }
    }

    /// What it contributes to its user's day.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { messages_created: self.messages(), ..Counts::default() };
        if let Some(ending) = &self.ending {
            counts.api_calls = 1;
            match ending.outcome {
                Outcome::Completed => counts.successful_calls = 1,
                Outcome::Failed { .. } => counts.failed_calls = 1,
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
    pub fn tally(&self) -> Tally {
        let counts = self.counts();
        Tally {
            messages: counts.messages_created,
            total_tokens: counts.total_tokens,
            estimated_total_tokens: counts.estimated_total_tokens,
        }
    }

    fn messages(&self) -> i64 {
        let asked = self.request.as_ref().is_some_and(|request| request.has_message);
        let answered = self.ending.as_ref().is_some_and(|ending| ending.has_message);
        i64::from(asked) + i64::from(answered)
    }
}

fn lower<T: Ord>(here: &mut T, other: T) {
    if other < *here {
        *here = other;
    }
}

// === impl Request ===

impl Request {
    fn rank(&self) -> impl Ord + use<> {
        Reverse(self.digest)
    }
}

// === impl Ending ===

impl Ending {
    fn rank(&self) -> impl Ord + use<> {
        (self.outcome.rank(), Reverse(self.finished_at), Reverse(self.digest))
    }
}

// === impl Outcome ===

impl Outcome {
    fn rank(&self) -> u8 {
        match self {
            Self::Failed { stage: FailureStage::GatewayLost, .. } => 1,
            Self::Failed { .. } => 2,
            Self::Completed => 3,
        }
    }
}

// === impl UsageNumbers ===

impl UsageNumbers {
    pub(super) fn of(usage: &Usage) -> Self {
        Self {
            source: usage.source,
            prompt_tokens: usage.prompt_tokens.map(tokens),
            completion_tokens: usage.completion_tokens.map(tokens),
            total_tokens: usage.total_tokens.map(tokens),
            parts: PartNumbers::of(usage.parts),
            raw: usage.raw.as_ref().map(|raw| Json::new(raw.get())),
        }
    }

    fn total(&self) -> i64 {
        let sum = self.prompt_tokens.unwrap_or(0) + self.completion_tokens.unwrap_or(0);
        self.total_tokens.unwrap_or(sum)
    }
}

// === impl PartNumbers ===

impl PartNumbers {
    fn of(parts: UsageParts) -> Self {
        Self {
            uncached_input: tokens(parts.uncached_input),
            cache_read: tokens(parts.cache_read),
            cache_write: tokens(parts.cache_write),
            output: tokens(parts.output),
            reasoning: tokens(parts.reasoning),
        }
    }
}
