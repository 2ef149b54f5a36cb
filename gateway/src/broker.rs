//! The connection to the broker, and what is known of the broker without asking it.

pub mod lease;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use tokio::sync::Notify;

/// What is known of the broker without asking it.
#[derive(Debug, Default)]
pub struct BrokerHealth {
    is_connected: AtomicBool,
    /// It took longer than anyone was willing to wait, and has not answered since.
    is_slow: AtomicBool,
    reconnected: Notify,
}

impl BrokerHealth {
    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }

    /// Whether waiting for it is worth while.
    pub fn is_responsive(&self) -> bool {
        self.is_connected() && !self.is_slow.load(Ordering::Relaxed)
    }

    /// Somebody's patience has run out.
    pub fn mark_slow(&self) {
        self.is_slow.store(true, Ordering::Relaxed);
    }

    /// It has answered.
    pub(super) fn mark_responsive(&self) {
        if self.is_slow.load(Ordering::Relaxed) {
            self.is_slow.store(false, Ordering::Relaxed);
        }
    }

    /// There is a new connection.
    pub(crate) fn mark_connected(&self) {
        self.is_connected.store(true, Ordering::Relaxed);
        self.reconnected.notify_one();
    }

    /// Resolves when there is a new connection.
    pub(super) async fn reconnected(&self) {
        self.reconnected.notified().await;
    }
}

/// Connects to the broker; if it is away, as soon as it is back.
pub async fn connect(url: &str, instance: &str, health: Arc<BrokerHealth>) -> Result<Client, async_nats::ConnectError> {
    ConnectOptions::new()
        .name(format!("gateway {instance}"))
        .retry_on_initial_connect()
        // A connection that died without a word is noticed within twice this.
        .ping_interval(Duration::from_secs(5))
        .event_callback(move |event| {
            let health = Arc::clone(&health);
            async move {
                match event {
                    async_nats::Event::Connected => {
                        health.mark_connected();
                        tracing::info!("connected to the broker");
                    }
                    async_nats::Event::Disconnected | async_nats::Event::Closed => {
                        health.is_connected.store(false, Ordering::Relaxed);
                        tracing::warn!("disconnected from the broker");
                    }
                    other => tracing::warn!(event = %other, "the broker's client reports"),
                }
            }
        })
        .connect(&shared::stream::servers(url)[..])
        .await
}
