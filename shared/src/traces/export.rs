//! Sending spans to the collector: OTLP over HTTP, in protobuf, in batches.

use std::time::Duration;

use http::StatusCode;
use http::header::CONTENT_TYPE;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::config::TraceConfig;
use super::counts::SpanCounts;

/// The maximum number of spans of a request to the collector.
const MAX_BATCH_SPANS: usize = 512;

/// The time for which spans wait for others.
const BATCH_DELAY: Duration = Duration::from_secs(1);

/// The maximum time of a request to the collector.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The pauses before a batch is sent again. After them, the batch is given up.
const RETRY_PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// Sends the spans of a queue to the collector.
pub(super) struct Exporter {
    client: reqwest::Client,
    config: TraceConfig,
    url: String,
    resource: Resource,
    counts: SpanCounts,
    /// True after a batch was given up, until the collector takes one.
    is_failing: bool,
}

/// The reasons for which the collector does not have a batch.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    /// The collector cannot be reached.
    #[error("the collector gives no answer: {0}")]
    NoAnswer(reqwest::Error),
    /// The collector refused the batch.
    #[error("the collector answers {0}")]
    Refused(StatusCode),
}

impl ExportError {
    /// Returns true if the same batch may be taken later, by the rules of OTLP.
    fn is_temporary(&self) -> bool {
        match self {
            Self::NoAnswer(_) => true,
            Self::Refused(status) => matches!(status.as_u16(), 429 | 502..=504),
        }
    }
}

impl Exporter {
    pub(super) fn new(
        client: reqwest::Client,
        config: TraceConfig,
        (service, instance): (&'static str, &str),
        counts: SpanCounts,
    ) -> Self {
        let text = |key: &str, value: &str| KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) }),
            ..KeyValue::default()
        };
        let attributes = vec![
            text("service.name", service),
            text("service.namespace", "stenograph"),
            text("service.instance.id", instance),
            text("service.version", env!("CARGO_PKG_VERSION")),
        ];
        let url = format!("{}/v1/traces", config.endpoint());
        Self {
            client,
            config,
            url,
            resource: Resource { attributes, ..Resource::default() },
            counts,
            is_failing: false,
        }
    }

    /// Sends spans until told to stop, and then the spans that are waiting.
    pub(super) async fn run(mut self, mut queue: Receiver<Span>, stop: CancellationToken) {
        let mut spans = Vec::with_capacity(MAX_BATCH_SPANS);
        loop {
            if stop.run_until_cancelled(collect(&mut queue, &mut spans)).await.is_none() {
                queue.close();
                // Collecting adds spans only when it has them, so none is lost by the cancellation.
                queue.recv_many(&mut spans, MAX_BATCH_SPANS).await;
            }
            if spans.is_empty() {
                return;
            }
            self.export(std::mem::take(&mut spans)).await;
        }
    }

    async fn export(&mut self, spans: Vec<Span>) {
        let number = spans.len();
        let scope = InstrumentationScope { name: "stenograph".to_owned(), ..InstrumentationScope::default() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
        let resource = Some(self.resource.clone());
        let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
        let request = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let mut pauses = RETRY_PAUSES.into_iter();
        loop {
            match self.post(request.clone()).await {
                Ok(()) => {
                    self.counts.add("sent", number);
                    if std::mem::take(&mut self.is_failing) {
                        tracing::info!("the collector of traces takes spans again");
                    }
                    return;
                }
                Err(error) => match pauses.next().filter(|_| error.is_temporary()) {
                    Some(pause) => sleep(pause).await,
                    None => {
                        self.counts.add("failed", number);
                        if !std::mem::replace(&mut self.is_failing, true) {
                            tracing::warn!(%error, "spans of traces could not be sent to the collector; they are lost");
                        }
                        return;
                    }
                },
            }
        }
    }

    async fn post(&self, request: Vec<u8>) -> Result<(), ExportError> {
        let mut post = self.client.post(&self.url).timeout(REQUEST_TIMEOUT).body(request);
        post = post.header(CONTENT_TYPE, "application/x-protobuf");
        for (name, value) in self.config.headers() {
            post = post.header(name, value);
        }
        let status = post.send().await.map_err(|error| ExportError::NoAnswer(error.without_url()))?.status();
        if status.is_success() { Ok(()) } else { Err(ExportError::Refused(status)) }
    }
}

/// Collects spans into `spans` until a batch is full or the first span has waited long enough.
async fn collect(queue: &mut Receiver<Span>, spans: &mut Vec<Span>) {
    queue.recv_many(spans, MAX_BATCH_SPANS).await;
    let deadline = Instant::now() + BATCH_DELAY;
    while spans.len() < MAX_BATCH_SPANS {
        let room = MAX_BATCH_SPANS - spans.len();
        match timeout_at(deadline, queue.recv_many(spans, room)).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
