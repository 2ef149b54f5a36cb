//! The spans of a call: the call itself, each try at an upstream, the journal, and the publication of the events. docs/TRACES.md describes
//! them. No span has the text of a chat.

use shared::event::{Attempt, Event, Operation};
use shared::id::{ChatId, ConversationId, UserId};
use shared::trace_context::TraceContext;
use shared::traces::{Position, SpanBuilder, SpanKind, Tracer};
use shared::usage::Usage;
use time::{Duration, OffsetDateTime};

/// The numbers of the spans below the span of a call. The tries at upstreams have the numbers from [`FIRST_TRY`].
const JOURNAL_START: usize = 0;
const JOURNAL_END: usize = 1;
const PUBLISH_START: usize = 2;
const PUBLISH_OTHER: usize = 3;
const PUBLISH_END: usize = 4;
const FIRST_TRY: usize = 8;

/// The parts of a call that the journal makes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalPart {
    /// The start of the call, before an answer begins.
    Start,
    /// The end of the call, before the client sees the end.
    End,
}

/// The span of a call, sent when the end of the call is durable.
#[derive(Clone, Debug)]
pub struct CallSpan {
    tracer: Tracer,
    position: Position,
    operation: Operation,
    started_at: OffsetDateTime,
    /// The time at which the end was handed to the journal.
    recorded_at: OffsetDateTime,
}

/// The facts of an ended call that its span shows.
#[derive(Debug)]
pub struct EndedCall<'a> {
    /// The id of the call.
    pub chat: ChatId,
    /// The conversation, if the call belongs to one.
    pub conversation: Option<ConversationId>,
    /// The user.
    pub user: &'a UserId,
    /// The model that the client asked for.
    pub model: &'a str,
    /// `completed`, or the stage at which the call failed.
    pub outcome: &'static str,
    /// Tells how durable the end is; `None` if it could not be recorded.
    pub durable: Option<&'static str>,
}

/// Returns the context of a try at an upstream, for the upstream's own spans. `number` counts the tries of the call.
pub fn try_context(call: TraceContext, number: usize) -> TraceContext {
    call.numbered_child(FIRST_TRY + number)
}

impl CallSpan {
    /// Begins the end of the span of a call. `None` if no spans are made of the call.
    pub fn ending(
        tracer: &Tracer,
        position: Option<Position>,
        operation: Operation,
        started_at: OffsetDateTime,
    ) -> Option<Box<Self>> {
        let position = position.filter(|position| tracer.kept(Some(position.context)).is_some())?;
        let recorded_at = shared::event::now();
        Some(Box::new(Self { tracer: tracer.clone(), position, operation, started_at, recorded_at }))
    }

    /// Returns the id of the trace, for log lines.
    pub fn trace_id(&self) -> String {
        self.position.context.trace_id_text()
    }

    /// Sends the span of the call, and the span of the journal's part in the end.
    pub fn send(&self, call: &EndedCall<'_>) {
        let Position { context, parent } = self.position;
        send_journal(&self.tracer, context, JournalPart::End, self.recorded_at);
        let span = SpanBuilder::new(name(self.operation, call.model), SpanKind::Server, context, parent)
            .times(self.started_at, shared::event::now())
            .text("gen_ai.operation.name", self.operation.label())
            .text("gen_ai.request.model", call.model)
            .optional_text("gen_ai.conversation.id", call.conversation.map(|id| id.to_string()))
            .text("user.id", call.user.to_string())
            .text("stenograph.chat.id", call.chat.to_string())
            .text("stenograph.outcome", call.outcome)
            .optional_text("stenograph.durable", call.durable)
            .error(match (call.outcome, call.durable) {
                (_, None) => Some("not_recorded"),
                ("completed", _) => None,
                (stage, _) => Some(stage),
            });
        self.tracer.send(span);
    }
}

/// Sends the span of the time from `began` until now, in which an event of a call was written to the journal. `call` is the span of the
/// call.
pub fn send_journal(tracer: &Tracer, call: TraceContext, part: JournalPart, began: OffsetDateTime) {
    let (name, number) = match part {
        JournalPart::Start => ("journal start", JOURNAL_START),
        JournalPart::End => ("journal end", JOURNAL_END),
    };
    let span = SpanBuilder::new(name, SpanKind::Internal, call.numbered_child(number), Some(call.span_id));
    tracer.send(span.times(began, shared::event::now()));
}

/// Sends the span of the publication of an event of a call, from `began` until the broker's acknowledgement now.
pub fn send_publication(
    tracer: &Tracer,
    call: TraceContext,
    (type_name, subject): (&str, &str),
    (began, resends): (OffsetDateTime, u32),
) {
    let kind = type_name.split('.').nth(1).unwrap_or(type_name);
    let number = match kind {
        "ChatStarted" => PUBLISH_START,
        "MessageCompleted" | "ChatFailed" => PUBLISH_END,
        _ => PUBLISH_OTHER,
    };
    let context = call.numbered_child(number);
    let span = SpanBuilder::new(format!("publish {kind}"), SpanKind::Producer, context, Some(call.span_id))
        .times(began, shared::event::now())
        .text("messaging.system", "nats")
        .text("messaging.operation.type", "send")
        .text("messaging.destination.name", subject)
        .number("stenograph.resends", Some(u64::from(resends)));
    tracer.send(span);
}

/// Sends the spans of all tries at upstreams, as the event of the call's end has them.
pub fn send_tries(tracer: &Tracer, event: &Event) {
    let Some(call) = tracer.kept(event.traceparent()) else { return };
    let end = match event {
        Event::MessageCompleted(event) => End {
            operation: event.operation,
            model: &event.model,
            conversation: event.conversation_id,
            response: Some((&event.upstream.model, &event.upstream.response_id)),
            finish_reason: event.message.as_ref().and_then(|message| message.finish_reason.as_deref()),
            usage: &event.usage,
            first_token_ms: event.time_to_first_token_ms,
            ended_at: event.finished_at,
        },
        Event::ChatFailed(event) => End {
            operation: event.operation,
            model: &event.model,
            conversation: event.conversation_id,
            response: event.upstream.as_ref().map(|upstream| (&upstream.model, &upstream.response_id)),
            finish_reason: event.message.as_ref().and_then(|message| message.finish_reason.as_deref()),
            usage: &event.usage,
            first_token_ms: event.time_to_first_token_ms,
            ended_at: event.failed_at,
        },
        _ => return,
    };
    let attempts = match event {
        Event::MessageCompleted(event) => &event.attempts,
        Event::ChatFailed(event) => &event.attempts,
        _ => return,
    };
    for (number, attempt) in attempts.iter().enumerate() {
        let is_answer = number + 1 == attempts.len() && attempt.error.is_none();
        tracer.send(try_span(call, number, attempt, &end, is_answer));
    }
}

/// The end of a call, as far as the span of the try that was answered shows it.
struct End<'a> {
    operation: Operation,
    model: &'a str,
    conversation: Option<ConversationId>,
    response: Option<(&'a Option<String>, &'a Option<String>)>,
    finish_reason: Option<&'a str>,
    usage: &'a Usage,
    first_token_ms: Option<u64>,
    ended_at: OffsetDateTime,
}

fn try_span(call: TraceContext, number: usize, attempt: &Attempt, end: &End<'_>, is_answer: bool) -> SpanBuilder {
    let head_at = attempt.started_at + Duration::milliseconds(i64::try_from(attempt.duration_ms).unwrap_or(i64::MAX));
    let ended_at = if is_answer { end.ended_at.max(head_at) } else { head_at };
    let status_error = attempt.status.filter(|status| *status >= 400).map(|status| status.to_string());
    let context = try_context(call, number);
    let span = SpanBuilder::new(name(end.operation, end.model), SpanKind::Client, context, Some(call.span_id))
        .times(attempt.started_at, ended_at)
        .text("gen_ai.operation.name", end.operation.label())
        .text("gen_ai.provider.name", attempt.upstream.as_str())
        .text("gen_ai.request.model", end.model)
        .optional_text("gen_ai.conversation.id", end.conversation.map(|id| id.to_string()))
        .number("http.response.status_code", attempt.status.map(u64::from))
        .number("stenograph.head_ms", Some(attempt.duration_ms))
        .error(attempt.error.as_deref().or(status_error.as_deref()));
    if !is_answer {
        return span;
    }
    let (model, id) = end.response.unwrap_or((&None, &None));
    let (usage, parts) = (end.usage, &end.usage.parts);
    let some = |count: u64| Some(count).filter(|count| *count > 0);
    span.optional_text("gen_ai.response.model", model.as_deref())
        .optional_text("gen_ai.response.id", id.as_deref())
        .optional_list("gen_ai.response.finish_reasons", end.finish_reason)
        .number("gen_ai.usage.input_tokens", usage.prompt_tokens)
        .number("gen_ai.usage.output_tokens", usage.completion_tokens)
        .number("gen_ai.usage.cache_read.input_tokens", some(parts.cache_read))
        .number("gen_ai.usage.cache_creation.input_tokens", some(parts.cache_write))
        .number("gen_ai.usage.reasoning.output_tokens", some(parts.reasoning))
        .text("stenograph.usage.source", usage.source.label())
        .seconds("gen_ai.response.time_to_first_chunk", first_chunk_seconds(end.first_token_ms))
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a call are far below 2⁵²")]
fn first_chunk_seconds(first_token_ms: Option<u64>) -> Option<f64> {
    first_token_ms.map(|ms| ms as f64 / 1000.0)
}

fn name(operation: Operation, model: &str) -> String {
    if model.is_empty() { operation.label().to_owned() } else { format!("{} {model}", operation.label()) }
}
