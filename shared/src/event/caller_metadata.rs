//! Metadata that a caller attaches to a chat.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Metadata that a caller attached to a chat. The gateway keeps the metadata for searches, and never acts on it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CallerMetadata {
    /// The caller's own user: `user` of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// `metadata` of the request, an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<serde_json::Map<String, serde_json::Value>>"))]
    pub metadata: Option<Box<RawValue>>,
    /// The tags of the header `x-stenograph-tags`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}
