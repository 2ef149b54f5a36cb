//! The reference proxy: a bare pass-through proxy of axum and reqwest, written in the usual way and not tuned.
//!
//! The proxy checks no token, parses no body and records no chat. Both sides have TCP_NODELAY; the allocator is the gateway's.

use anyhow::Context as _;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;

/// Hop-by-hop headers, which are not forwarded.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

#[derive(Clone)]
struct Passthrough {
    client: reqwest::Client,
    /// Scheme and authority of the upstream.
    upstream: String,
}

/// Forwards all requests to `upstream` (scheme and authority). Runs until the process ends.
pub async fn serve(listener: TcpListener, upstream: String) -> anyhow::Result<()> {
    // An error means that another part of this process has installed the provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().http1_only().tcp_nodelay(true).no_proxy().build().context("HTTP client")?;
    let listener = listener.tap_io(|stream| {
        // A closed connection is noticed at the next read.
        let _ = stream.set_nodelay(true);
    });
    let app = axum::Router::new().fallback(forward).with_state(Passthrough { client, upstream });
    axum::serve(listener, app).await.context("serve")
}

async fn forward(
    State(proxy): State<Passthrough>,
    method: Method,
    uri: Uri,
    mut headers: HeaderMap,
    body: Bytes,
) -> Response {
    headers.remove(header::HOST);
    strip_hop_by_hop(&mut headers);
    let url = format!("{}{uri}", proxy.upstream);
    match proxy.client.request(method, url).headers(headers).body(body).send().await {
        Ok(mut response) => {
            let mut headers = std::mem::take(response.headers_mut());
            strip_hop_by_hop(&mut headers);
            (response.status(), headers, Body::from_stream(response.bytes_stream())).into_response()
        }
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}
