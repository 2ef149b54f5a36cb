//! Clients that leave: what happens to their answers, and the answers that are read on though nobody listens.
//!
//! Either way what was produced is on the record, with the finish reason `client_gone`. Reading on is bounded in time (by the
//! route or the deployment) and in number; where there is no place, the upstream is let go of.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::request::InvalidRequest;
use crate::routing::{OnDisconnect, RouteOnDisconnect};

/// Where a request says what is to happen: `cancel` or `drain`.
pub const ON_LEAVE_HEADER: &str = "x-stenograph-on-leave";

/// How long a drain that is asked to stop may take to do so: it only has to be put on the record.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The rule of the deployment.
#[derive(Clone, Copy, Debug)]
pub struct DisconnectPolicy {
    /// What happens where neither the route nor the request says.
    pub default: OnDisconnect,
    /// How long a drain may take where the route does not say.
    pub drain_for: Duration,
    /// Drains at once.
    pub max_drains: usize,
}

impl Default for DisconnectPolicy {
    fn default() -> Self {
        Self { default: OnDisconnect::Cancel, drain_for: Duration::from_secs(120), max_drains: 1000 }
    }
}

impl DisconnectPolicy {
    /// What happens to this request: the request's own word goes before the route's, and that before the deployment's.
    pub fn resolve(
        &self,
        headers: &HeaderMap,
        route: Option<RouteOnDisconnect>,
    ) -> Result<OnDisconnect, InvalidRequest> {
        let drain_for = match route {
            Some(RouteOnDisconnect::Drain(Some(drain_for))) => drain_for,
            Some(RouteOnDisconnect::Drain(None) | RouteOnDisconnect::Cancel) | None => self.drain_for,
        };
        let configured = match route {
            Some(RouteOnDisconnect::Drain(_)) => OnDisconnect::Drain(drain_for),
            Some(RouteOnDisconnect::Cancel) => OnDisconnect::Cancel,
            None => self.default,
        };
        match headers.get(ON_LEAVE_HEADER).map(http::HeaderValue::as_bytes) {
            None => Ok(configured),
            Some(b"cancel") => Ok(OnDisconnect::Cancel),
            Some(b"drain") => Ok(OnDisconnect::Drain(drain_for)),
            Some(_) => {
                Err(InvalidRequest { message: format!("{ON_LEAVE_HEADER}: expected cancel or drain"), param: None })
            }
        }
    }
}

/// The answers that are read on.
#[derive(Clone, Debug)]
pub struct Drains {
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Drains {
    /// At most this many at once.
    pub fn new(max_drains: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max_drains)),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// A place, if there is one.
    pub fn try_acquire(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// Does this in a task that outlives the client. It is waited for when the gateway stops.
    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.tasks.spawn(task)
    }

    /// Resolves when nothing more is to be read.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Waits for the tasks, no longer than this, and then stops them.
    pub async fn finish(&self, within: Duration) {
        self.tasks.close();
        if tokio::time::timeout(within, self.tasks.wait()).await.is_err() {
            self.stop.cancel();
            let _ = tokio::time::timeout(STOP_TIMEOUT, self.tasks.wait()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_overrides_the_route_and_the_route_the_deployment() {
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
        let policy = DisconnectPolicy { default: OnDisconnect::Cancel, drain_for: minute, max_drains: 1 };
        let asks = |word: Option<&'static str>, route: Option<RouteOnDisconnect>| {
            let headers = word.map(|word| (http::HeaderName::from_static(ON_LEAVE_HEADER), word.parse().unwrap()));
            policy.resolve(&headers.into_iter().collect(), route).map_err(|error| error.message)
        };
        assert_eq!(asks(None, None), Ok(OnDisconnect::Cancel));
        let drains_for = |bound| Some(RouteOnDisconnect::Drain(bound));
        assert_eq!(asks(None, drains_for(Some(hour))), Ok(OnDisconnect::Drain(hour)));
        assert_eq!(asks(None, drains_for(None)), Ok(OnDisconnect::Drain(minute)), "the deployment's");
        assert_eq!(asks(None, Some(RouteOnDisconnect::Cancel)), Ok(OnDisconnect::Cancel));
        assert_eq!(asks(Some("cancel"), drains_for(Some(hour))), Ok(OnDisconnect::Cancel));
        assert_eq!(asks(Some("drain"), Some(RouteOnDisconnect::Cancel)), Ok(OnDisconnect::Drain(minute)));
        assert_eq!(asks(Some("drain"), drains_for(Some(hour))), Ok(OnDisconnect::Drain(hour)));
        assert_eq!(asks(Some("stay"), None), Err("x-stenograph-on-leave: expected cancel or drain".to_owned()));
    }
}
