//! Answers of upstreams that pass unread: they repeat what is on the record already.

use std::future::poll_fn;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use futures_util::stream;
use tokio::time::timeout;

use crate::headers;
use crate::upstream::body::UpstreamBody;
use crate::upstream::dispatch::UpstreamResponse;

/// The answer as the upstream sends it, with the headers that clients may get.
pub fn passed_on(answered: UpstreamResponse) -> Response {
    let idle_timeout = answered.upstream.settings.idle_timeout;
    let (parts, body) = answered.response.into_parts();
    let mut response = Response::new(passing_body(body, idle_timeout));
    *response.status_mut() = parts.status;
    *response.headers_mut() = headers::for_client(parts.headers);
    response
}

/// The body of the upstream's answer, as it arrives. Breaks off if the upstream is silent for longer than `idle_timeout`.
fn passing_body(body: UpstreamBody, idle_timeout: Duration) -> Body {
    Body::from_stream(stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        let chunk = timeout(idle_timeout, poll_fn(|cx| body.poll_chunk(cx))).await;
        match chunk {
            Ok(None) => None,
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(body))),
            Ok(Some(Err(error))) => Some((Err(std::io::Error::other(error)), None)),
            Err(_) => Some((Err(std::io::Error::other("the upstream is silent")), None)),
        }
    }))
}
