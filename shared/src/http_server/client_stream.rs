//! A client's TCP connection with a bound on the time of a write, and with a mark that makes the connection end in a reset.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// A TCP connection whose writes fail when the client has accepted no bytes for the write timeout.
#[derive(Debug)]
pub struct ClientStream {
    stream: TcpStream,
    write_timeout: Duration,
    /// The timer of a waiting write. Created for the first write that waits and reset for later ones; writes that never
    /// wait cost nothing.
    timer: Option<Pin<Box<Sleep>>>,
    is_waiting: bool,
    reset: ResetMark,
}

/// The mark that makes a connection end in a reset instead of a clean close.
#[derive(Clone, Debug, Default)]
pub struct ResetMark(Arc<AtomicBool>);

impl ResetMark {
    /// Marks the connection. A mark that is set before the connection is dropped counts.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl ClientStream {
    /// Wraps an accepted connection. The mark is set as well when a write has waited for the write timeout.
    pub fn new(stream: TcpStream, write_timeout: Duration, reset: ResetMark) -> Self {
        Self { stream, write_timeout, timer: None, is_waiting: false, reset }
    }

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
        self.reset.set();
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client did not read within the write timeout")))
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        if self.reset.0.load(Ordering::Relaxed) {
            // With zero linger, closing the socket sends a reset.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ClientStream {
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
