//! The request of a chat: parsed on its way in, and written for one upstream on its way out.

use bytes::Bytes;
use shared::event::DialectName;

use crate::json::edit;
use crate::request::ui_message::{self, UiRequest};
use crate::request::{ApiSurface, ChatRequest, InvalidRequest, gemini};
use crate::routing::RouteUpstream;
use crate::upstream::dispatch::UsageOption;
use crate::upstream::registry::RoutingSnapshot;

/// Parses the request. On the frontend route, the body may also have the AI SDK's format, and a request without a model
/// gets the default model.
pub(super) fn parse(
    body: &Bytes,
    surface: ApiSurface,
    snapshot: &RoutingSnapshot,
) -> Result<(ChatRequest, Option<UiRequest>), InvalidRequest> {
    let ui = if surface == ApiSurface::Frontend { ui_message::parse(body)? } else { None };
    let body = ui.as_ref().map_or(body, |ui| &ui.body);
    let mut request = match (ChatRequest::parse(body, surface), &snapshot.table.default_model) {
        (Err(error), Some(model))
            if surface == ApiSurface::Frontend && error.param == Some("model") && !edit::has_member(body, "model") =>
        {
            ChatRequest::parse(&edit::with_member(body, "model", &model.as_str().into()), surface)?
        }
        (parsed, _) => parsed?,
    };
    if let Some(ui) = &ui {
        request.thread_id = ui.thread_id.clone().or(request.thread_id);
        if ui.is_regeneration {
            request.new_messages.clear();
        }
    }
    Ok((request, ui))
}

/// Returns the body for one upstream: with or without the usage option, and with the upstream's own name for the model.
pub(super) fn upstream_body(request: &ChatRequest, usage_option: UsageOption, upstream: &RouteUpstream) -> Bytes {
    let body = match usage_option {
        UsageOption::Added => request.upstream_body.clone(),
        UsageOption::NotAdded | UsageOption::Probed => request.body_without_usage_option(),
    };
    if request.dialect == DialectName::GoogleGemini {
        // The path names the model.
        return gemini::without_model(&body);
    }
    match &upstream.model {
        Some(model) => edit::with_member(&body, "model", &model.as_str().into()),
        None => body,
    }
}
