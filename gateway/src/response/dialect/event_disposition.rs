//! What an event of a stream means for the bytes that carry it.

/// What one event of a stream means for the bytes that carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventDisposition {
    /// It passes.
    Forward,
    /// It holds usage and nothing else: it passes only to a client that asked for it.
    UsageOnly,
    /// Clients take it for the end of the answer: it waits until the end is on the record.
    End,
}
