//! A chat from admission to end. The owner of an [`OpenChat`] has to end the chat; dropping an open chat records that the
//! client has disconnected.

mod deferral;
mod terminal_event;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use shared::event::{
    Attempt, CallerMetadata, ChatDeferred, ChatStarted, ConversationOrigin, DialectName, Event, Media, Operation,
    RecordingMode,
};
use shared::fair_share::Place;
use shared::id::{ChatId, ConversationId, KeyId, ProjectId, UserId};
use shared::trace_context::TraceContext;
use shared::traces::Position;
use shared::usage::{Usage, UsageSource};
use time::OffsetDateTime;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

use crate::auth::Caller;
use crate::chat::budget_draw;
use crate::chat::chat_ending::ChatEnding;
use crate::chat::disconnect::Drains;
use crate::chat::ended_chat::{ChatLogLine, EndedChat, PendingEnd, PendingRecord};
use crate::chat::recording::{Recording, estimate_and_record};
use crate::grants::admission::Admission;
use crate::grants::budget_hold::{BudgetHold, Drawn};
use crate::idempotency::Claim;
use crate::journal::Recorded;
use crate::limit_headers::LimitHeaders;
use crate::metrics::{DirectionLabels, OutcomeLabels};
use crate::request::{ChatRequest, NewMessage};
use crate::response::token_estimate::Prompt;
use crate::response::transcript::Transcript;
use crate::routing::OnDisconnect;
use crate::running::{Registration, RunningChat};
use crate::spans::CallSpan;
use crate::upstream::endpoint::millis;

/// The facts about a chat that are settled before admission.
#[derive(Debug)]
pub struct ChatAdmission {
    /// The id of the new chat.
    pub id: ChatId,
    /// The kind of the call.
    pub operation: Operation,
    /// The conversation, the origin of the conversation id, and the client's own thread name if the id is derived from one.
    /// `None` for a call that belongs to no conversation.
    pub conversation: Option<(ConversationId, ConversationOrigin, Option<String>)>,
    /// The metadata that the caller sent with the chat.
    pub caller_metadata: Option<CallerMetadata>,
    /// The parts of the call that its events keep.
    pub mode: RecordingMode,
    /// The call's place in a trace, if it belongs to one.
    pub trace: Option<Position>,
    /// The claim on the request's idempotency key, if there is a key.
    pub claim: Option<Claim>,
    /// The action when the client disconnects.
    pub on_disconnect: OnDisconnect,
    /// The notes for the record that are known before the answer.
    pub notes: Vec<&'static str>,
    /// The start of the call, by which its limits were asked.
    pub started_at: OffsetDateTime,
    /// What the call has taken from its limits, if a limit applies.
    pub limits: Option<Admission>,
}

/// A chat that has been admitted and has not ended.
#[derive(Debug)]
pub struct OpenChat {
    recording: Arc<Recording>,
    /// The id of the chat.
    pub id: ChatId,
    operation: Operation,
    /// The id of the chat's conversation, if the chat belongs to one.
    pub conversation_id: Option<ConversationId>,
    origin: Option<ConversationOrigin>,
    dialect: DialectName,
    user: UserId,
    key_id: Option<KeyId>,
    project_id: Option<ProjectId>,
    /// The gateway that admitted the chat. `None` for this gateway.
    admitted_by: Option<String>,
    /// The parts of the call that its events keep.
    pub mode: RecordingMode,
    /// The chat's place in a trace, if it belongs to one.
    trace: Option<Position>,
    started_at: OffsetDateTime,
    admitted_at: Instant,
    model: String,
    /// All attempts to get an answer from an upstream so far.
    pub attempts: Vec<Attempt>,
    first_token_ms: Option<u64>,
    upstream: Option<String>,
    /// Sizes, counts and durations of a call that is no chat, for the end event.
    pub media: Option<Media>,
    /// The prompt, kept in case the usage has to be estimated.
    prompt: Prompt,
    /// The start, while the configured durability has not been confirmed.
    pub started: Option<Recorded>,
    is_ended: bool,
    claim: Option<Claim>,
    on_disconnect: OnDisconnect,
    /// Notes on the request, for the end event.
    notes: Vec<&'static str>,
    /// What the call has taken from its limits, until it ends.
    limits: Option<Admission>,
    /// The entry among the running chats. `None` for a call that is no chat.
    running: Option<Registration>,
    /// The place of a chat whose streamed answer the provider makes in the background, for when the stream ends early.
    pub background: Option<BackgroundPlace>,
    /// The event that says where such an answer is made, once the answer has said its id.
    deferral: Option<Arc<ChatDeferred>>,
    /// Counts the chat towards the maximum number of concurrent chats. `None` for a chat that has been admitted elsewhere.
    place: Option<Place>,
}

/// A chat whose stream has ended early while its provider makes the answer in the background.
pub type Deferral = (OpenChat, Arc<ChatDeferred>);

/// The place of a chat whose streamed answer the provider makes in the background, and the way to those that follow such chats.
#[derive(Debug)]
pub struct BackgroundPlace {
    /// The place.
    pub place: Place,
    /// Takes the chat if its stream ends early. The places of such chats bound their number.
    pub deferrals: UnboundedSender<Deferral>,
}

impl OpenChat {
    /// Admits a chat and hands the start event to the journal. Returns the chat, and the start on the way to durability.
    /// Messages and parameters are moved out of `request`.
    pub fn admit(
        recording: &Arc<Recording>,
        caller: Caller,
        admission: ChatAdmission,
        request: &mut ChatRequest,
        permit: Place,
    ) -> (Self, Recorded) {
        let (conversation_id, origin, client_thread_id) = match admission.conversation {
            Some((id, origin, thread)) => (Some(id), Some(origin), thread),
            None => (None, None, None),
        };
        let is_chat = admission.operation == Operation::Chat;
        let running = is_chat.then(|| recording.running.register(admission.id, &caller.user, conversation_id));
        let chat = Self {
            recording: Arc::clone(recording),
            id: admission.id,
            operation: admission.operation,
            conversation_id,
            origin,
            dialect: request.dialect,
            key_id: caller.key_id(),
            project_id: caller.project_id(),
            user: caller.user,
            admitted_by: None,
            mode: admission.mode,
            trace: admission.trace,
            started_at: admission.started_at,
            admitted_at: Instant::now(),
            model: request.model.clone(),
            attempts: Vec::new(),
            first_token_ms: None,
            upstream: None,
            media: None,
            prompt: Prompt::from_request(&request.messages, &request.parameters),
            started: None,
            is_ended: false,
            claim: admission.claim,
            on_disconnect: admission.on_disconnect,
            notes: request.notes.drain(..).chain(admission.notes).collect(),
            limits: admission.limits,
            running,
            background: None,
            deferral: None,
            place: Some(permit),
        };
        recording.metrics.chats_started.inc();
        recording.metrics.chats_open.inc();
        let started = Event::ChatStarted(Box::new(ChatStarted {
            chat_id: chat.id,
            operation: chat.operation,
            conversation_id,
            conversation_origin: origin,
            client_thread_id,
            user_id: chat.user.clone(),
            key_id: chat.key_id,
            project_id: chat.project_id,
            gateway: recording.instance.clone(),
            started_at: chat.started_at,
            dialect: request.dialect,
            stream: request.stream,
            model: chat.model.clone(),
            temperature: request.temperature,
            parameters: std::mem::take(&mut request.parameters),
            messages: Some(std::mem::take(&mut request.messages)).filter(|messages| messages.get() != "null"),
            new_messages: NewMessage::with_ids(std::mem::take(&mut request.new_messages), chat.id),
            assistant_message_id: chat.operation.answers_with_message().then(|| chat.id.assistant_message()),
            caller_metadata: admission.caller_metadata,
            recording: chat.mode,
            traceparent: chat.traceparent(),
            restored: None,
        }));
        (chat, recording.record_start(started))
    }

    /// Discards a chat whose start the journal refused. No end is recorded, and the idempotency key is released.
    pub fn cancel_unstarted(mut self) {
        self.is_ended = true;
        if let Some(claim) = self.claim.take() {
            claim.release();
        }
        self.recording.metrics.chats_open.dec();
        self.recording.metrics.chats_ended.get_or_create(&OutcomeLabels { outcome: "refused" }).inc();
    }

    /// Returns the span of the chat, for its events.
    pub fn traceparent(&self) -> Option<TraceContext> {
        self.trace.map(|trace| trace.context)
    }

    /// Returns true if recording is on. Answers are then parsed, and their ends are held back until they are durable.
    pub fn is_recorded(&self) -> bool {
        self.recording.journal.is_enabled()
    }

    /// Returns the maximum duration of a drain, and the permit for the drain. `None` if the policy says cancel, recording
    /// is off, the gateway is being cut off, or the maximum number of drains is running.
    pub fn acquire_drain(&self) -> Option<(Duration, OwnedSemaphorePermit)> {
        match self.on_disconnect {
            OnDisconnect::Drain(bound) if self.is_recorded() && !self.recording.is_stopping.load(Ordering::Relaxed) => {
                self.recording.drains.try_acquire().map(|permit| (bound, permit))
            }
            OnDisconnect::Drain(_) | OnDisconnect::Cancel => None,
        }
    }

    /// Returns the headers that tell the client its limits; none if no limit applies.
    pub fn limit_headers(&self) -> Option<LimitHeaders> {
        self.limits.as_ref().and_then(|limits| LimitHeaders::new(&limits.limits))
    }

    /// Returns the entry among the running chats. `None` for a call that is no chat.
    pub fn running(&self) -> Option<&Arc<RunningChat>> {
        self.running.as_ref().map(Registration::chat)
    }

    /// Returns the set of drains of this gateway.
    pub fn drains(&self) -> &Drains {
        &self.recording.drains
    }

    /// Sets the name of the upstream that answered.
    pub fn set_upstream(&mut self, upstream: &str) {
        self.upstream = Some(upstream.to_owned());
    }

    /// Records the time to the first token as soon as the transcript has content, and the id of an answer that is made in the background.
    pub fn observe_answer(&mut self, transcript: &Transcript) {
        self.note_background(transcript);
        if self.first_token_ms.is_none() && transcript.has_any_content() {
            self.first_token_ms = Some(millis(self.admitted_at.elapsed()));
            self.recording.metrics.first_token_seconds.observe(self.admitted_at.elapsed().as_secs_f64());
        }
    }

    /// Draws what has arrived on the budgets that end answers. Returns true if one of them is used up: the answer is to be ended.
    pub fn is_over_budget(&mut self, transcript: &Transcript) -> bool {
        let Some(meter) = self.limits.as_mut().and_then(Admission::meter) else { return false };
        match meter.draw(transcript.arrived_tokens()) {
            Drawn::Enough => false,
            Drawn::UsedUp => true,
            Drawn::Asking(asking) => {
                budget_draw::ask(asking, self.running().cloned());
                false
            }
        }
    }

    /// Ends the chat and hands the terminal event to the journal. If the upstream reported no usage, a background task
    /// estimates the usage first.
    pub fn end(&mut self, ending: ChatEnding, mut transcript: Transcript, usage: Usage) -> EndedChat {
        self.is_ended = true;
        self.notes.drain(..).for_each(|note| transcript.note(note));
        if let (DialectName::OpenaiResponses, Some(response), Some(conversation)) =
            (self.dialect, &transcript.response_id, self.conversation_id)
        {
            self.recording.responses.remember(&self.user, response, conversation);
        }
        let has_content = transcript.has_any_content();
        let budgets = self.settle_limits(&usage, has_content);
        let ending = ending.resolve(&mut transcript, self.recording.is_stopping.load(Ordering::Relaxed));
        let outcome = match &ending {
            ChatEnding::Failed(stage, _) => stage.label(),
            ChatEnding::Completed | ChatEnding::ClientGone | ChatEnding::Early(_) => "completed",
        };
        let duration_ms = millis(self.admitted_at.elapsed());
        let log_line = ChatLogLine {
            chat: self.id,
            conversation: self.conversation_id,
            origin: self.origin,
            user: self.user.clone(),
            model: self.model.clone(),
            outcome,
            status: self.attempts.last().and_then(|attempt| attempt.status),
            first_token_ms: self.first_token_ms,
            duration_ms,
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            attempts: self.attempts.len(),
            span: CallSpan::ending(&self.recording.tracer, self.trace, self.operation, self.started_at),
        };
        self.count(outcome, &usage);
        match self.claim.take() {
            Some(claim) if outcome == "completed" || has_content => claim.keep(),
            Some(claim) => claim.release(),
            None => {}
        }
        let message = has_content.then(|| transcript.message(self.id.assistant_message()));
        self.media = self.media.map(|media| transcript.media.with_input_of(&media));
        let is_text = matches!(self.operation, Operation::Chat | Operation::TextCompletion);
        let is_unknown = usage.source == UsageSource::Unknown;
        let may_estimate = is_text && self.is_recorded() && !self.recording.is_stopping.load(Ordering::Relaxed);
        let runtime = tokio::runtime::Handle::try_current().ok();
        let runtime = runtime.filter(|_| is_unknown && has_content && may_estimate);
        // Without an estimate, counted input alone is no usage.
        let is_incomplete = is_unknown && runtime.is_none();
        let usage = if is_incomplete { Usage { raw: usage.raw, ..Usage::default() } } else { usage };
        let event = self.terminal_event(ending, message, transcript, usage, duration_ms);
        let end = match runtime {
            Some(runtime) => {
                let prompt = std::mem::take(&mut self.prompt);
                let estimating = estimate_and_record(Arc::clone(&self.recording), prompt, event, budgets);
                PendingEnd::Estimating(runtime.spawn(estimating))
            }
            None => PendingEnd::Recorded(self.recording.record_end(event, budgets)),
        };
        EndedChat { pending: PendingRecord { start: self.started.take(), end }, log_line }
    }

    /// Gives back what the call has taken of its limits, before the client sees the end: the next call of the client finds a free place.
    /// Returns the money that the call has reserved, which is settled when the event of the end has its cost.
    fn settle_limits(&mut self, usage: &Usage, has_content: bool) -> Option<BudgetHold> {
        let limits = self.limits.take()?;
        let used = match (usage.prompt_tokens, usage.completion_tokens) {
            (_, None) if has_content => None,
            (prompt, answer) => Some((prompt.unwrap_or(0), answer.unwrap_or(0))),
        };
        limits.settle(used)
    }

    fn count(&self, outcome: &'static str, usage: &Usage) {
        let metrics = &self.recording.metrics;
        metrics.chats_ended.get_or_create(&OutcomeLabels { outcome }).inc();
        metrics.chat_seconds.observe(self.admitted_at.elapsed().as_secs_f64());
        for (direction, tokens) in [("prompt", usage.prompt_tokens), ("completion", usage.completion_tokens)] {
            if let Some(tokens) = tokens {
                metrics.tokens.get_or_create(&DirectionLabels { direction }).inc_by(tokens);
            }
        }
    }
}

impl Drop for OpenChat {
    fn drop(&mut self) {
        if !self.is_ended {
            self.end(ChatEnding::ClientGone, Transcript::default(), Usage::default()).detach();
        }
    }
}
