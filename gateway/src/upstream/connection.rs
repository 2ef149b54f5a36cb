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

use crate::upstream::wake_flag::News;

/// Plain or encrypted.
pub(super) type Transport = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    io: http1::Connection<TokioIo<Transport>, Full<Bytes>>,
    /// The connection has ended; driving it further is an error.
    has_ended: bool,
    /// What has happened to it since it was last driven.
    news: News,
}

impl Connection {
    /// Speaks HTTP over this transport.
    pub(super) async fn new(transport: Transport) -> Result<Self, hyper::Error> {
        let (sender, io) = http1::Builder::new().handshake(TokioIo::new(transport)).await?;
        Ok(Self { sender, io, has_ended: false, news: News::new() })
    }

    /// Sends a request, and waits for the head of the response.
    pub(super) async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, hyper::Error> {
        let mut response = pin!(self.sender.send_request(request));
        self.news.expect();
        poll_fn(|cx| {
            if !self.news.are_there(cx) {
                return Poll::Pending;
            }
            self.drive();
            // Only the connection brings it, and only we drive that.
            let answer = response.as_mut().poll(&mut quiet());
            if answer.is_pending() {
                self.news.none_left(cx);
            }
            answer
        })
        .await
    }

    /// Waits for what `take` takes, which comes by driving the connection and in no other way.
    pub(super) fn poll_for<T>(
        &mut self,
        cx: &Context<'_>,
        mut take: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if !self.news.are_there(cx) {
            return Poll::Pending;
        }
        if let ready @ Poll::Ready(_) = take(&mut quiet()) {
            return ready;
        }
        self.drive();
        let taken = take(&mut quiet());
        if taken.is_pending() {
            self.news.none_left(cx);
        }
        taken
    }

    /// Reads and writes what can be read and written now.
    fn drive(&mut self) {
        let mut cx = self.news.look();
        if !self.has_ended {
            // How it ended, the response or its body says.
            self.has_ended = Pin::new(&mut self.io).poll(&mut cx).is_ready();
        }
    }

    /// Whether it can take another request: still open, and nothing left of the last exchange.
    pub(super) fn is_usable(&mut self) -> bool {
        self.drive();
        // Nobody waits for it while it is idle.
        self.news.forget();
        !self.has_ended && self.sender.is_ready()
    }
}

fn quiet() -> Context<'static> {
    Context::from_waker(Waker::noop())
}
