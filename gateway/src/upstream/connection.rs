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

/// Plain or encrypted.
pub(super) type Transport = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    io: http1::Connection<TokioIo<Transport>, Full<Bytes>>,
    /// The connection has ended; driving it further is an error.
    has_ended: bool,
}

impl Connection {
    /// Speaks HTTP over this transport.
    pub(super) async fn new(transport: Transport) -> Result<Self, hyper::Error> {
        let (sender, io) = http1::Builder::new().handshake(TokioIo::new(transport)).await?;
        Ok(Self { sender, io, has_ended: false })
    }

    /// Sends a request, and waits for the head of the response.
    pub(super) async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, hyper::Error> {
        let mut response = pin!(self.sender.send_request(request));
        poll_fn(|cx| {
            if !self.has_ended {
                self.has_ended = Pin::new(&mut self.io).poll(cx).is_ready();
            }
            response.as_mut().poll(cx)
        })
        .await
    }

    /// Reads and writes what can be read and written now.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.has_ended {
            // How it ended, the response's body says.
            self.has_ended = matches!(Pin::new(&mut self.io).poll(cx), Poll::Ready(_));
        }
    }

    /// Whether it can take another request: still open, and nothing left of the last exchange.
    pub(super) fn is_usable(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.has_ended && self.sender.is_ready()
    }
}
