//! What the tap is told about a body, and what the tap says about a chunk.

use shared::event::Operation;

use crate::response::dialect::Fold;

/// The expected kind of body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedBody {
    /// An event stream or a document, told apart by the first byte.
    Answer,
    /// The body of a response with an error status: always read as a document.
    Error,
    /// A JSON document whose vectors, pictures and sounds are not kept.
    Outline,
    /// A document of text.
    Text,
    /// A picture or a sound: counted, and not read.
    Opaque,
}

impl ExpectedBody {
    /// The expected kind of the body of a successful answer with this `content-type`.
    pub fn of_answer(fold: &Fold, content_type: &str) -> Self {
        let Fold::OpenaiCall(call) = fold else { return Self::Answer };
        let essence = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        let is_json = essence == "application/json" || essence.ends_with("+json");
        let is_binary = ["audio/", "image/", "video/"].iter().any(|kind| essence.starts_with(kind));
        match call.operation() {
            Operation::PassThrough => Self::Opaque,
            _ if essence == "text/event-stream" => Self::Answer,
            Operation::TextCompletion => Self::Answer,
            Operation::Speech if !is_json => Self::Opaque,
            _ if is_binary || essence == "application/octet-stream" => Self::Opaque,
            Operation::Transcription | Operation::Translation if !is_json => Self::Text,
            _ => Self::Outline,
        }
    }
}

/// The handling of a chunk that contains usage and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageChunkPolicy {
    /// The client asked for usage: the chunk is forwarded.
    Forward,
    /// Only the gateway asked for usage: the chunk is removed.
    Remove,
}

/// The state of the response after a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedStatus {
    /// The response continues: the next chunk can be fed.
    Continue,
    /// The chunk contains the end of the response. The end is held back until [`Tap::release`](super::Tap::release).
    End,
}
