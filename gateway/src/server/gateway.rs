//! What the routes need, and what each begins with: who asks.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};

use crate::auth::{Authenticator, Caller, check_origin};
use crate::chat::ChatPipeline;
use crate::error::ApiError;
use crate::metrics::{Metrics, StatusLabels};
use crate::recorder_api::RecorderApi;

/// What the routes need.
#[derive(Debug)]
pub struct Gateway {
    /// Who asks.
    pub auth: Arc<Authenticator>,
    /// What serves chats.
    pub chats: Arc<ChatPipeline>,
    /// The way to the recorder's API, where there is one.
    pub recorder_api: Option<RecorderApi>,
    /// The origins whose pages may act with cookies, besides the gateway's own.
    pub cors_origins: Vec<HeaderValue>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Gateway {
    /// Counts a refusal.
    pub(super) fn count_refusal(&self, error: ApiError) -> ApiError {
        self.metrics.refused.get_or_create(&StatusLabels { status: error.status.as_u16() }).inc();
        error
    }

    /// Who asks. Nothing else happens before this, and nothing at all without it.
    pub(super) fn authenticate(&self, method: &Method, headers: &HeaderMap) -> Result<Caller, ApiError> {
        check_origin(method, headers, &self.cors_origins).map_err(ApiError::cross_origin)?;
        Ok(self.auth.caller(headers)?)
    }
}
