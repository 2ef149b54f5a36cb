//! Client disconnects: the policy for answers whose client leaves early, and the tasks that drain such answers.
//!
//! An answer is either cancelled or drained. A drain reads the rest of the answer for the record alone. In both cases the
//! content is recorded with the finish reason `client_gone`. Drains are limited in time (by the route or the deployment)
//! and in number; when the maximum number is running, the upstream request is cancelled instead.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::request::InvalidRequest;
use crate::routing::{OnDisconnect, RouteOnDisconnect};

/// The request header that overrides the policy for one chat: `cancel` or `drain`.
pub const ON_LEAVE_HEADER: &str = "x-stenograph-on-leave";

/// The maximum time for drains to record the ends of their chats after the order to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The disconnect policy of the deployment.
#[derive(Clone, Copy, Debug)]
pub struct DisconnectPolicy {
    /// The action if neither the route nor the request names one: `GATEWAY_ON_LEAVE`.
    pub default: OnDisconnect,
    /// The maximum duration of a drain if the route sets none: `GATEWAY_DRAIN_FOR`.
    pub drain_for: Duration,
    /// The maximum number of concurrent drains: `GATEWAY_MAX_DRAINING`.
    pub max_drains: usize,
}

impl Default for DisconnectPolicy {
    fn default() -> Self {
        Self { default: OnDisconnect::Cancel, drain_for: Duration::from_secs(120), max_drains: 1000 }
    }
}

impl DisconnectPolicy {
    /// Returns the action for one request. The request's header overrides the route, and the route overrides the
    /// deployment. An unknown value of the header is an error.
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

/// The running drains: permits that limit the number, and the tasks that a stopping gateway waits for.
#[derive(Clone, Debug)]
pub struct Drains {
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Drains {
    /// Creates an empty set that admits at most `max_drains` drains at once.
    pub fn new(max_drains: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max_drains)),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Returns the permit for one drain. `None` if the maximum number is running.
    pub fn try_acquire(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// Runs a future in a task that outlives the client's connection. [`Self::finish`] waits for the task.
    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.tasks.spawn(task)
    }

    /// Resolves when all drains have to stop.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Waits for all tasks. Tasks that are still running after `within` are told to stop, and get 5 more seconds to record
    /// the ends of their chats.
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
        assert_eq!(asks(None, drains_for(None)), Ok(OnDisconnect::Drain(minute)), "the deployment's maximum");
        assert_eq!(asks(None, Some(RouteOnDisconnect::Cancel)), Ok(OnDisconnect::Cancel));
        assert_eq!(asks(Some("cancel"), drains_for(Some(hour))), Ok(OnDisconnect::Cancel));
        assert_eq!(asks(Some("drain"), Some(RouteOnDisconnect::Cancel)), Ok(OnDisconnect::Drain(minute)));
        assert_eq!(asks(Some("drain"), drains_for(Some(hour))), Ok(OnDisconnect::Drain(hour)));
        assert_eq!(asks(Some("stay"), None), Err("x-stenograph-on-leave: expected cancel or drain".to_owned()));
    }
}
