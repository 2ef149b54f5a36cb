//! Token usage of a chat: the numbers as the provider reported them, and the same tokens split into disjoint parts.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::word::open_words;

open_words! {
    /// The source of token counts. Sums keep reported and estimated counts apart. Readers must accept words that they do not know.
    pub enum UsageSource {
        /// The provider reported the counts. A reported zero is a zero.
        Reported = "reported",
        /// The provider reported nothing, and the gateway estimated the counts with a tokenizer.
        Estimated = "estimated",
        /// Nothing is known.
        Unknown = "unknown",
    }
}

#[expect(clippy::derivable_impls, reason = "the macro of open sets has no default variant")]
impl Default for UsageSource {
    fn default() -> Self {
        Self::Unknown
    }
}

/// The usage of one chat, in tokens.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Usage {
    /// The source of the counts.
    pub source: UsageSource,
    /// Input tokens, cached tokens included.
    pub prompt_tokens: Option<u64>,
    /// Output tokens, as the provider counts them.
    pub completion_tokens: Option<u64>,
    /// All tokens: as reported, else the sum of the two counts above.
    pub total_tokens: Option<u64>,
    /// The same tokens, each in exactly one part.
    pub parts: UsageParts,
    /// The provider's own usage object, unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<Box<RawValue>>,
}

/// The tokens in disjoint parts. Prices differ by part, and the parts add up to all tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UsageParts {
    /// Input tokens that were neither read from nor written to a cache.
    pub uncached_input: u64,
    /// Input tokens read from the provider's cache.
    pub cache_read: u64,
    /// Input tokens written to the provider's cache.
    pub cache_write: u64,
    /// Output tokens without reasoning.
    pub output: u64,
    /// Output tokens of reasoning.
    pub reasoning: u64,
}
