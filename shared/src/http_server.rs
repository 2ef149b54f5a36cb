//! An HTTP/1.1 server for health checks, metrics and the recorder's API: every connection, request head, request body and
//! write has a bound.
//!
//! The gateway serves chats with a loop of its own, which accepts connections and bounds writes as this server does.

pub mod client_stream;
mod request_body;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware::AddExtension;
use axum::{Extension, Router, extract::ConnectInfo};
use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tower::Layer as _;

use client_stream::{ClientStream, ResetMark};
use request_body::LimitBodyTime;

/// The pause after a failure to accept a connection, most likely because the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bounds of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// The maximum number of connections at once. Further clients wait in the listener's queue.
    pub connections: usize,
    /// The maximum time for a request head, counted from the connection's opening or from the previous answer: also the time
    /// for which an unused connection stays open.
    pub head_timeout: Duration,
    /// The maximum time for a request body, counted from the head.
    pub body_timeout: Duration,
    /// The maximum time for which a client may accept no bytes of an answer.
    pub write_timeout: Duration,
    /// The time that running requests have after `stop`.
    pub shutdown_timeout: Duration,
}

impl ServerLimits {
    /// The bounds of a listener for health checks and metrics: short requests of a few clients.
    pub const HEALTH: Self = Self {
        connections: 64,
        head_timeout: Duration::from_secs(30),
        body_timeout: Duration::from_secs(10),
        write_timeout: Duration::from_secs(30),
        shutdown_timeout: Duration::from_secs(1),
    };
}

/// Serves `router` until `stop` resolves, then refuses new connections and waits for running requests, at most for the
/// shutdown timeout. Handlers find the client's address as [`ConnectInfo`].
pub async fn serve(listener: TcpListener, router: Router, limits: ServerLimits, stop: impl Future<Output = ()>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head_timeout).max_buf_size(64 << 10);
    let permits = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let (stream, peer, permit) = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            Some(_) = connections.join_next() => continue,
            () = &mut stop => break,
        };
        let service: AddExtension<_, _> = Extension(ConnectInfo::<SocketAddr>(peer)).layer(router.clone());
        let service = LimitBodyTime::new(service, limits.body_timeout);
        let stream = ClientStream::new(stream, limits.write_timeout, ResetMark::default());
        let connection = graceful.watch(http.serve_connection(stream, TowerToHyperService::new(service)));
        connections.spawn(async move {
            // Errors of a connection concern the client alone: a broken request, a client that left, a timeout.
            let _ = connection.await;
            drop(permit);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(limits.shutdown_timeout, graceful.shutdown()).await;
    connections.shutdown().await;
}

/// Accepts the next connection as soon as a permit is free. Until then clients wait in the listener's queue.
pub async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let mut is_failure_logged = false;
    loop {
        let Ok(permit) = Arc::clone(permits).acquire_owned().await else { return std::future::pending().await };
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Nagle's algorithm and delayed acknowledgements together would hold back a live event or a token for 40 ms.
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
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
