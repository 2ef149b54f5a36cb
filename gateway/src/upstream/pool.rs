//! The connection pool of one upstream: idle HTTP/1.1 connections for later chats, and HTTP/2 connections that chats share.
//!
//! An HTTP/1.1 connection has no task of its own: the task that waits for the answer drives the connection. One read then
//! costs one wake-up and one write, where a task in between would cost one of each per chunk. No task drives an idle
//! connection, so the pool checks an idle connection before reuse. Where an upstream offers HTTP/2 (over TLS), exchanges
//! share connections that have a task each.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::Uri;

use crate::routing::proxy::Proxy;
use crate::upstream::error::UpstreamError;
use crate::upstream::http1::Http1Connection;
use crate::upstream::http2::{Http2Pool, StreamSlot};
use crate::upstream::tls::{Connector, NegotiatedConnection};

/// The maximum number of idle HTTP/1.1 connections. Further connections are closed after use.
const MAX_IDLE: usize = 1024;

/// The connection pool of one upstream.
#[derive(Debug)]
pub(super) struct Pool {
    connector: Connector,
    /// The maximum time for which an unused connection stays open.
    keep_alive: Duration,
    idle: Mutex<VecDeque<(Box<Http1Connection>, Instant)>>,
    http2: Http2Pool,
    /// Held while a connection is opened that may become a shared one, so that concurrent requests do not open one each.
    opening: tokio::sync::Mutex<()>,
}

/// The connection for one exchange: exclusive with HTTP/1.1, a slot on a shared connection with HTTP/2.
#[derive(Debug)]
pub(super) enum PooledConnection {
    Http1(Box<Http1Connection>),
    Http2(StreamSlot),
}

impl Pool {
    /// Creates an empty pool for the host of `url`, which is reached through `proxy`, if there is one.
    pub(super) fn new(url: &Uri, proxy: Option<Proxy>, keep_alive: Duration) -> anyhow::Result<Self> {
        Ok(Self {
            connector: Connector::new(url, proxy)?,
            keep_alive,
            idle: Mutex::default(),
            http2: Http2Pool::default(),
            opening: tokio::sync::Mutex::default(),
        })
    }

    /// Returns a usable connection that is open already. `None` if a new connection is needed.
    pub(super) fn take_open(&self) -> Option<PooledConnection> {
        if let Some(slot) = self.http2.open_slot() {
            return Some(PooledConnection::Http2(slot));
        }
        loop {
            let (mut connection, since) = self.idle().pop_back()?;
            if since.elapsed() <= self.keep_alive && connection.is_usable() {
                return Some(PooledConnection::Http1(connection));
            }
        }
    }

    /// Takes a connection back after the end of an exchange. Closes the connection if the pool is full.
    pub(super) fn put_back(&self, connection: Box<Http1Connection>) {
        let mut idle = self.idle();
        if idle.len() < MAX_IDLE {
            idle.push_back((connection, Instant::now()));
        }
    }

    /// Opens a new connection. Where the upstream offers HTTP/2, returns a slot on a shared connection, which a concurrent
    /// request may have opened in the meantime.
    pub(super) async fn connect(&self) -> Result<PooledConnection, UpstreamError> {
        let opening = match self.connector.may_be_http2() {
            true => Some(self.opening.lock().await),
            false => None,
        };
        if opening.is_some()
            && let Some(slot) = self.http2.open_slot()
        {
            return Ok(PooledConnection::Http2(slot));
        }
        match self.connector.connect().await? {
            NegotiatedConnection::Http1(connection) => Ok(PooledConnection::Http1(connection)),
            NegotiatedConnection::Http2(transport) => {
                let slot = self.http2.connect(transport).await.map_err(UpstreamError::Http)?;
                Ok(PooledConnection::Http2(slot))
            }
        }
    }

    /// Closes connections that have been unused for longer than the keep-alive time.
    pub(super) fn close_unused(&self) {
        let mut idle = self.idle();
        while idle.front().is_some_and(|(_, since)| since.elapsed() > self.keep_alive) {
            idle.pop_front();
        }
        if idle.is_empty() {
            idle.shrink_to_fit();
        }
        drop(idle);
        self.http2.close_unused(self.keep_alive);
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<(Box<Http1Connection>, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
