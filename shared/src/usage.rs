//! Token usage of a chat: the numbers as the provider reported them, and the same tokens split into disjoint parts.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Where the numbers come from. They are never mixed: sums keep reported and estimated apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// The provider reported them. A reported zero is a zero.
    Reported,
    /// Nothing was reported; these were counted with a tokenizer.
    Estimated,
    /// Nothing is known.
    #[default]
    Unknown,
}

impl UsageSource {
    /// Returns the value in events and in table rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Estimated => "estimated",
            Self::Unknown => "unknown",
        }
    }
}

/// The usage of one chat, in tokens.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Usage {
    /// Where the numbers come from.
    pub source: UsageSource,
    /// Input tokens, cached ones included.
    pub prompt_tokens: Option<u64>,
    /// Output tokens, as the provider counts them.
    pub completion_tokens: Option<u64>,
    /// All tokens: as reported, else the sum of the two above.
    pub total_tokens: Option<u64>,
    /// The same tokens, each counted in exactly one part.
    pub parts: UsageParts,
    /// The provider's own usage object, untouched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<Box<RawValue>>,
}

/// Disjoint parts: prices differ by part, and parts add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UsageParts {
    /// Input that was read anew.
    pub uncached_input: u64,
    /// Input read from the provider's cache.
    pub cache_read: u64,
    /// Input written to the provider's cache.
    pub cache_write: u64,
    /// Output, without reasoning.
    pub output: u64,
    /// Reasoning output.
    pub reasoning: u64,
}
