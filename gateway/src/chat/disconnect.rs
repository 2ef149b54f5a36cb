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
use crate::routing::{Leaving, RouteLeaving};

/// Where a request says what is to happen: `cancel` or `drain`.
pub const HEADER: &str = "x-stenograph-on-leave";

/// How long a drain that is asked to stop may take to do so: it only has to be put on the record.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// The rule of the deployment.
#[derive(Clone, Copy, Debug)]
pub struct LeavingRule {
    /// What happens where neither the route nor the request says.
    pub otherwise: Leaving,
    /// How long a drain may take where the route does not say.
    pub drain_for: Duration,
    /// Drains at once.
    pub most: usize,
}

impl Default for LeavingRule {
    fn default() -> Self {
        Self { otherwise: Leaving::Cancel, drain_for: Duration::from_secs(120), most: 1000 }
    }
}

impl LeavingRule {
    /// What happens to this request: the request's own word goes before the route's, and that before the deployment's.
    pub fn of(&self, headers: &HeaderMap, route: Option<RouteLeaving>) -> Result<Leaving, InvalidRequest> {
        let drain_for = match route {
            Some(RouteLeaving::Drain(Some(drain_for))) => drain_for,
            Some(RouteLeaving::Drain(None) | RouteLeaving::Cancel) | None => self.drain_for,
        };
        let standing = match route {
            Some(RouteLeaving::Drain(_)) => Leaving::Drain(drain_for),
            Some(RouteLeaving::Cancel) => Leaving::Cancel,
            None => self.otherwise,
        };
        match headers.get(HEADER).map(http::HeaderValue::as_bytes) {
            None => Ok(standing),
            Some(b"cancel") => Ok(Leaving::Cancel),
            Some(b"drain") => Ok(Leaving::Drain(drain_for)),
            Some(_) => Err(InvalidRequest { message: format!("{HEADER}: expected cancel or drain"), param: None }),
        }
    }
}

/// The answers that are read on.
#[derive(Clone, Debug)]
pub struct Drains {
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Drains {
    /// At most this many at once.
    pub fn new(most: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(most)), tasks: TaskTracker::new(), stop: CancellationToken::new() }
    }

    /// A place, if there is one.
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
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
            let _ = tokio::time::timeout(STOP_WITHIN, self.tasks.wait()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_goes_before_the_route_and_that_before_the_deployment() {
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
        let rule = LeavingRule { otherwise: Leaving::Cancel, drain_for: minute, most: 1 };
        let asks = |word: Option<&'static str>, route: Option<RouteLeaving>| {
            let headers = word.map(|word| (http::HeaderName::from_static(HEADER), word.parse().unwrap()));
            rule.of(&headers.into_iter().collect(), route).map_err(|error| error.message)
        };
        assert_eq!(asks(None, None), Ok(Leaving::Cancel));
        let drains_for = |bound| Some(RouteLeaving::Drain(bound));
        assert_eq!(asks(None, drains_for(Some(hour))), Ok(Leaving::Drain(hour)));
        assert_eq!(asks(None, drains_for(None)), Ok(Leaving::Drain(minute)), "the deployment's");
        assert_eq!(asks(None, Some(RouteLeaving::Cancel)), Ok(Leaving::Cancel));
        assert_eq!(asks(Some("cancel"), drains_for(Some(hour))), Ok(Leaving::Cancel));
        assert_eq!(asks(Some("drain"), Some(RouteLeaving::Cancel)), Ok(Leaving::Drain(minute)));
        assert_eq!(asks(Some("drain"), drains_for(Some(hour))), Ok(Leaving::Drain(hour)));
        assert_eq!(asks(Some("stay"), None), Err("x-stenograph-on-leave: expected cancel or drain".to_owned()));
    }
}
