//! Scripts of responses: each says byte by byte what an upstream sends for one request, and when.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::sync::watch;

use crate::openai::{Answer, ApiError, ChatRequest, Usage};

/// A step of a script.
#[derive(Clone, Debug)]
pub enum Step {
    /// Sends the bytes as one piece of the body.
    Send(Bytes),
    /// Waits for this time.
    Pause(Duration),
    /// Waits until the test opens the gate.
    Wait(Gate),
    /// Sends no further byte, and keeps the connection open.
    Hang,
    /// Closes the connection. Later steps are skipped.
    Cut,
}

/// The response to one request.
#[derive(Clone, Debug)]
pub struct Script {
    /// Steps before the head of the response. After a cut there is no head.
    pub before: Vec<Step>,
    /// Status of the response.
    pub status: StatusCode,
    /// Headers of the response.
    pub headers: HeaderMap,
    /// Steps of the body.
    pub body: Vec<Step>,
    /// Usage that counts towards `ServedTotals` once the whole body has been sent.
    pub usage: Option<Usage>,
}

impl Script {
    /// A response without headers and body.
    pub fn new(status: StatusCode) -> Self {
        Self { before: Vec::new(), status, headers: HeaderMap::new(), body: Vec::new(), usage: None }
    }

    /// An event stream of exactly these pieces, each written by itself.
    pub fn stream(pieces: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        let stream = Self::new(StatusCode::OK).header(CONTENT_TYPE, "text/event-stream; charset=utf-8");
        let body = pieces.into_iter().map(|piece| Step::Send(piece.into())).collect();
        Self { body, ..stream.header(CACHE_CONTROL, "no-cache") }
    }

    /// A response with this JSON body.
    pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self { body: vec![Step::Send(body.into())], ..Self::new(status).header(CONTENT_TYPE, "application/json") }
    }

    /// A response with this error of the provider.
    pub fn error(error: &ApiError) -> Self {
        Self::json(error.status, error.body())
    }

    /// A response with this answer: a stream if the request asks for one, else a JSON body. The usage counts.
    pub fn answer(request: &ChatRequest, answer: &Answer) -> Self {
        let script = if request.streams() {
            Self::stream(answer.events(request.wants_usage()))
        } else {
            Self::json(StatusCode::OK, answer.completion())
        };
        Self { usage: Some(answer.usage), ..script }
    }

    /// Adds a header to the response head.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    /// Adds a step before the head of the response.
    #[must_use]
    pub fn before(mut self, step: Step) -> Self {
        self.before.push(step);
        self
    }

    /// Inserts a step after the first `pieces` pieces of the body.
    #[must_use]
    pub fn after(mut self, pieces: usize, step: Step) -> Self {
        let sends = self.body.iter().enumerate().filter(|(_, step)| matches!(step, Step::Send(_)));
        let place = sends.map(|(place, _)| place + 1).nth(pieces.wrapping_sub(1));
        let place = place.unwrap_or(if pieces == 0 { 0 } else { self.body.len() });
        self.body.insert(place, step);
        self
    }

    /// Inserts a pause after each piece of the body but the last.
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

/// A point in a script where the upstream waits until the test opens the gate. The test can wait until requests have arrived.
#[derive(Clone, Debug)]
pub struct Gate {
    open: Arc<watch::Sender<bool>>,
    reached: Arc<watch::Sender<usize>>,
}

impl Gate {
    /// Returns a closed gate.
    pub fn new() -> Self {
        Self { open: Arc::new(watch::Sender::new(false)), reached: Arc::new(watch::Sender::new(0)) }
    }

    /// Opens the gate for all requests, present and future.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until `requests` requests have arrived at the gate.
    pub async fn reached(&self, requests: usize) {
        // This gate owns the sender, so waiting cannot fail.
        let _ = self.reached.subscribe().wait_for(|reached| *reached >= requests).await;
    }

    /// Counts an arrival and waits until the gate is open.
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
