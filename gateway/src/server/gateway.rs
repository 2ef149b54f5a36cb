//! The state that all routes share, and authentication, the first step of every route that acts for a user.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};
use shared::fair_share::FairShare;
use shared::telemetry::REFUSALS;

use crate::auth::{Authenticator, Caller, check_origin};
use crate::chat::ChatPipeline;
use crate::error::ApiError;
use crate::metrics::{Metrics, StatusLabels};
use crate::recorder_api::RecorderApi;
use crate::running::peers::Peers;
use crate::server::body_memory::BodyMemory;
use crate::server::stop_mark::StopMark;

/// The state that all routes share.
#[derive(Debug)]
pub struct Gateway {
    /// Verifies the session tokens of callers.
    pub auth: Arc<Authenticator>,
    /// The pipeline that serves chats.
    pub chats: Arc<ChatPipeline>,
    /// The account of the memory that request bodies hold.
    pub body_memory: Arc<BodyMemory>,
    /// The client of the recorder's API. `None` without `RECORDER_URL`.
    pub recorder_api: Option<RecorderApi>,
    /// The running chats of all gateways.
    pub peers: Arc<Peers>,
    /// The places of the clients that follow an answer.
    pub followers: Arc<FairShare>,
    /// The origins, besides the gateway's own, whose pages may send requests with cookies.
    pub cors_origins: Vec<HeaderValue>,
    /// The mark that is set when the gateway is told to stop.
    pub stop_mark: StopMark,
    /// The metrics of the gateway process.
    pub metrics: Arc<Metrics>,
}

impl Gateway {
    /// Counts a refused request by HTTP status, and writes a line, whose number is bounded. Returns the error unchanged.
    pub(super) fn count_refusal(&self, error: ApiError) -> ApiError {
        let status = error.status.as_u16();
        self.metrics.refused.get_or_create(&StatusLabels { status }).inc();
        // The message may repeat what the caller sent, so it stays out of the log.
        tracing::info!(target: REFUSALS, status, code = error.code(), "a request was refused");
        error
    }

    /// Checks the origin and the session token of a request, and returns the caller. Called before any other step; a
    /// request without a valid token goes no further.
    pub(super) fn authenticate(&self, method: &Method, headers: &HeaderMap) -> Result<Caller, ApiError> {
        check_origin(method, headers, &self.cors_origins).map_err(ApiError::cross_origin)?;
        Ok(self.auth.caller(headers)?)
    }
}
