//! HTTP/2 connections to one upstream. A connection carries many exchanges at once and cannot be driven by a single one, so
//! each connection has a task, which ends together with the connection.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::header::HOST;
use http::uri::{PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use crate::upstream::http1::Transport;
use crate::upstream::request_body::RequestBody;

/// The maximum number of exchanges on one connection, even if the upstream permits more: if a connection breaks, all of its
/// exchanges fail.
const MAX_STREAMS: u32 = 100;

/// The flow-control window of one exchange, in bytes: the part of an answer that may wait for a slow client. The window of
/// the connection is `MAX_STREAMS` times as large, so that no exchange can block another.
const FLOW_CONTROL_WINDOW: u32 = 128 << 10;

/// The interval between pings on a connection with open exchanges. A connection that leaves a ping unanswered for
/// `PING_TIMEOUT` is closed.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The open HTTP/2 connections of one upstream.
#[derive(Debug, Default)]
pub(super) struct Http2Pool(Mutex<Vec<Http2Connection>>);

/// An open HTTP/2 connection.
#[derive(Debug)]
struct Http2Connection {
    sender: http2::SendRequest<RequestBody>,
    /// Counts the open exchanges: one clone per exchange, in addition to this reference.
    permits: Arc<()>,
    unused_since: Instant,
}

/// A slot for one exchange on a shared connection.
#[derive(Debug)]
pub(super) struct StreamSlot {
    sender: http2::SendRequest<RequestBody>,
    permit: StreamPermit,
}

/// Held for the duration of an exchange. Dropping the permit frees the slot.
#[derive(Debug)]
pub(super) struct StreamPermit(#[expect(dead_code, reason = "only the reference count matters")] Arc<()>);

impl Http2Pool {
    /// Returns a slot on an open connection with spare capacity, or `None`.
    pub(super) fn open_slot(&self) -> Option<StreamSlot> {
        let mut open_connections = self.open_connections();
        open_connections.retain(|connection| !connection.sender.is_closed());
        open_connections.iter_mut().find(|connection| connection.has_capacity()).map(Http2Connection::open_slot)
    }

    /// Performs the HTTP/2 handshake over `transport`, adds the connection to the pool, and returns a slot on the
    /// connection.
    pub(super) async fn connect(&self, transport: Transport) -> Result<StreamSlot, hyper::Error> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).initial_stream_window_size(FLOW_CONTROL_WINDOW);
        builder.initial_connection_window_size(FLOW_CONTROL_WINDOW.saturating_mul(MAX_STREAMS));
        builder.keep_alive_interval(PING_INTERVAL).keep_alive_timeout(PING_TIMEOUT);
        let (sender, io) = builder.handshake(TokioIo::new(transport)).await?;
        // The result is dropped, because every exchange sees an error of the connection.
        tokio::spawn(async move { drop(io.await) });
        let mut connection = Http2Connection { sender, permits: Arc::new(()), unused_since: Instant::now() };
        let slot = connection.open_slot();
        self.open_connections().push(connection);
        Ok(slot)
    }

    /// Drops closed connections, and connections that have been without exchanges for longer than `max_unused`.
    pub(super) fn close_unused(&self, max_unused: Duration) {
        let mut open_connections = self.open_connections();
        for connection in open_connections.iter_mut().filter(|connection| connection.active_streams() > 0) {
            connection.unused_since = Instant::now();
        }
        open_connections
            .retain(|connection| !connection.sender.is_closed() && connection.unused_since.elapsed() <= max_unused);
    }

    fn open_connections(&self) -> MutexGuard<'_, Vec<Http2Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Http2Connection {
    fn active_streams(&self) -> usize {
        Arc::strong_count(&self.permits) - 1
    }

    fn has_capacity(&self) -> bool {
        self.active_streams() < MAX_STREAMS as usize
    }

    fn open_slot(&mut self) -> StreamSlot {
        self.unused_since = Instant::now();
        StreamSlot { sender: self.sender.clone(), permit: StreamPermit(Arc::clone(&self.permits)) }
    }
}

impl StreamSlot {
    /// Sends a request to `authority` and waits for the head of the response.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
        authority: &http::uri::Authority,
    ) -> Result<Response<Incoming>, hyper::Error> {
        self.sender.send_request(with_absolute_uri(request, authority)).await
    }

    /// Returns true if the connection is closed. A request that failed on a closed connection may never have reached the
    /// upstream.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Converts the slot into the permit that the response body holds.
    pub(super) fn into_permit(self) -> StreamPermit {
        self.permit
    }
}

/// Moves the host from the `Host` header into the URI, as HTTP/2 requires.
fn with_absolute_uri(mut request: Request<RequestBody>, authority: &http::uri::Authority) -> Request<RequestBody> {
    request.headers_mut().remove(HOST);
    let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let uri = Uri::builder().scheme(Scheme::HTTPS).authority(authority.clone()).path_and_query(path).build();
    *request.uri_mut() = uri.unwrap_or_default();
    request
}
