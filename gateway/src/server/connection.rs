//! A client's connection: a blocked write times out, and a broken answer ends in a reset where a clean close would look
//! like the end of the answer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
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
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use shared::http_server::client_stream::{ClientStream, ResetMark};
use shared::http_server::tls;
use tokio::net::TcpStream;
use tower::Layer as _;

use crate::chat::response_body::BodyError;
use crate::error::ApiError;
use crate::server::stop_mark::StopMark;

/// The HTTP service of one connection.
pub(super) struct ConnectionService {
    router: TowerToHyperService<ConnectionRouter>,
    reset: ResetMark,
    stop_mark: StopMark,
    encryption: Encryption,
}

/// The encryption of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    /// TLS, which the gateway itself ends.
    Tls,
    /// None, or TLS that a proxy in front ends.
    None,
}

/// Marks the connection if the answer has reached the total timeout, whose client may have read only a part of what the
/// kernel holds. To be called with the connection's error before the connection is dropped.
pub(super) fn note_error(reset: &ResetMark, error: &(dyn std::error::Error + 'static)) {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    if causes.any(|cause| matches!(cause.downcast_ref(), Some(BodyError::TotalTimeout))) {
        reset.set();
    }
}

type ConnectionRouter = AddExtension<Router, ConnectInfo<SocketAddr>>;

/// The body of an answer whose end is marked only by the end of the connection, as over HTTP/1.0.
struct ConnectionDelimitedBody {
    body: Body,
    reset: ResetMark,
}

/// Prepares an accepted TCP stream. Returns the connection, the service, and the mark for a reset that both share.
pub(super) fn open(
    stream: TcpStream,
    peer: SocketAddr,
    router: &Router,
    (stop_mark, encryption): (&StopMark, Encryption),
    write_timeout: Duration,
) -> (ClientStream, ConnectionService, ResetMark) {
    let reset = ResetMark::default();
    let router = TowerToHyperService::new(Extension(ConnectInfo(peer)).layer(router.clone()));
    let connection = ClientStream::new(stream, write_timeout, reset.clone());
    let service = ConnectionService { router, reset: reset.clone(), stop_mark: stop_mark.clone(), encryption };
    (connection, service, reset)
}

type RouterFuture = <TowerToHyperService<ConnectionRouter> as Service<Request<Incoming>>>::Future;
type RouterResult = Result<Response, Infallible>;

impl Service<Request<Incoming>> for ConnectionService {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<RouterFuture, Pin<Box<dyn Future<Output = RouterResult> + Send>>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let is_framed = request.version() >= Version::HTTP_11;
        if !has_valid_host(&request) {
            return Either::Right(Box::pin(std::future::ready(Ok(ApiError::invalid_host().into_response()))));
        }
        if self.encryption == Encryption::Tls {
            tls::mark_headers(request.headers_mut());
        }
        let answering = self.router.call(request);
        let is_stopping = self.stop_mark.is_set();
        if is_framed && !is_stopping {
            return Either::Left(answering);
        }
        let reset = self.reset.clone();
        Either::Right(Box::pin(async move {
            let mut response = answering.await?;
            if is_stopping {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            if is_framed {
                return Ok(response);
            }
            Ok(response.map(|body| Body::new(ConnectionDelimitedBody { body, reset })))
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

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if matches!(frame, Some(Err(_))) {
            self.reset.set();
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
