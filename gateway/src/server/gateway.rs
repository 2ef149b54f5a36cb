//! What the routes need, and what each begins with: who asks.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};

use crate::auth::{Authenticator, Caller, same_origin};
use crate::chat::Chats;
use crate::error::ApiError;
use crate::metrics::{Metrics, Status};
use crate::recorder_api::Reads;

/// What the routes need.
#[derive(Debug)]
pub struct Gateway {
    /// Who asks.
    pub auth: Arc<Authenticator>,
    /// What serves chats.
    pub chats: Arc<Chats>,
    /// The way to the recorder's API, where there is one.
    pub reads: Option<Reads>,
    /// The origins whose pages may act with cookies, besides the gateway's own.
    pub cors_origins: Vec<HeaderValue>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Gateway {
    /// Counts a refusal.
    pub(super) fn refuse(&self, error: ApiError) -> ApiError {
        self.metrics.refused.get_or_create(&Status { status: error.status.as_u16() }).inc();
        error
    }

    /// Who asks. Nothing else happens before this, and nothing at all without it.
    pub(super) fn prove(&self, method: &Method, headers: &HeaderMap) -> Result<Caller, ApiError> {
        same_origin(method, headers, &self.cors_origins).map_err(ApiError::cross_origin)?;
        Ok(self.auth.caller(headers)?)
    }
}
