//! An HTTP/1.1 connection to an upstream. The connection has no task of its own: the task that waits for a response drives
//! the connection.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::upstream::request_body::RequestBody;
use crate::upstream::wake_flag::WakeFlag;

/// A TCP stream, plain or with TLS.
pub(super) type Transport = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// An HTTP/1.1 connection, for one exchange after another.
#[derive(Debug)]
pub(super) struct Http1Connection {
    sender: http1::SendRequest<RequestBody>,
    io: http1::Connection<TokioIo<Transport>, RequestBody>,
    /// The connection has ended. Polling an ended connection is an error.
    has_ended: bool,
    /// Set if the connection was woken since the last poll without progress.
    wake_flag: WakeFlag,
}

impl Http1Connection {
    /// Performs the HTTP handshake over `transport`.
    pub(super) async fn new(transport: Transport) -> Result<Self, hyper::Error> {
        let (sender, io) = http1::Builder::new().handshake(TokioIo::new(transport)).await?;
        Ok(Self { sender, io, has_ended: false, wake_flag: WakeFlag::new() })
    }

    /// Sends a request and waits for the head of the response.
    pub(super) async fn send(&mut self, request: Request<RequestBody>) -> Result<Response<Incoming>, hyper::Error> {
        let mut response = pin!(self.sender.send_request(request));
        self.wake_flag.set();
        poll_fn(|cx| {
            if !self.wake_flag.is_set(cx) {
                return Poll::Pending;
            }
            self.drive();
            // Only the connection can complete the response, and only this task drives the connection, so no waker is
            // needed.
            let answer = response.as_mut().poll(&mut noop_context());
            if answer.is_pending() {
                self.wake_flag.clear(cx);
            }
            answer
        })
        .await
    }

    /// Calls `poll`, and again after driving the connection if the first result is pending. `poll` gets a waker without
    /// effect, so progress must come from this connection alone.
    pub(super) fn poll_driving<T>(
        &mut self,
        cx: &Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if !self.wake_flag.is_set(cx) {
            return Poll::Pending;
        }
        if let ready @ Poll::Ready(_) = poll(&mut noop_context()) {
            return ready;
        }
        self.drive();
        let polled = poll(&mut noop_context());
        if polled.is_pending() {
            self.wake_flag.clear(cx);
        }
        polled
    }

    /// Reads and writes as much as is possible without waiting.
    fn drive(&mut self) {
        let mut cx = self.wake_flag.begin_poll();
        if !self.has_ended {
            // The response or the body reports an error of the connection.
            self.has_ended = Pin::new(&mut self.io).poll(&mut cx).is_ready();
        }
    }

    /// Returns true if the connection can take another request: still open, and without remains of the last exchange.
    pub(super) fn is_usable(&mut self) -> bool {
        self.drive();
        // No task waits for an idle connection.
        self.wake_flag.unregister();
        !self.has_ended && self.sender.is_ready()
    }
}

fn noop_context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}
