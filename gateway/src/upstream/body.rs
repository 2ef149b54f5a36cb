//! The body of an upstream's response.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use hyper::body::{Body as _, Frame, Incoming};

use crate::upstream::connection::Connection;
use crate::upstream::http2::Ticket;
use crate::upstream::pool::Pool;

/// The body of an upstream's response, and the connection that it comes over.
#[derive(Debug)]
pub struct UpstreamBody {
    incoming: Incoming,
    way: Way,
    /// What was read before its turn.
    ahead: Option<Box<Ahead>>,
}

/// What was read before its turn: to be handed out first, and as it came.
#[derive(Debug, Default)]
struct Ahead {
    chunks: VecDeque<Bytes>,
    end: Option<End>,
}

/// How a body ended that was read ahead.
#[derive(Debug)]
enum End {
    Meant,
    Broken(hyper::Error),
}

/// How the body comes.
#[derive(Debug)]
enum Way {
    /// Over a connection of its own: given back when the body has ended; closed with the body if it has not.
    Driven(Option<Box<Connection>>, Arc<Pool>),
    /// Over one that it shares.
    Shared { _ticket: Ticket },
}

impl UpstreamBody {
    /// A body that comes over this connection of the pool's.
    pub(super) fn driven(incoming: Incoming, connection: Box<Connection>, pool: Arc<Pool>) -> Self {
        Self { incoming, way: Way::Driven(Some(connection), pool), ahead: None }
    }

    /// A body that comes over a connection that others use too.
    pub(super) fn shared(incoming: Incoming, ticket: Ticket) -> Self {
        Self { incoming, way: Way::Shared { _ticket: ticket }, ahead: None }
    }

    /// The next chunk. `None` is the end that the upstream meant; an error is one that it did not.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        if let Some(ahead) = &mut self.ahead {
            if let Some(next) = ahead.next() {
                return Poll::Ready(next);
            }
            self.ahead = None;
        }
        self.poll_further(cx)
    }

    /// Reads up to about this much before its turn; what was read is handed out again later. Whoever stops waiting for it
    /// loses nothing.
    pub async fn read_ahead(&mut self, limit: usize) {
        self.ahead.get_or_insert_default();
        while self.ahead.as_ref().is_some_and(|ahead| ahead.wants_more(limit)) {
            let next = poll_fn(|cx| self.poll_further(cx)).await;
            if let Some(ahead) = &mut self.ahead {
                match next {
                    Some(Ok(chunk)) => ahead.chunks.push_back(chunk),
                    Some(Err(error)) => ahead.end = Some(End::Broken(error)),
                    None => ahead.end = Some(End::Meant),
                }
            }
        }
    }

    /// What was read before its turn.
    pub fn ahead(&self) -> Vec<u8> {
        self.ahead.as_ref().map(|ahead| ahead.chunks.iter().flatten().copied().collect()).unwrap_or_default()
    }

    fn poll_further(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        loop {
            let frame = match self.poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => return Poll::Pending,
            };
            match frame {
                // Trailers are passed over.
                Some(Ok(frame)) => {
                    if let Ok(chunk) = frame.into_data() {
                        return Poll::Ready(Some(Ok(chunk)));
                    }
                }
                Some(Err(error)) => {
                    if let Way::Driven(connection, _) = &mut self.way {
                        *connection = None;
                    }
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    if let Way::Driven(connection, pool) = &mut self.way
                        && let Some(mut connection) = connection.take()
                        && connection.is_usable()
                    {
                        pool.keep(connection);
                    }
                    return Poll::Ready(None);
                }
            }
        }
    }

    /// Whether nothing follows the head.
    pub fn is_empty(&self) -> bool {
        let ahead = self.ahead.as_ref();
        let is_at_end = self.incoming.is_end_stream() || self.incoming.size_hint().exact() == Some(0);
        is_at_end && ahead.is_none_or(|ahead| ahead.chunks.is_empty() && !matches!(ahead.end, Some(End::Broken(_))))
    }

    /// Whether the connection's end is the only end that this body has. Then a broken connection looks like an end.
    pub fn ends_with_connection(response: &Response<Self>) -> bool {
        let headers = response.headers();
        response.version() != http::Version::HTTP_2
            && !headers.contains_key(http::header::CONTENT_LENGTH)
            && !headers.contains_key(http::header::TRANSFER_ENCODING)
    }

    /// What is there, else what driving the connection brings.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut incoming = Pin::new(&mut self.incoming);
        match &mut self.way {
            Way::Shared { .. } => incoming.poll_frame(cx),
            Way::Driven(Some(connection), _) => connection.poll_for(cx, |cx| incoming.as_mut().poll_frame(cx)),
            Way::Driven(None, _) => Poll::Ready(None),
        }
    }

    /// The whole body, if it is not longer than this.
    pub async fn collect(mut self, limit: usize) -> Option<Vec<u8>> {
        let mut whole = Vec::new();
        while let Some(chunk) = poll_fn(|cx| self.poll_chunk(cx)).await {
            let chunk = chunk.ok()?;
            if whole.len() + chunk.len() > limit {
                return None;
            }
            whole.extend_from_slice(&chunk);
        }
        Some(whole)
    }
}

impl Ahead {
    fn wants_more(&self, limit: usize) -> bool {
        self.end.is_none() && self.chunks.iter().map(Bytes::len).sum::<usize>() < limit
    }

    /// What comes next, if that was read.
    fn next(&mut self) -> Option<Option<Result<Bytes, hyper::Error>>> {
        if let Some(chunk) = self.chunks.pop_front() {
            return Some(Some(Ok(chunk)));
        }
        // Once it was broken, it has ended.
        match self.end.replace(End::Meant) {
            Some(End::Broken(error)) => Some(Some(Err(error))),
            Some(End::Meant) => Some(None),
            None => {
                self.end = None;
                None
            }
        }
    }
}
