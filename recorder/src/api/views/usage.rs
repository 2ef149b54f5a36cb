//! The JSON shape of usage.

use serde::Serialize;
use utoipa::ToSchema;

use crate::projection::usage_stats::UsageTotals;

/// Counts of calls, tokens, messages and conversations, and sums of costs. Reported and estimated values are never mixed.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UsageCounts {
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
    /// The cost of calls whose usage providers reported, in nano-dollars (10⁻⁹ US dollars).
    cost_nanodollars: i64,
    /// The cost of calls whose usage was estimated, in nano-dollars. Never added to the other.
    estimated_cost_nanodollars: i64,
    /// The sum of the figures that providers themselves sent for the cost of calls, in nano-dollars. Most providers send none.
    provider_cost_nanodollars: i64,
    /// Calls that cost something unknown: no price list has a price. They are in no sum of costs.
    unpriced_calls: i64,
}

/// What a user used on one UTC day.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DayOfUsage {
    /// The day.
    #[schema(format = Date)]
    pub(crate) date: String,
    /// The sums.
    #[serde(flatten)]
    pub(crate) counts: UsageCounts,
}

impl From<UsageTotals> for UsageCounts {
    fn from(counts: UsageTotals) -> Self {
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
            cost_nanodollars: counts.cost_nanodollars,
            estimated_cost_nanodollars: counts.estimated_cost_nanodollars,
            provider_cost_nanodollars: counts.provider_cost_nanodollars,
            unpriced_calls: counts.unpriced_calls,
        }
    }
}
