//! A client's connection: a blocked write times out, and a broken answer ends in a reset where a clean close would look
//! like the end of the answer.

use std::convert::Infallible;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::middleware::AddExtension;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router};
use bytes::Bytes;
use futures_util::future::Either;
use http::header::{CONNECTION, HOST};
use http::{HeaderValue, Request, Version};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::ReadBufCursor;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tower::Layer as _;

use crate::chat::response_body::BodyError;
use crate::error::ApiError;
use crate::server::stop_mark::StopMark;

/// A client's TCP connection, with a timeout for writes.
#[derive(Debug)]
pub(super) struct ClientConnection {
    stream: TokioIo<TcpStream>,
    /// The maximum time for which a write may wait without the client reading any bytes.
    write_timeout: Duration,
    /// The timer of a waiting write. Created for the first write that waits and reset for later ones; writes that never
    /// wait cost nothing.
    timer: Option<Pin<Box<Sleep>>>,
    is_waiting: bool,
    /// Set if the connection must end in a reset, so that the client does not take the close for the end of an answer.
    is_aborted: Arc<AtomicBool>,
}

/// The HTTP service of one connection.
pub(super) struct ConnectionService {
    router: TowerToHyperService<ConnectionRouter>,
    is_aborted: Arc<AtomicBool>,
    stop_mark: StopMark,
}

/// The mark that makes a connection end in a reset instead of a clean close.
#[derive(Clone, Debug)]
pub(super) struct ResetMark(Arc<AtomicBool>);

impl ResetMark {
    /// Marks the connection if the answer has reached the total timeout, whose client may have read only a part of what
    /// the kernel holds. To be called with the connection's error before the connection is dropped.
    pub(super) fn note_error(&self, error: &(dyn std::error::Error + 'static)) {
        let mut causes = std::iter::successors(Some(error), |error| error.source());
        if causes.any(|cause| matches!(cause.downcast_ref(), Some(BodyError::TotalTimeout))) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

type ConnectionRouter = AddExtension<Router, ConnectInfo<SocketAddr>>;

/// The body of an answer whose end is marked only by the end of the connection, as over HTTP/1.0.
struct ConnectionDelimitedBody {
    body: Body,
    is_aborted: Arc<AtomicBool>,
}

/// Prepares an accepted TCP stream. Returns the connection, the service, and the mark for a reset that both share.
pub(super) fn open(
    stream: TcpStream,
    peer: SocketAddr,
    router: &Router,
    stop_mark: &StopMark,
    write_timeout: Duration,
) -> (ClientConnection, ConnectionService, ResetMark) {
    let is_aborted = Arc::new(AtomicBool::new(false));
    let router = TowerToHyperService::new(Extension(ConnectInfo(peer)).layer(router.clone()));
    let stream = TokioIo::new(stream);
    let connection =
        ClientConnection { stream, write_timeout, timer: None, is_waiting: false, is_aborted: Arc::clone(&is_aborted) };
    let mark = ResetMark(Arc::clone(&is_aborted));
    (connection, ConnectionService { router, is_aborted, stop_mark: stop_mark.clone() }, mark)
}

impl ClientConnection {
    /// Returns the result of a write. A write that has waited for the write timeout is an error.
    fn poll_within_timeout(&mut self, cx: &mut Context<'_>, written: Poll<Result<usize>>) -> Poll<Result<usize>> {
        if written.is_ready() {
            self.is_waiting = false;
            return written;
        }
        let write_timeout = self.write_timeout;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(write_timeout)));
        if !std::mem::replace(&mut self.is_waiting, true) {
            timer.as_mut().reset(Instant::now() + write_timeout);
        }
        ready!(timer.as_mut().poll(cx));
        // The reset also discards the bytes that the kernel still holds for the client.
        self.is_aborted.store(true, Ordering::Relaxed);
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client did not read within the write timeout")))
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        if self.is_aborted.load(Ordering::Relaxed) {
            // With zero linger, closing the socket sends a reset.
            let _ = self.stream.inner().set_zero_linger();
        }
    }
}

impl hyper::rt::Read for ClientConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl hyper::rt::Write for ClientConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.poll_within_timeout(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.poll_within_timeout(cx, written)
    }
}

type RouterFuture = <TowerToHyperService<ConnectionRouter> as Service<Request<Incoming>>>::Future;
type RouterResult = std::result::Result<Response, Infallible>;

impl Service<Request<Incoming>> for ConnectionService {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<RouterFuture, Pin<Box<dyn Future<Output = RouterResult> + Send>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let is_framed = request.version() >= Version::HTTP_11;
        if !has_valid_host(&request) {
            return Either::Right(Box::pin(std::future::ready(Ok(ApiError::invalid_host().into_response()))));
        }
        let answering = self.router.call(request);
        let is_stopping = self.stop_mark.is_set();
        if is_framed && !is_stopping {
            return Either::Left(answering);
        }
        let is_aborted = Arc::clone(&self.is_aborted);
        Either::Right(Box::pin(async move {
            let mut response = answering.await?;
            if is_stopping {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            if is_framed {
                return Ok(response);
            }
            Ok(response.map(|body| Body::new(ConnectionDelimitedBody { body, is_aborted })))
        }))
    }
}

/// Returns true if a request has the number of `Host` headers that its version asks for: one in HTTP/1.1, none or one in
/// other versions. Two hosts, or none, may mean one thing to a proxy in front and another thing here.
fn has_valid_host<B>(request: &Request<B>) -> bool {
    match request.headers().get_all(HOST).iter().count() {
        1 => true,
        0 => request.version() != Version::HTTP_11,
        _ => false,
    }
}

impl http_body::Body for ConnectionDelimitedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if matches!(frame, Some(Err(_))) {
            self.is_aborted.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
