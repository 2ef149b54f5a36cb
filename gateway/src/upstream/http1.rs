//! One HTTP/1.1 connection to an upstream, driven by whoever uses it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::upstream::wake_flag::WakeFlag;

/// Plain or encrypted.
pub(super) type Transport = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// A connection.
#[derive(Debug)]
pub(super) struct Http1Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    io: http1::Connection<TokioIo<Transport>, Full<Bytes>>,
    /// The connection has ended; driving it further is an error.
    has_ended: bool,
    /// What has happened to it since it was last driven.
    wake_flag: WakeFlag,
}

impl Http1Connection {
    /// Speaks HTTP over this transport.
    pub(super) async fn new(transport: Transport) -> Result<Self, hyper::Error> {
        let (sender, io) = http1::Builder::new().handshake(TokioIo::new(transport)).await?;
        Ok(Self { sender, io, has_ended: false, wake_flag: WakeFlag::new() })
    }

    /// Sends a request, and waits for the head of the response.
    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, hyper::Error> {
        let mut response = pin!(self.sender.send_request(request));
        self.wake_flag.set();
        poll_fn(|cx| {
            if !self.wake_flag.is_set(cx) {
                return Poll::Pending;
            }
            self.drive();
            // Only the connection brings it, and only we drive that.
            let answer = response.as_mut().poll(&mut noop_context());
            if answer.is_pending() {
                self.wake_flag.clear(cx);
            }
            answer
        })
        .await
    }

    /// Waits for what `poll` returns, which comes by driving the connection and in no other way.
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

    /// Reads and writes what can be read and written now.
    fn drive(&mut self) {
        let mut cx = self.wake_flag.begin_poll();
        if !self.has_ended {
            // How it ended, the response or its body says.
            self.has_ended = Pin::new(&mut self.io).poll(&mut cx).is_ready();
        }
    }

    /// Whether it can take another request: still open, and nothing left of the last exchange.
    pub(super) fn is_usable(&mut self) -> bool {
        self.drive();
        // Nobody waits for it while it is idle.
        self.wake_flag.unregister();
        !self.has_ended && self.sender.is_ready()
    }
}

fn noop_context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}
