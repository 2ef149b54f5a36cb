//! The connection to the broker, and the broker's health as observed by the gateway.

pub mod earliest_start;
pub mod lease;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use tokio::sync::Notify;

/// The broker's health as observed by the gateway. Reading the health sends no request.
#[derive(Debug, Default)]
pub struct BrokerHealth {
    is_connected: AtomicBool,
    /// Set when an acknowledgement has taken too long, and cleared by the next acknowledgement.
    is_slow: AtomicBool,
    reconnected: Notify,
}

impl BrokerHealth {
    /// Returns true if the gateway is connected to the broker.
    pub fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }

    /// Returns true if an acknowledgement is worth waiting for: the broker is connected and not slow.
    pub fn is_responsive(&self) -> bool {
        self.is_connected() && !self.is_slow.load(Ordering::Relaxed)
    }

    /// Notes that an acknowledgement took longer than the caller's timeout.
    pub fn mark_slow(&self) {
        self.is_slow.store(true, Ordering::Relaxed);
    }

    /// Notes that the broker has acknowledged an event.
    pub(super) fn mark_responsive(&self) {
        if self.is_slow.load(Ordering::Relaxed) {
            self.is_slow.store(false, Ordering::Relaxed);
        }
    }

    /// Notes a new connection to the broker.
    pub(crate) fn mark_connected(&self) {
        self.is_connected.store(true, Ordering::Relaxed);
        self.reconnected.notify_one();
    }

    /// Waits for a new connection to the broker.
    pub(super) async fn reconnected(&self) {
        self.reconnected.notified().await;
    }
}

/// Connects to the broker. If the broker is away, the returned client connects as soon as the broker is back.
pub async fn connect(url: &str, instance: &str, health: Arc<BrokerHealth>) -> Result<Client, async_nats::ConnectError> {
    ConnectOptions::new()
        .name(format!("gateway {instance}"))
        .retry_on_initial_connect()
        // A dead connection is noticed within twice the interval.
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
                    other => tracing::warn!(event = %other, "the NATS client reports an event"),
                }
            }
        })
        .connect(&shared::stream::servers(url)[..])
        .await
}
