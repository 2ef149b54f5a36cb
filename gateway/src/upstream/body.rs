//! The body of an upstream's response, read from an HTTP/1.1 connection or from an HTTP/2 stream.

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

/// The body of an upstream's response, together with the connection that carries the body.
#[derive(Debug)]
pub struct UpstreamBody {
    incoming: Incoming,
    transport: BodyTransport,
    /// Chunks that were read ahead of the consumer, if reading ahead was asked for.
    read_ahead: Option<Box<ReadAhead>>,
}

/// Chunks that were read ahead of the consumer. The chunks are handed out first and unchanged.
#[derive(Debug, Default)]
struct ReadAhead {
    chunks: VecDeque<Bytes>,
    end: Option<BodyEnd>,
}

/// The result of reading one chunk ahead.
#[derive(Debug)]
pub enum ChunkAhead {
    /// The next chunk.
    Chunk(Bytes),
    /// The body has ended cleanly.
    End,
    /// The body has broken off.
    Broken,
}

/// The end of a body, seen while reading ahead.
#[derive(Debug)]
enum BodyEnd {
    Clean,
    Broken(hyper::Error),
}

/// The connection that carries a body.
#[derive(Debug)]
enum BodyTransport {
    /// An exclusive connection. Goes back to the pool after the end of the body; closed if the body is dropped earlier.
    Http1(Option<Box<Http1Connection>>, Arc<Pool>),
    /// A stream on a shared connection.
    Http2 { _permit: StreamPermit },
}

impl UpstreamBody {
    /// Creates a body that arrives over `connection`, which goes back to `pool` after the end of the body.
    pub(super) fn over_http1(incoming: Incoming, connection: Box<Http1Connection>, pool: Arc<Pool>) -> Self {
        Self { incoming, transport: BodyTransport::Http1(Some(connection), pool), read_ahead: None }
    }

    /// Creates a body that arrives over a shared HTTP/2 connection. The permit is held until the body is dropped.
    pub(super) fn over_http2(incoming: Incoming, permit: StreamPermit) -> Self {
        Self { incoming, transport: BodyTransport::Http2 { _permit: permit }, read_ahead: None }
    }

    /// Returns the next chunk. `None` is a clean end; an error means that the body broke off.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        if let Some(read_ahead) = &mut self.read_ahead {
            if let Some(next) = read_ahead.next() {
                return Poll::Ready(next);
            }
            self.read_ahead = None;
        }
        self.poll_data(cx)
    }

    /// Reads ahead until about `limit` bytes are buffered or the body ends. [`Self::poll_chunk`] hands the buffered chunks
    /// out again. Dropping the future loses no bytes.
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

    /// Reads one more chunk ahead and returns a view of the chunk. [`Self::poll_chunk`] hands the chunk out again. Dropping
    /// the future loses no bytes.
    pub async fn read_chunk_ahead(&mut self) -> ChunkAhead {
        self.read_ahead.get_or_insert_default();
        let next = poll_fn(|cx| self.poll_data(cx)).await;
        let Some(read_ahead) = &mut self.read_ahead else { return ChunkAhead::End };
        match next {
            Some(Ok(chunk)) => {
                read_ahead.chunks.push_back(chunk.clone());
                ChunkAhead::Chunk(chunk)
            }
            Some(Err(error)) => {
                read_ahead.end = Some(BodyEnd::Broken(error));
                ChunkAhead::Broken
            }
            None => {
                read_ahead.end = Some(BodyEnd::Clean);
                ChunkAhead::End
            }
        }
    }

    /// Returns true if the end of the body has been read ahead.
    pub fn is_read_to_end(&self) -> bool {
        self.read_ahead.as_ref().is_some_and(|read_ahead| read_ahead.end.is_some())
    }

    /// Replaces the bytes that were read ahead.
    pub fn replace_read_ahead(&mut self, bytes: Bytes) {
        if let Some(read_ahead) = &mut self.read_ahead {
            read_ahead.chunks = VecDeque::from([bytes]);
        }
    }

    /// Replaces the whole body, whatever is still to arrive.
    pub fn replace(&mut self, bytes: Bytes) {
        self.read_ahead = Some(Box::new(ReadAhead { chunks: VecDeque::from([bytes]), end: Some(BodyEnd::Clean) }));
    }

    /// Returns a copy of the bytes that were read ahead.
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
                // Trailers are ignored.
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

    /// Returns true if no bytes follow the response head.
    pub fn is_empty(&self) -> bool {
        let read_ahead = self.read_ahead.as_ref();
        let is_at_end = self.incoming.is_end_stream() || self.incoming.size_hint().exact() == Some(0);
        is_at_end
            && read_ahead.is_none_or(|read_ahead| {
                read_ahead.chunks.is_empty() && !matches!(read_ahead.end, Some(BodyEnd::Broken(_)))
            })
    }

    /// Returns true if only the end of the connection marks the end of the body: HTTP/1 without a content length or chunked
    /// encoding. A broken connection then looks like a clean end.
    pub fn ends_with_connection(response: &Response<Self>) -> bool {
        let headers = response.headers();
        response.version() != http::Version::HTTP_2
            && !headers.contains_key(http::header::CONTENT_LENGTH)
            && !headers.contains_key(http::header::TRANSFER_ENCODING)
    }

    /// Polls for a frame that has arrived. Without one, drives the HTTP/1.1 connection and polls again.
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

    /// Reads the whole body. Returns `None` if the body is longer than `limit` bytes or breaks off.
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

    /// Returns the next buffered chunk or the buffered end. The outer `None` means that nothing is buffered.
    fn next(&mut self) -> Option<Option<Result<Bytes, hyper::Error>>> {
        if let Some(chunk) = self.chunks.pop_front() {
            return Some(Some(Ok(chunk)));
        }
        // A broken body yields the error once, and a clean end after that.
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
