//! Routes that create conversations ahead of the first chat, rename, archive and delete conversations.
//!
//! Every request becomes an event, which is durable before the response. A rename, archival or deletion then waits a short
//! time until readers see the change. After 200 or 204, every read from any instance shows the change; 202 means that the
//! change is recorded but may not be visible yet.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shared::event::{ConversationChanged, ConversationCreated, ConversationDeleted, Event, RecordingMode};
use shared::id::{ChangeId, ConversationId, UserId};
use time::OffsetDateTime;

use crate::auth::Caller;
use crate::error::ApiError;
use crate::json::lenient::Object;
use crate::recording_mode::{RECORDING, response_header};
use crate::request::InvalidRequest;
use crate::server::gateway::Gateway;

/// The maximum length of a title, in characters.
const MAX_TITLE: usize = 200;

#[derive(Default, Deserialize)]
#[serde(default)]
struct NewConversation {
    title: Option<String>,
    model: Option<String>,
    temperature: Option<f64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CreatedConversation {
    id: ConversationId,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

#[derive(Deserialize)]
struct ConversationPatch {
    title: Option<String>,
    archived: Option<bool>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PendingChange {
    id: ConversationId,
    change_id: Option<ChangeId>,
    pending: bool,
}

/// Creates a conversation. Responds with 201 and the new id when the event is durable.
pub(super) async fn create(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, ApiError> {
    gateway.create_conversation(request).await.map_err(|error| gateway.count_refusal(error))
}

/// Renames a conversation, archives a conversation, or takes a conversation out of the archive.
pub(super) async fn change(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    gateway.change_conversation(&id, request).await.map_err(|error| gateway.count_refusal(error))
}

/// Deletes a conversation of the caller.
pub(super) async fn delete(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    gateway.delete_conversation(&id, request).await.map_err(|error| gateway.count_refusal(error))
}

impl Gateway {
    async fn change_conversation(&self, id: &str, request: Request) -> Result<Response, ApiError> {
        let (caller, headers, body) = self.read_json(request).await?;
        let conversation_id = self.verify_conversation(&caller, id)?;
        let ConversationPatch { title, archived } = parse_patch(&body)?;
        if title.is_some() && !self.recording_mode(&caller, &headers)?.is_full() {
            return Err(ApiError::title_not_recorded());
        }
        let change_id = ChangeId::mint();
        let user = caller.user.clone();
        let seen = format!("changeId={change_id}&title={}&archived={}", title.is_some(), archived.is_some());
        self.record(&Event::ConversationChanged(Box::new(ConversationChanged {
            change_id,
            conversation_id,
            user_id: caller.user,
            changed_at: shared::event::now(),
            title,
            archived,
            restored: None,
        })))
        .await?;
        Ok(self.wait_until_visible(&user, conversation_id, Some(change_id), &seen, &headers).await)
    }

    async fn delete_conversation(&self, id: &str, request: Request) -> Result<Response, ApiError> {
        let (head, _) = request.into_parts();
        let caller = self.authenticate(&head.method, &head.headers)?;
        let conversation_id = self.verify_conversation(&caller, id)?;
        let user = caller.user.clone();
        self.record(&Event::ConversationDeleted(Box::new(ConversationDeleted {
            conversation_id,
            user_id: caller.user,
            deleted_at: shared::event::now(),
            restored: None,
        })))
        .await?;
        Ok(self.wait_until_visible(&user, conversation_id, None, "", &head.headers).await)
    }

    /// Returns the recording mode of a request that is no call of a model, so no route has a say. A title is text.
    fn recording_mode(&self, caller: &Caller, headers: &HeaderMap) -> Result<RecordingMode, InvalidRequest> {
        self.chats.recording.mode_of(caller, RecordingMode::Full, headers)
    }

    fn verify_conversation(&self, caller: &Caller, id: &str) -> Result<ConversationId, ApiError> {
        self.chats.conversations.keys.verify(&caller.user, id).ok_or_else(ApiError::no_such_conversation)
    }

    async fn record(&self, event: &Event) -> Result<(), ApiError> {
        let recording = &self.chats.recording;
        if !recording.journal.is_available() {
            return Err(ApiError::journal_unavailable());
        }
        self.chats.wait_until_durable(recording.journal.record(event)).await
    }

    async fn wait_until_visible(
        &self,
        user: &UserId,
        id: ConversationId,
        change_id: Option<ChangeId>,
        change: &str,
        headers: &HeaderMap,
    ) -> Response {
        let seen = match &self.recorder_api {
            Some(recorder_api) => recorder_api.wait_until_visible(user, id, change, headers).await,
            None => None,
        };
        let pending = || (StatusCode::ACCEPTED, Json(PendingChange { id, change_id, pending: true })).into_response();
        seen.unwrap_or_else(pending)
    }

    async fn create_conversation(&self, request: Request) -> Result<Response, ApiError> {
        let (caller, headers, body) = self.read_json(request).await?;
        let new = parse_new_conversation(&body)?;
        let mode = self.recording_mode(&caller, &headers)?;
        let recording = &self.chats.recording;
        if !recording.journal.is_available() {
            return Err(ApiError::journal_unavailable());
        }
        self.chats.user_rates.count_conversation(&caller.user)?;
        let created_at = shared::event::now();
        let id = self.chats.conversations.keys.mint(&caller.user, created_at);
        let recorded = recording.journal.record(&Event::ConversationCreated(Box::new(ConversationCreated {
            conversation_id: id,
            user_id: caller.user,
            created_at,
            title: new.title.filter(|_| mode.is_full()),
            model: new.model,
            temperature: new.temperature.filter(|_| mode != RecordingMode::None),
            restored: None,
        })));
        self.chats.wait_until_durable(recorded).await?;
        let mut response = (StatusCode::CREATED, Json(CreatedConversation { id, created_at })).into_response();
        response.headers_mut().extend(response_header(mode).map(|mode| (RECORDING, mode)));
        Ok(response)
    }
}

/// Parses a body that has to be an object: a list of the members' values, which serde takes for one, is none.
fn parse_object<T: DeserializeOwned>(body: &[u8], members: &str) -> Result<T, InvalidRequest> {
    let invalid =
        |why: String| InvalidRequest { message: format!("expected an object with {members}{why}"), param: None };
    match serde_json::from_slice(body) {
        Ok(Object(Some(object))) => Ok(object),
        Ok(Object(None)) => Err(invalid(String::new())),
        Err(error) => Err(invalid(format!(": {error}"))),
    }
}

fn parse_patch(body: &[u8]) -> Result<ConversationPatch, InvalidRequest> {
    let invalid = |message: String, param| InvalidRequest { message, param };
    let change: ConversationPatch = parse_object(body, "title, archived, or both")?;
    if change.title.is_none() && change.archived.is_none() {
        return Err(invalid("expected title, archived, or both".into(), None));
    }
    let is_blank = |title: &str| title.chars().all(|c| c.is_whitespace() || c.is_control());
    if change.title.as_ref().is_some_and(|title| is_blank(title) || title.chars().count() > MAX_TITLE) {
        return Err(invalid(
            format!("title: expected 1 to {MAX_TITLE} characters, not only blank ones"),
            Some("title"),
        ));
    }
    Ok(change)
}

fn parse_new_conversation(body: &[u8]) -> Result<NewConversation, InvalidRequest> {
    let invalid = |message: String, param| InvalidRequest { message, param };
    if body.trim_ascii().is_empty() {
        return Ok(NewConversation::default());
    }
    let new: NewConversation = parse_object(body, "title, model and temperature, all optional")?;
    if new.title.as_ref().is_some_and(|title| title.chars().count() > MAX_TITLE) {
        return Err(invalid(format!("title: expected at most {MAX_TITLE} characters"), Some("title")));
    }
    if new.model.as_ref().is_some_and(|model| model.is_empty() || model.len() > 256) {
        return Err(invalid("model: expected a model name of 1 to 256 bytes".into(), Some("model")));
    }
    Ok(new)
}
