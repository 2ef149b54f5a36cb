//! The connection to the broker, and the broker's health as observed by the gateway.

pub mod earliest_start;
pub mod lease;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::Client;
use shared::nats::{BrokerConfig, BrokerRole};
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

/// Connects to the broker, and keeps `health` up to date. If the broker is away, the returned client connects as soon as
/// the broker is back.
pub async fn connect(
    broker: &BrokerConfig,
    instance: &str,
    health: Arc<BrokerHealth>,
) -> Result<Client, async_nats::ConnectError> {
    let on_event = move |event: &async_nats::Event| match event {
        async_nats::Event::Connected => health.mark_connected(),
        async_nats::Event::Disconnected | async_nats::Event::Closed => {
            health.is_connected.store(false, Ordering::Relaxed);
        }
        _ => {}
    };
    broker.connect(BrokerRole::Gateway, &format!("gateway {instance}"), on_event).await
}
