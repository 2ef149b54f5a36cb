//! The question whether the stream holds an event: asked by gateways after a reconnection, answered by recorders.
//!
//! A broker may lose events that it acknowledged, and give their sequences to other events. A gateway that may not read
//! the stream asks a recorder, by a request on [`SUBJECT`].

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The subject of the requests. Recorders subscribe in the queue group [`QUEUE`], so that one of them answers.
pub const SUBJECT: &str = "stenograph.stream_check";

/// The queue group of the recorders that answer.
pub const QUEUE: &str = "recorder";

/// The request: is the event with this id stored at this sequence?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamCheckRequest {
    /// The sequence at which the broker acknowledged the event.
    pub sequence: u64,
    /// The id of the event (`ce-id`).
    pub event_id: Uuid,
}

/// The response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamCheckResponse {
    /// The stream holds the event at this sequence.
    Held,
    /// The sequence is free, or another event has it.
    Lost,
    /// The recorder got no answer from the broker.
    Unknown,
}

impl StreamCheckResponse {
    /// Compares the id of the message at the sequence with the id in the request. `found` is `None` if there is no
    /// message, or a message without an event id.
    pub fn compare(request: StreamCheckRequest, found: Option<Uuid>) -> Self {
        if found == Some(request.event_id) { Self::Held } else { Self::Lost }
    }
}
