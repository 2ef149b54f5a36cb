//! The body of an upstream's response.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use hyper::body::{Body as _, Frame, Incoming};

use crate::upstream::http1::Http1Connection;
use crate::upstream::http2::StreamPermit;
use crate::upstream::pool::Pool;

/// The body of an upstream's response, and the connection that it comes over.
#[derive(Debug)]
pub struct UpstreamBody {
    incoming: Incoming,
    transport: BodyTransport,
    /// What was read before its turn.
    read_ahead: Option<Box<ReadAhead>>,
}

/// What was read before its turn: to be handed out first, and as it came.
#[derive(Debug, Default)]
struct ReadAhead {
    chunks: VecDeque<Bytes>,
    end: Option<BodyEnd>,
}

/// How a body ended that was read ahead.
#[derive(Debug)]
enum BodyEnd {
    Clean,
    Broken(hyper::Error),
}

/// How the body comes.
#[derive(Debug)]
enum BodyTransport {
    /// Over a connection of its own: given back when the body has ended; closed with the body if it has not.
    Http1(Option<Box<Http1Connection>>, Arc<Pool>),
    /// Over one that it shares.
    Http2 { _permit: StreamPermit },
}

impl UpstreamBody {
    /// A body that comes over this connection of the pool's.
    pub(super) fn over_http1(incoming: Incoming, connection: Box<Http1Connection>, pool: Arc<Pool>) -> Self {
        Self { incoming, transport: BodyTransport::Http1(Some(connection), pool), read_ahead: None }
    }

    /// A body that comes over a connection that others use too.
    pub(super) fn over_http2(incoming: Incoming, permit: StreamPermit) -> Self {
        Self { incoming, transport: BodyTransport::Http2 { _permit: permit }, read_ahead: None }
    }

    /// The next chunk. `None` is the end that the upstream meant; an error is one that it did not.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        if let Some(read_ahead) = &mut self.read_ahead {
            if let Some(next) = read_ahead.next() {
                return Poll::Ready(next);
            }
            self.read_ahead = None;
        }
        self.poll_data(cx)
    }

    /// Reads up to about this much before its turn; what was read is handed out again later. Whoever stops waiting for it
    /// loses nothing.
    pub async fn read_ahead(&mut self, limit: usize) {
        self.read_ahead.get_or_insert_default();
        while self.read_ahead.as_ref().is_some_and(|read_ahead| read_ahead.wants_more(limit)) {
            let next = poll_fn(|cx| self.poll_data(cx)).await;
            if let Some(read_ahead) = &mut self.read_ahead {
                match next {
                    Some(Ok(chunk)) => read_ahead.chunks.push_back(chunk),
                    Some(Err(error)) => read_ahead.end = Some(BodyEnd::Broken(error)),
                    None => read_ahead.end = Some(BodyEnd::Clean),
                }
            }
        }
    }

    /// What was read before its turn.
    pub fn read_ahead_bytes(&self) -> Vec<u8> {
        self.read_ahead
            .as_ref()
            .map(|read_ahead| read_ahead.chunks.iter().flatten().copied().collect())
            .unwrap_or_default()
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
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
                    if let BodyTransport::Http1(connection, _) = &mut self.transport {
                        *connection = None;
                    }
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    if let BodyTransport::Http1(connection, pool) = &mut self.transport
                        && let Some(mut connection) = connection.take()
                        && connection.is_usable()
                    {
                        pool.put_back(connection);
                    }
                    return Poll::Ready(None);
                }
            }
        }
    }

    /// Whether nothing follows the head.
    pub fn is_empty(&self) -> bool {
        let read_ahead = self.read_ahead.as_ref();
        let is_at_end = self.incoming.is_end_stream() || self.incoming.size_hint().exact() == Some(0);
        is_at_end
            && read_ahead.is_none_or(|read_ahead| {
                read_ahead.chunks.is_empty() && !matches!(read_ahead.end, Some(BodyEnd::Broken(_)))
            })
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
        match &mut self.transport {
            BodyTransport::Http2 { .. } => incoming.poll_frame(cx),
            BodyTransport::Http1(Some(connection), _) => {
                connection.poll_driving(cx, |cx| incoming.as_mut().poll_frame(cx))
            }
            BodyTransport::Http1(None, _) => Poll::Ready(None),
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

impl ReadAhead {
    fn wants_more(&self, limit: usize) -> bool {
        self.end.is_none() && self.chunks.iter().map(Bytes::len).sum::<usize>() < limit
    }

    /// What comes next, if that was read.
    fn next(&mut self) -> Option<Option<Result<Bytes, hyper::Error>>> {
        if let Some(chunk) = self.chunks.pop_front() {
            return Some(Some(Ok(chunk)));
        }
        // Once it was broken, it has ended.
        match self.end.replace(BodyEnd::Clean) {
            Some(BodyEnd::Broken(error)) => Some(Some(Err(error))),
            Some(BodyEnd::Clean) => Some(None),
            None => {
                self.end = None;
                None
            }
        }
    }
}
