//! An HTTP/1.1 server, with or without TLS, for health checks, metrics and the recorder's API: every connection, handshake,
//! request head, request body and write has a bound.
//!
//! The gateway serves chats with a loop of its own, which accepts connections and bounds writes as this server does.

pub mod client_stream;
mod request_body;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware::{AddExtension, map_request};
use axum::{Extension, Router, extract::ConnectInfo};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tower::Layer as _;

use client_stream::{ClientStream, ResetMark};
use request_body::LimitBodyTime;
use tls::Tls;

/// The pause after a failure to accept a connection, most likely because the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A client's connection, encrypted or not, as hyper reads and writes it.
pub type ClientIo = TokioIo<Either<ClientStream, Box<TlsStream<ClientStream>>>>;

/// The bounds of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// The maximum number of connections at once. Further clients wait in the listener's queue.
    pub connections: usize,
    /// The maximum time for a request head, counted from the connection's opening or from the previous answer: also the time
    /// for which an unused connection stays open, and the maximum time for a TLS handshake.
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
    serve_with(listener, None, router, limits, stop).await;
}

/// Serves like [`serve`], over TLS unless `tls` is `None`. Follows the files of the certificate meanwhile.
pub async fn serve_with(
    listener: TcpListener,
    tls: Option<Tls>,
    mut router: Router,
    limits: ServerLimits,
    stop: impl Future<Output = ()>,
) {
    if let Some(tls) = tls.clone() {
        router = router.layer(map_request(tls::mark_encrypted));
        tokio::select! {
            () = serve_connections(listener, Some(tls.clone()), router, limits, stop) => {}
            () = tls.follow_files() => {}
        }
    } else {
        serve_connections(listener, None, router, limits, stop).await;
    }
}

async fn serve_connections(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    limits: ServerLimits,
    stop: impl Future<Output = ()>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head_timeout).max_buf_size(64 << 10);
    let permits = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let handshakes = CancellationToken::new();
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
        let (http, tls, watcher, handshakes) = (http.clone(), tls.clone(), graceful.watcher(), handshakes.clone());
        connections.spawn(async move {
            let opened = handshakes.run_until_cancelled(open(tls.as_ref(), stream, limits.head_timeout)).await;
            if let Some(Some(io)) = opened {
                // Errors of a connection concern the client alone: a broken request, a client that left, a timeout.
                let _ = watcher.watch(http.serve_connection(io, TowerToHyperService::new(service))).await;
            }
            drop(permit);
        });
    }
    handshakes.cancel();
    drop(listener);
    let _ = tokio::time::timeout(limits.shutdown_timeout, graceful.shutdown()).await;
    connections.shutdown().await;
}

/// Opens a connection over TLS within the time for a handshake, or without TLS. `None` if the handshake fails or takes too
/// long; that concerns the client alone.
pub async fn open(tls: Option<&Tls>, stream: ClientStream, handshake_timeout: Duration) -> Option<ClientIo> {
    let Some(tls) = tls else { return Some(TokioIo::new(Either::Left(stream))) };
    // On the heap, because connections without TLS have no use for the large state of a handshake.
    let handshake = Box::pin(tls.accept(stream));
    match tokio::time::timeout(handshake_timeout, handshake).await {
        Ok(Ok(stream)) => Some(TokioIo::new(Either::Right(Box::new(stream)))),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!("a TLS handshake took too long");
            None
        }
    }
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
