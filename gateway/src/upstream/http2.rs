//! HTTP/2 connections to one upstream. Each carries many exchanges at once, so it cannot be driven by one of them: it has a
//! task of its own, which ends with it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::HOST;
use http::uri::{PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use crate::upstream::http1::Transport;

/// How many exchanges one connection carries at most, even where the upstream would allow more: what it loses, all of them lose.
const MAX_STREAMS: u32 = 100;

/// How much of an answer may wait for a client that reads slowly. All of a connection's exchanges together may have as much,
/// so that none of them can stop another.
const FLOW_CONTROL_WINDOW: u32 = 128 << 10;

/// How often a connection with exchanges on it is asked whether it is still there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The open connections.
#[derive(Debug, Default)]
pub(super) struct Http2Pool(Mutex<Vec<Http2Connection>>);

/// One connection.
#[derive(Debug)]
struct Http2Connection {
    sender: http2::SendRequest<Full<Bytes>>,
    /// One for each exchange on it, and this one.
    permits: Arc<()>,
    unused_since: Instant,
}

/// A place on a connection, for one exchange.
#[derive(Debug)]
pub(super) struct StreamSlot {
    sender: http2::SendRequest<Full<Bytes>>,
    permit: StreamPermit,
}

/// Held as long as the exchange lasts.
#[derive(Debug)]
pub(super) struct StreamPermit(#[expect(dead_code, reason = "its being held is what counts")] Arc<()>);

impl Http2Pool {
    /// A place on a connection that is open.
    pub(super) fn open_slot(&self) -> Option<StreamSlot> {
        let mut open_connections = self.open_connections();
        open_connections.retain(|connection| !connection.sender.is_closed());
        open_connections.iter_mut().find(|connection| connection.has_capacity()).map(Http2Connection::open_slot)
    }

    /// A place on a new connection over this transport.
    pub(super) async fn connect(&self, transport: Transport) -> Result<StreamSlot, hyper::Error> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).initial_stream_window_size(FLOW_CONTROL_WINDOW);
        builder.initial_connection_window_size(FLOW_CONTROL_WINDOW.saturating_mul(MAX_STREAMS));
        builder.keep_alive_interval(PING_INTERVAL).keep_alive_timeout(PING_TIMEOUT);
        let (sender, io) = builder.handshake(TokioIo::new(transport)).await?;
        // How it ends, each exchange on it learns for itself.
        tokio::spawn(async move { drop(io.await) });
        let mut connection = Http2Connection { sender, permits: Arc::new(()), unused_since: Instant::now() };
        let slot = connection.open_slot();
        self.open_connections().push(connection);
        Ok(slot)
    }

    /// Lets go of connections that have been unused for this long, and of those that are closed.
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
    /// Sends a request to this host, and waits for the head of the response.
    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
        authority: &http::uri::Authority,
    ) -> Result<Response<Incoming>, hyper::Error> {
        self.sender.send_request(with_absolute_uri(request, authority)).await
    }

    /// Whether the connection is gone: then a request that failed on it may never have got there.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// What the exchange holds on to.
    pub(super) fn into_permit(self) -> StreamPermit {
        self.permit
    }
}

/// In HTTP/2 the host stands in the address.
fn with_absolute_uri(mut request: Request<Full<Bytes>>, authority: &http::uri::Authority) -> Request<Full<Bytes>> {
    request.headers_mut().remove(HOST);
    let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let uri = Uri::builder().scheme(Scheme::HTTPS).authority(authority.clone()).path_and_query(path).build();
    *request.uri_mut() = uri.unwrap_or_default();
    request
}
