//! Sizes, counts and durations of a call.

use serde::{Deserialize, Serialize};

/// Sizes, counts and durations of a call that is not measured in tokens alone, such as embeddings, images and audio. Each field is
/// left out where the gateway does not know the value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Media {
    /// The size of the request body, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_bytes: Option<u64>,
    /// The size of the response body, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// The number of inputs: texts to embed, documents to rank, images to edit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_items: Option<u64>,
    /// The number of outputs: vectors, ranked documents, images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_items: Option<u64>,
    /// The length of the audio in the request, in seconds, as the provider reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_seconds: Option<f64>,
    /// The length of the audio in the response, in seconds, as the provider reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_seconds: Option<f64>,
}

impl Media {
    /// Returns these values, with size and number of the inputs from `request`.
    #[must_use]
    pub fn with_input_of(self, request: &Self) -> Self {
        Self { input_bytes: request.input_bytes, input_items: request.input_items, ..self }
    }
}
