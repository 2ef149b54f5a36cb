//! The handling of an event's bytes by the tap.

/// The handling of the bytes of one event in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventDisposition {
    /// The event is forwarded.
    Forward,
    /// The event contains usage and nothing else. Forwarded only to a client that asked for usage.
    UsageOnly,
    /// The event may be the last of the response. Held back until the next event arrives, or until the end is recorded.
    PossibleEnd,
    /// Clients take the event for the end of the response. Held back until the end is recorded.
    End,
}
