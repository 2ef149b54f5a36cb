//! The journal, metrics and background tasks that record chats, and the recording of ends.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use http::HeaderMap;
use shared::event::{Event, RecordingMode};
use shared::trace_context::{TRACEPARENT, TraceContext};
use shared::traces::{Position, Tracer};
use tokio::sync::Semaphore;

use crate::auth::Caller;
use crate::chat::disconnect::Drains;
use crate::chat::response_conversations::ResponseConversations;
use crate::grants::budget_hold::BudgetHold;
use crate::journal::{Journal, Recorded};
use crate::metrics::Metrics;
use crate::recording_mode;
use crate::request::InvalidRequest;
use crate::response::token_estimate::{self, Prompt, estimate_usage};
use crate::running::RunningChats;
use crate::spans;

/// The parts of the gateway that record chats, shared by all chats.
#[derive(Debug)]
pub struct Recording {
    /// The journal that receives the events of all chats.
    pub journal: Journal,
    /// The metrics that count chats and tokens.
    pub metrics: Arc<Metrics>,
    /// Makes the spans of calls.
    pub tracer: Tracer,
    /// The most that events keep of any call: `GATEWAY_RECORDING`.
    pub mode: RecordingMode,
    /// The name of this gateway instance, as in events.
    pub instance: String,
    /// Set when the shutdown deadline is over. Chats that are cut off after that fail with `gateway_stopped`.
    pub is_stopping: AtomicBool,
    /// One permit for each usage estimate that may run at once. An estimate occupies a processor, and streams come first.
    pub estimates: Arc<Semaphore>,
    /// The conversations of recent responses, for requests that continue one of them.
    pub responses: Arc<ResponseConversations>,
    /// The answers that are drained after their clients have disconnected.
    pub drains: Drains,
    /// The chats that run here, by id.
    pub running: Arc<RunningChats>,
}

/// Estimates the usage of a chat, then hands the terminal event to the journal. Only the future of the chat's end waits for
/// this task.
pub(super) async fn estimate_and_record(
    recording: Arc<Recording>,
    prompt: Prompt,
    event: Event,
    budgets: Option<BudgetHold>,
) -> Recorded {
    let permit = recording.estimates.acquire().await;
    let event = Arc::new(event);
    let counted = Arc::clone(&event);
    let count = move || match &*counted {
        Event::MessageCompleted(event) => event.message.as_ref().map(|message| estimate_usage(&prompt, message)),
        Event::ChatFailed(event) => event.message.as_ref().map(|message| estimate_usage(&prompt, message)),
        _ => None,
    };
    let usage = tokio::task::spawn_blocking(count).await.ok().flatten();
    let mut event = Arc::unwrap_or_clone(event);
    if let Some(usage) = usage {
        match &mut event {
            Event::MessageCompleted(event) => token_estimate::complete(&mut event.usage, usage),
            Event::ChatFailed(event) => token_estimate::complete(&mut event.usage, usage),
            _ => {}
        }
    }
    let recorded = recording.record_end(event, budgets);
    // The permit is held until the event is in the journal. A stopping gateway that acquires the permit therefore knows
    // that every earlier end has been handed over.
    drop(permit);
    recorded
}

impl Recording {
    /// Returns the recording mode of a request: the strictest of the deployment, the API key, the route and the request itself.
    pub(crate) fn mode_of(
        &self,
        caller: &Caller,
        route: RecordingMode,
        headers: &HeaderMap,
    ) -> Result<RecordingMode, InvalidRequest> {
        recording_mode::resolve(headers, [self.mode, caller.recording_mode(), route])
    }

    /// Finds the place of a request in a trace: below the span that the client names in `traceparent`, or in a new trace.
    pub(crate) fn trace_of(&self, headers: &HeaderMap) -> Option<Position> {
        let client = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()?.parse::<TraceContext>().ok());
        self.tracer.begin(client)
    }

    /// Hands the start of a chat to the journal, without what the chat's mode leaves out.
    pub(super) fn record_start(&self, mut event: Event) -> Recorded {
        recording_mode::reduce(&mut event);
        self.journal.record_start(&event)
    }

    /// Hands the terminal event to the journal, without what the chat's mode leaves out. The chat counts as open until then. The cost of
    /// the event replaces what the chat has reserved of its budgets.
    pub(super) fn record_end(&self, mut event: Event, budgets: Option<BudgetHold>) -> Recorded {
        recording_mode::reduce(&mut event);
        if let Some(budgets) = budgets {
            budgets.settle(&event);
        }
        spans::send_tries(&self.tracer, &event);
        let recorded = self.journal.record(&event);
        self.metrics.chats_open.dec();
        recorded
    }
}
