//! Metadata that a caller attaches to a chat.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What a caller says about a chat: never understood, only kept, to be looked for later.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CallerMetadata {
    /// The caller's own user, as the body's `user` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The body's `metadata`, an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<serde_json::Map<String, serde_json::Value>>"))]
    pub metadata: Option<Box<RawValue>>,
    /// The tags in the header `x-stenograph-tags`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}
