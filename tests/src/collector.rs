//! A collector of traces: a server that takes OTLP over HTTP in protobuf, and keeps the spans. The messages are read with the types that are
//! generated from the protocol's own definitions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// A running collector. Stops when dropped.
#[derive(Debug)]
pub struct Collector {
    endpoint: String,
    state: Arc<CollectorState>,
    server: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct CollectorState {
    spans: Mutex<Vec<CollectedSpan>>,
    headers: Mutex<HeaderMap>,
    /// The status with which batches are refused; 0 takes them.
    refusal: AtomicU16,
}

/// A span that the collector has received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectedSpan {
    /// The name of the service that sent the span.
    pub service: String,
    /// The name of the span.
    pub name: String,
    /// The id of the trace, in hexadecimal.
    pub trace: String,
    /// The id of the span, in hexadecimal.
    pub id: String,
    /// The id of the parent, in hexadecimal; empty for the first span of a trace.
    pub parent: String,
    /// The kind, by its number in OTLP: 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: i32,
    /// The time from the beginning to the end, in nanoseconds since 1970.
    pub times: (u64, u64),
    /// The attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// The linked spans.
    pub links: Vec<String>,
    /// True if the span failed.
    pub is_error: bool,
}

impl Collector {
    /// Starts a collector on a free port.
    pub async fn start() -> anyhow::Result<Self> {
        let state = Arc::new(CollectorState::default());
        let router = Router::new().route("/v1/traces", post(collect)).with_state(Arc::clone(&state));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let server = tokio::spawn(async move {
            // Ends with the test.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { endpoint, state, server })
    }

    /// Returns the base URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Refuses all batches with this status; 0 takes them again.
    pub fn refuse_with(&self, status: u16) {
        self.state.refusal.store(status, Ordering::Relaxed);
    }

    /// Returns the headers of the last batch.
    pub fn headers(&self) -> HeaderMap {
        self.state.headers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns all spans so far.
    pub fn spans(&self) -> Vec<CollectedSpan> {
        self.state.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the spans satisfy `is_enough`, and returns them. Fails after `within`, with the names of the spans.
    pub async fn wait_for(
        &self,
        within: Duration,
        is_enough: impl Fn(&[CollectedSpan]) -> bool,
    ) -> anyhow::Result<Vec<CollectedSpan>> {
        let deadline = Instant::now() + within;
        loop {
            let spans = self.spans();
            if is_enough(&spans) {
                return Ok(spans);
            }
            let names = || spans.iter().map(|span| format!("{}: {}", span.service, span.name)).collect::<Vec<_>>();
            ensure!(Instant::now() < deadline, "too few spans: {:?}", names());
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn collect(State(state): State<Arc<CollectorState>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let refusal = state.refusal.load(Ordering::Relaxed);
    if refusal != 0 {
        return StatusCode::from_u16(refusal).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let Ok(spans) = decode(&headers, &body) else { return StatusCode::BAD_REQUEST };
    *state.headers.lock().unwrap_or_else(PoisonError::into_inner) = headers;
    state.spans.lock().unwrap_or_else(PoisonError::into_inner).extend(spans);
    StatusCode::OK
}

fn decode(headers: &HeaderMap, body: &[u8]) -> anyhow::Result<Vec<CollectedSpan>> {
    ensure!(headers.get("content-type").is_some_and(|value| value == "application/x-protobuf"));
    let mut spans = Vec::new();
    for of_resource in ExportTraceServiceRequest::decode(body)?.resource_spans {
        let resource = of_resource.resource.context("no resource")?;
        let service = attributes(&resource.attributes).remove("service.name").context("no service")?;
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            ensure!(span.trace_id.len() == 16 && span.span_id.len() == 8 && matches!(span.parent_span_id.len(), 0 | 8));
            spans.push(collected(&service, &span));
        }
    }
    Ok(spans)
}

fn collected(service: &str, span: &Span) -> CollectedSpan {
    CollectedSpan {
        service: service.to_owned(),
        name: span.name.clone(),
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        kind: span.kind,
        times: (span.start_time_unix_nano, span.end_time_unix_nano),
        attributes: attributes(&span.attributes),
        links: span.links.iter().map(|link| hex(&link.span_id)).collect(),
        is_error: span.status.as_ref().is_some_and(|status| status.code == 2),
    }
}

fn attributes(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    pairs.iter().map(|pair| (pair.key.clone(), pair.value.as_ref().map_or_else(String::new, text))).collect()
}

fn text(value: &AnyValue) -> String {
    match &value.value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::ArrayValue(list)) => list.values.iter().map(text).collect::<Vec<_>>().join(","),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
