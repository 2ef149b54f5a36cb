//! Events in flight: published, and not yet acknowledged.

use std::time::Duration;

use rand::RngExt as _;
use shared::traces::Tracer;
use tokio::time::Instant;

use crate::journal::JournalEntry;
use crate::spans;

/// A published event without an acknowledgement.
pub(super) struct InFlightEvent {
    pub(super) entry: JournalEntry,
    pub(super) first_published_at: Instant,
    /// The time at which the event is published again, unless acknowledged by then.
    pub(super) resend_at: Instant,
    pub(super) resends: u32,
    pub(super) reason: PublishReason,
}

impl InFlightEvent {
    /// Sends the span of the publication, which ends now, if the event belongs to a trace that is kept.
    pub(super) fn send_span(&self, tracer: &Tracer) {
        if let Some(call) = tracer.kept(self.entry.trace)
            && let Some(event) = self.entry.event()
        {
            let began = shared::event::now() - self.first_published_at.elapsed();
            let subject = String::from_utf8_lossy(&event.subject);
            spans::send_publication(tracer, call, (event.envelope.type_name, &subject), (began, self.resends));
        }
    }
}

/// The reason for publishing an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PublishReason {
    /// The broker has never acknowledged the event.
    New,
    /// The event was acknowledged and released, and the broker has lost the event since.
    Lost,
}

/// The events to publish again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResendScope {
    /// All events in flight, because the connection is new: events on the old connection may be lost.
    Everything,
    /// The events without an acknowledgement in time.
    Overdue,
}

/// Returns the delay before the next resend: 250 ms, doubled with each resend up to 8 s, plus a random quarter at most
/// so that gateways spread out.
pub(super) fn backoff(resends: u32) -> Duration {
    let base = Duration::from_millis(250) * 2_u32.pow(resends.min(5));
    base + base.mul_f64(rand::rng().random_range(0.0..0.25))
}
