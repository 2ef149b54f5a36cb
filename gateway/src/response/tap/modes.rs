//! What the tap is told about a body, and what the tap says about a chunk.

/// The expected kind of body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedBody {
    /// An event stream or a document, told apart by the first byte.
    Answer,
    /// The body of a response with an error status: always read as a document.
    Error,
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
    /// The chunk contains the end of the response. The end is held back until [`Tap::release`].
    End,
}
