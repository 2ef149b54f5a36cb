//! The spans of a batch: one of the batch, and one of each event in the trace of its call, linked with the batch. docs/TRACES.md describes
//! them.

use shared::event::Event;
use shared::trace_context::TraceContext;
use shared::traces::{SpanBuilder, SpanKind, Tracer};
use time::OffsetDateTime;

use crate::source::batch::Batch;

/// The maximum number of links of a batch's span. Collectors refuse spans without bounds.
const MAX_LINKS: usize = 128;

/// The numbers of the spans of recorded events below the spans of their calls.
const RECORD_START: usize = 5;
const RECORD_OTHER: usize = 6;
const RECORD_END: usize = 7;

/// Sends the spans of a batch that was written from `began` until now. Without an event of a trace that is kept, there are none.
pub(super) fn send(tracer: &Tracer, batch: &Batch, began: OffsetDateTime) {
    let traced = || {
        batch
            .events
            .iter()
            .zip(&batch.deliveries)
            .filter_map(|(event, delivery)| tracer.kept(event.traceparent()).map(|call| (call, event, delivery)))
    };
    if traced().next().is_none() {
        return;
    }
    let Some(whole) = tracer.begin_kept() else { return };
    let ended = shared::event::now();
    let mut span = SpanBuilder::new("record batch", SpanKind::Consumer, whole, None)
        .times(began, ended)
        .text("messaging.system", "nats")
        .text("messaging.operation.type", "process")
        .text("messaging.destination.name", shared::stream::NAME)
        .number("messaging.batch.message_count", u64::try_from(batch.events.len()).ok())
        .number("stenograph.undecodable", u64::try_from(batch.undecodable.len()).ok());
    for (call, ..) in traced().take(MAX_LINKS) {
        span = span.link(call);
    }
    tracer.send(span);
    for (call, event, delivery) in traced() {
        let kind = event.kind().type_name().split('.').nth(1).unwrap_or_default();
        let span =
            SpanBuilder::new(format!("record {kind}"), SpanKind::Consumer, span_of(call, event), Some(call.span_id))
                .times(began, ended)
                .text("messaging.system", "nats")
                .text("messaging.operation.type", "process")
                .text("messaging.destination.name", delivery.subject())
                .text("messaging.message.id", event.id().to_string())
                .number("stenograph.stream.sequence", Some(delivery.sequence()))
                .link(whole);
        tracer.send(span);
    }
}

/// Returns the span of an event that is recorded. An event that is recorded again gets the same span.
fn span_of(call: TraceContext, event: &Event) -> TraceContext {
    call.numbered_child(match event {
        Event::ChatStarted(_) => RECORD_START,
        Event::MessageCompleted(_) | Event::ChatFailed(_) => RECORD_END,
        _ => RECORD_OTHER,
    })
}
