//! Cross-origin requests (CORS): the origins whose pages may call, and the response headers that pages may read.

use std::time::Duration;

use http::Method;
use http::header::{self, HeaderName, HeaderValue};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::headers::{CHAT_ID, CONVERSATION_ID, REQUEST_ID};
use crate::limit_headers::{RATE_LIMIT, RATE_LIMIT_POLICY};
use crate::recording_mode::RECORDING;

/// Builds the CORS layer for the configured origins. Without origins, every page may call, but without cookies.
pub(super) fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let exposed: [HeaderName; 13] = [
        header::ETAG,
        CHAT_ID,
        CONVERSATION_ID,
        REQUEST_ID,
        RECORDING,
        header::RETRY_AFTER,
        HeaderName::from_static("retry-after-ms"),
        RATE_LIMIT,
        RATE_LIMIT_POLICY,
        HeaderName::from_static("x-ratelimit-limit-requests"),
        HeaderName::from_static("x-ratelimit-remaining-requests"),
        HeaderName::from_static("x-ratelimit-remaining-tokens"),
        HeaderName::from_static("x-ratelimit-reset-tokens"),
    ];
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed)
        .max_age(Duration::from_secs(3600));
    if origins.is_empty() {
        // Any page may call with a token of its own. Browsers send no cookies, because credentials are not allowed.
        layer.allow_origin(AllowOrigin::any())
    } else {
        layer.allow_origin(AllowOrigin::list(origins.iter().cloned())).allow_credentials(true)
    }
}
