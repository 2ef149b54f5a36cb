//! The connections to one upstream: those that are kept for the next chat, and those that several chats share.
//!
//! A connection has no task of its own. Whoever waits for the answer drives it: one wake-up and one write per read, where a
//! task between would cost one of each per chunk. An idle connection is driven by nobody, and looked at before it is used
//! again. That is so with HTTP/1.1; where an upstream offers HTTP/2 (over TLS), exchanges share connections that have tasks.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::Uri;

use crate::upstream::error::UpstreamError;
use crate::upstream::http1::Http1Connection;
use crate::upstream::http2::{Http2Pool, StreamSlot};
use crate::upstream::tls::{Connector, NegotiatedConnection};

/// How many unused connections are kept.
const MAX_IDLE: usize = 1024;

/// The connections to one upstream.
#[derive(Debug)]
pub(super) struct Pool {
    connector: Connector,
    /// How long an unused connection is kept.
    keep_alive: Duration,
    idle: Mutex<VecDeque<(Box<Http1Connection>, Instant)>>,
    http2: Http2Pool,
    /// Held while a connection that others may share is opened, so that not everyone opens one.
    opening: tokio::sync::Mutex<()>,
}

/// What an exchange goes over.
#[derive(Debug)]
pub(super) enum PooledConnection {
    Http1(Box<Http1Connection>),
    Http2(StreamSlot),
}

impl Pool {
    /// No connections yet, to the host of this URL.
    pub(super) fn new(url: &Uri, keep_alive: Duration) -> anyhow::Result<Self> {
        Ok(Self {
            connector: Connector::new(url)?,
            keep_alive,
            idle: Mutex::default(),
            http2: Http2Pool::default(),
            opening: tokio::sync::Mutex::default(),
        })
    }

    /// A connection that is open already.
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

    /// Takes a connection back whose exchange is over.
    pub(super) fn put_back(&self, connection: Box<Http1Connection>) {
        let mut idle = self.idle();
        if idle.len() < MAX_IDLE {
            idle.push_back((connection, Instant::now()));
        }
    }

    /// A new connection; where the upstream speaks HTTP/2, a place on one, which somebody else may have opened meanwhile.
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

    /// Closes connections that have been unused for too long.
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
