//! What an upstream does with one request, byte by byte.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::sync::watch;

use crate::openai::{Answer, ApiError, ChatRequest, Usage};

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Step {
    /// Send these bytes.
    Send(Bytes),
    /// Wait this long.
    Pause(Duration),
    /// Wait until the test opens the gate.
    Wait(Gate),
    /// Do nothing more, for ever.
    Hang,
    /// Close the connection, whatever was still to come.
    Cut,
}

/// Everything that happens to one request.
#[derive(Clone, Debug)]
pub struct Script {
    /// What happens before the head of the response. A cut here means that there is none.
    pub before: Vec<Step>,
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<Step>,
    /// What the account is charged when all of it has been sent.
    pub usage: Option<Usage>,
}

impl Script {
    /// An empty response.
    pub fn new(status: StatusCode) -> Self {
        Self { before: Vec::new(), status, headers: HeaderMap::new(), body: Vec::new(), usage: None }
    }

    /// An event stream of exactly these pieces.
    pub fn stream(pieces: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        let stream = Self::new(StatusCode::OK).header(CONTENT_TYPE, "text/event-stream; charset=utf-8");
        let body = pieces.into_iter().map(|piece| Step::Send(piece.into())).collect();
        Self { body, ..stream.header(CACHE_CONTROL, "no-cache") }
    }

    /// A JSON body, as it is.
    pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self { body: vec![Step::Send(body.into())], ..Self::new(status).header(CONTENT_TYPE, "application/json") }
    }

    /// An error as the provider would answer it.
    pub fn error(error: &ApiError) -> Self {
        Self::json(error.status, error.body())
    }

    /// This answer to this request, streamed if the request says so, charged to the account.
    pub fn answer(request: &ChatRequest, answer: &Answer) -> Self {
        let script = if request.streams() {
            Self::stream(answer.events(request.wants_usage()))
        } else {
            Self::json(StatusCode::OK, answer.completion())
        };
        Self { usage: Some(answer.usage), ..script }
    }

    /// The same with a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    /// The same, with `step` done before the head of the response.
    #[must_use]
    pub fn before(mut self, step: Step) -> Self {
        self.before.push(step);
        self
    }

    /// The same, with `step` done after the first `pieces` pieces of the body.
    #[must_use]
    pub fn after(mut self, pieces: usize, step: Step) -> Self {
        let sends = self.body.iter().enumerate().filter(|(_, step)| matches!(step, Step::Send(_)));
        let place = sends.map(|(place, _)| place + 1).nth(pieces.wrapping_sub(1));
        let place = place.unwrap_or(if pieces == 0 { 0 } else { self.body.len() });
        self.body.insert(place, step);
        self
    }

    /// The same, with a pause after each piece but the last.
    #[must_use]
    pub fn paced(mut self, pause: Duration) -> Self {
        if !pause.is_zero() {
            let last = self.body.len().saturating_sub(1);
            let steps = self.body.into_iter().enumerate();
            let paced = steps.flat_map(|(n, step)| [Some(step), (n < last).then_some(Step::Pause(pause))]);
            self.body = paced.flatten().collect();
        }
        self
    }
}

/// A place in a script where the upstream waits for the test, and the test can wait for the upstream.
#[derive(Clone, Debug)]
pub struct Gate {
    open: Arc<watch::Sender<bool>>,
    reached: Arc<watch::Sender<usize>>,
}

impl Gate {
    /// A closed one.
    pub fn new() -> Self {
        Self { open: Arc::new(watch::Sender::new(false)), reached: Arc::new(watch::Sender::new(0)) }
    }

    /// Lets everyone through, now and later.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until this many requests have come here.
    pub async fn reached(&self, requests: usize) {
        // The sender lives in this gate, so waiting cannot fail.
        let _ = self.reached.subscribe().wait_for(|reached| *reached >= requests).await;
    }

    /// Waits to be let through.
    pub(super) async fn pass(&self) {
        self.reached.send_modify(|reached| *reached += 1);
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}
