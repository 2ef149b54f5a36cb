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

use crate::upstream::connection::Transport;

/// How many exchanges one connection carries at most, even where the upstream would allow more: what it loses, all of them lose.
const MAX_EXCHANGES: u32 = 100;

/// How much of an answer may wait for a client that reads slowly. All of a connection's exchanges together may have as much,
/// so that none of them can stop another.
const WINDOW: u32 = 128 << 10;

/// How often a connection with exchanges on it is asked whether it is still there, and how long it may take to say so.
const ASK_EVERY: Duration = Duration::from_secs(20);
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// The open connections.
#[derive(Debug, Default)]
pub(super) struct Multiplexed(Mutex<Vec<Shared>>);

/// One connection.
#[derive(Debug)]
struct Shared {
    sender: http2::SendRequest<Full<Bytes>>,
    /// One for each exchange on it, and this one.
    tickets: Arc<()>,
    unused_since: Instant,
}

/// A place on a connection, for one exchange.
#[derive(Debug)]
pub(super) struct Place {
    sender: http2::SendRequest<Full<Bytes>>,
    ticket: Ticket,
}

/// Held as long as the exchange lasts.
#[derive(Debug)]
pub(super) struct Ticket(#[expect(dead_code, reason = "its being held is what counts")] Arc<()>);

impl Multiplexed {
    /// A place on a connection that is open.
    pub(super) fn place(&self) -> Option<Place> {
        let mut open = self.open();
        open.retain(|shared| !shared.sender.is_closed());
        open.iter_mut().find(|shared| shared.has_room()).map(Shared::place)
    }

    /// A place on a new connection over this transport.
    pub(super) async fn connect(&self, transport: Transport) -> Result<Place, hyper::Error> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).initial_stream_window_size(WINDOW);
        builder.initial_connection_window_size(WINDOW.saturating_mul(MAX_EXCHANGES));
        builder.keep_alive_interval(ASK_EVERY).keep_alive_timeout(ANSWER_WITHIN);
        let (sender, io) = builder.handshake(TokioIo::new(transport)).await?;
        // How it ends, each exchange on it learns for itself.
        tokio::spawn(async move { drop(io.await) });
        let mut shared = Shared { sender, tickets: Arc::new(()), unused_since: Instant::now() };
        let place = shared.place();
        self.open().push(shared);
        Ok(place)
    }

    /// Lets go of connections that have been unused for this long, and of those that are closed.
    pub(super) fn close_unused(&self, keep: Duration) {
        let mut open = self.open();
        for shared in open.iter_mut().filter(|shared| shared.exchanges() > 0) {
            shared.unused_since = Instant::now();
        }
        open.retain(|shared| !shared.sender.is_closed() && shared.unused_since.elapsed() <= keep);
    }

    fn open(&self) -> MutexGuard<'_, Vec<Shared>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn exchanges(&self) -> usize {
        Arc::strong_count(&self.tickets) - 1
    }

    fn has_room(&self) -> bool {
        self.exchanges() < MAX_EXCHANGES as usize
    }

    fn place(&mut self) -> Place {
        self.unused_since = Instant::now();
        Place { sender: self.sender.clone(), ticket: Ticket(Arc::clone(&self.tickets)) }
    }
}

impl Place {
    /// Sends a request to this host, and waits for the head of the response.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        authority: &http::uri::Authority,
    ) -> Result<Response<Incoming>, hyper::Error> {
        self.sender.send_request(absolute(request, authority)).await
    }

    /// Whether the connection is gone: then a request that failed on it may never have got there.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// What the exchange holds on to.
    pub(super) fn into_ticket(self) -> Ticket {
        self.ticket
    }
}

/// In HTTP/2 the host stands in the address.
fn absolute(mut request: Request<Full<Bytes>>, authority: &http::uri::Authority) -> Request<Full<Bytes>> {
    request.headers_mut().remove(HOST);
    let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let uri = Uri::builder().scheme(Scheme::HTTPS).authority(authority.clone()).path_and_query(path).build();
    *request.uri_mut() = uri.unwrap_or_default();
    request
}
