//! Which pages of other origins may call, and what they may see of an answer.

use std::time::Duration;

use http::Method;
use http::header::{self, HeaderName, HeaderValue};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::headers::{CHAT_ID, CONVERSATION_ID, REQUEST_ID};

/// The layer that answers for it.
pub(super) fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let exposed: [HeaderName; 10] = [
        header::ETAG,
        CHAT_ID,
        CONVERSATION_ID,
        REQUEST_ID,
        header::RETRY_AFTER,
        HeaderName::from_static("retry-after-ms"),
        HeaderName::from_static("x-ratelimit-limit-requests"),
        HeaderName::from_static("x-ratelimit-remaining-requests"),
        HeaderName::from_static("x-ratelimit-remaining-tokens"),
        HeaderName::from_static("x-ratelimit-reset-tokens"),
    ];
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE, Method::OPTIONS])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed)
        .max_age(Duration::from_secs(3600));
    if origins.is_empty() {
        // Any page may call, but only with a token that it holds itself: cookies are not allowed to come along.
        layer.allow_origin(AllowOrigin::any())
    } else {
        layer.allow_origin(AllowOrigin::list(origins.iter().cloned())).allow_credentials(true)
    }
}
