//! The HTTP server: accepts connections, and stops in three steps. New connections are refused first, then running chats
//! finish, then the connections that remain are cut off.

mod connection;

pub mod gateway;

mod body;
mod body_decoding;
pub mod body_memory;
mod cors;
pub mod pages;
pub mod routes;
pub mod stop_mark;

use std::sync::Arc;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use hyper_util::server::graceful::GracefulShutdown;
use shared::http_server::{self, tls::Tls};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::limits::Limits;
use crate::metrics::Metrics;
use connection::Encryption;
use stop_mark::StopMark;

/// The protocols that the server offers in a TLS handshake, the preferred one first.
pub const PROTOCOLS: &[&[u8]] = &[b"http/1.1"];

/// Serves until `stop` resolves, over TLS unless `tls` is `None`; while `stop_mark` is set, every answer closes its connection. Then waits for running
/// requests, at most until the shutdown deadline. Calls `on_deadline` before connections are cut off. Returns the number of
/// connections that were cut off.
pub async fn serve(
    (listener, tls): (TcpListener, Option<Tls>),
    router: Router,
    limits: &Limits,
    metrics: &Metrics,
    stop_mark: &StopMark,
    stop: impl Future<Output = ()>,
    on_deadline: impl FnOnce(),
) -> usize {
    let mut http = http1::Builder::new();
    // A read buffer grows to at most 64 KiB (hyper's default is 408 KiB): heads are small, and each open stream has a
    // buffer.
    http.timer(TokioTimer::new()).header_read_timeout(limits.read_timeout).max_buf_size(64 << 10);
    // Small pieces are copied into one buffer and written from there: a vectored write of three parts per piece costs more.
    http.writev(false);
    let permits = Arc::new(Semaphore::new(limits.max_connections));
    let encryption = if tls.is_some() { Encryption::Tls } else { Encryption::None };
    let graceful = GracefulShutdown::new();
    let handshakes = CancellationToken::new();
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let (stream, peer, permit) = tokio::select! {
            accepted = http_server::accept(&listener, &permits) => accepted,
            Some(_) = connections.join_next() => {
                metrics.connections.set(i64::try_from(connections.len()).unwrap_or(i64::MAX));
                continue;
            }
            () = &mut stop => break,
        };
        let (connection_io, service, reset_mark) =
            connection::open(stream, peer, &router, (stop_mark, encryption), limits.idle_timeout);
        let (http, tls, watcher, handshakes) = (http.clone(), tls.clone(), graceful.watcher(), handshakes.clone());
        let read_timeout = limits.read_timeout;
        // Set before the connection is served, so that no answer arrives before its connection is counted.
        metrics.connections.set(i64::try_from(connections.len() + 1).unwrap_or(i64::MAX));
        connections.spawn(async move {
            let opened = http_server::open(tls.as_ref(), connection_io, read_timeout);
            if let Some(Some(io)) = handshakes.run_until_cancelled(opened).await {
                // Other errors of the connection are ignored, because the outcome of each chat is recorded elsewhere.
                let mut connection = std::pin::pin!(watcher.watch(http.serve_connection(io, service)));
                if let Err(error) = connection.as_mut().await {
                    connection::note_error(&reset_mark, &error);
                }
            }
            drop(permit);
        });
    }
    drop(listener);
    // A client whose handshake is not over has asked for nothing yet.
    handshakes.cancel();
    if tokio::time::timeout(limits.shutdown_deadline, graceful.shutdown()).await.is_ok() {
        return 0;
    }
    on_deadline();
    // Connections that have ended by themselves are not cut off.
    while connections.try_join_next().is_some() {}
    let cut_off = connections.len();
    connections.shutdown().await;
    cut_off
}
