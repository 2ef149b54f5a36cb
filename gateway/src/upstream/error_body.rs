//! The redaction of an error response, before the client or the record sees any of it.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response};
use tokio::time::timeout;

use crate::response::content_encoding::{self, ContentEncoding};
use crate::response::redaction::Redactor;
use crate::upstream::body::UpstreamBody;

/// The maximum size of an error body that is searched, in bytes. The rest of a longer body passes as it came.
const MAX_ERROR_BYTES: usize = 256 << 10;
/// The maximum time for an error body to arrive. After that the bytes that have arrived are searched.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The error in place of one that cannot be searched. The shape has the members of all dialects.
const UNREADABLE: &str = r#"{"type":"error","error":{"message":"the upstream's error is compressed in a way that the gateway cannot read, so it is not passed on","type":"upstream_error","param":null,"code":"upstream_error_unreadable"}}"#;

/// Replaces the gateway's own secrets in the body of an error response. A body without secrets stays as it came, byte for
/// byte; a compressed body with secrets is passed on without compression. A compressed body that cannot be searched as a whole may hide a
/// secret, and is replaced.
pub(super) async fn redact_error(response: &mut Response<UpstreamBody>, redactor: &Redactor) {
    let _ = timeout(READ_TIMEOUT, response.body_mut().read_ahead(MAX_ERROR_BYTES)).await;
    let encoding = ContentEncoding::from_headers(response.headers());
    let sent = response.body().read_ahead_bytes();
    let is_compressed = encoding != ContentEncoding::Identity && !sent.is_empty();
    let decoded = content_encoding::decode_body(encoding, sent);
    if is_compressed && (decoded.is_empty() || !response.body().is_read_to_end()) {
        response.headers_mut().remove(CONTENT_ENCODING);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(UNREADABLE.len()));
        response.body_mut().replace(Bytes::from_static(UNREADABLE.as_bytes()));
        return;
    }
    if let Some(redacted) = redactor.redact(&decoded) {
        // A length stays a length: a body without one would seem to end with the connection.
        if response.headers_mut().remove(CONTENT_LENGTH).is_some() && response.body().is_read_to_end() {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(redacted.len()));
        }
        response.body_mut().replace_read_ahead(redacted.into());
        response.headers_mut().remove(CONTENT_ENCODING);
    }
}
