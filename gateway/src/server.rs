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

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::limits::Limits;
use crate::metrics::Metrics;
use stop_mark::StopMark;

/// Serves until `stop` resolves; while `stop_mark` is set, every answer closes its connection. Then waits for running requests, at most until the shutdown deadline. Calls `on_deadline`
/// before connections are cut off. Returns the number of connections that were cut off.
pub async fn serve(
    listener: TcpListener,
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
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let (stream, peer, permit) = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            Some(_) = connections.join_next() => {
                metrics.connections.set(i64::try_from(connections.len()).unwrap_or(i64::MAX));
                continue;
            }
            () = &mut stop => break,
        };
        let (connection_io, service, reset_mark) =
            connection::open(stream, peer, &router, stop_mark, limits.idle_timeout);
        let connection = graceful.watch(http.serve_connection(connection_io, service));
        // Set before the connection is served, so that a request for the metrics on this connection sees the connection.
        metrics.connections.set(i64::try_from(connections.len() + 1).unwrap_or(i64::MAX));
        connections.spawn(async move {
            // Other errors of the connection are ignored, because the outcome of each chat is recorded elsewhere.
            let mut connection = std::pin::pin!(connection);
            if let Err(error) = connection.as_mut().await {
                reset_mark.note_error(&error);
            }
            drop(permit);
        });
    }
    drop(listener);
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

/// Accepts the next connection as soon as a permit is free. Until then clients wait in the listener's queue.
async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let mut is_failure_logged = false;
    loop {
        let Ok(permit) = Arc::clone(permits).acquire_owned().await else { return std::future::pending().await };
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Nagle's algorithm and delayed acknowledgements together hold a token back for 40 ms.
                let _ = stream.set_nodelay(true);
                if is_failure_logged {
                    tracing::info!("connections are accepted again");
                }
                return (stream, peer, permit);
            }
            Err(error) => {
                // One log line for any number of attempts.
                if !std::mem::replace(&mut is_failure_logged, true) {
                    tracing::error!(%error, "cannot accept connections: another attempt every 100 ms");
                }
                // Most likely the process is out of file descriptors; an immediate retry would spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
