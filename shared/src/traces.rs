//! Spans of traces, which are sent to an OpenTelemetry collector. Off without `OTEL_EXPORTER_OTLP_ENDPOINT`, and then a [`Tracer`] makes
//! nothing.
//!
//! Spans are put together when they end, from what the services know anyway, and go into a bounded queue. A full queue drops spans: the
//! services never wait for a collector. No span holds the text of a chat.

mod config;
mod counts;
mod export;
mod span;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::sync::mpsc::{self, Sender};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use config::TraceConfig;
pub use counts::{SpanCounts, SpanOutcome};
pub use span::{SpanBuilder, SpanKind};

use crate::http_client::{self, ClientError};
use crate::trace_context::TraceContext;
use export::Exporter;

/// The maximum number of spans that wait to be sent. A span of a chat has about 1 KiB.
const MAX_QUEUED_SPANS: usize = 8192;

/// The maximum time at the end of the process for sending the last spans.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The place of a chat, or of a batch, in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The span of the chat or batch.
    pub context: TraceContext,
    /// The parent of the span, in the service that sent the request. `None` for the first span of a trace.
    pub parent: Option<[u8; 8]>,
}

/// Makes spans. Clones share one queue.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<Queue>>);

#[derive(Debug)]
struct Queue {
    spans: Sender<Span>,
    /// Of the traces that begin here, those are kept whose 64-bit number is below this one.
    kept_below: u128,
    counts: SpanCounts,
}

/// The task that sends spans to the collector. `None` if no spans are made.
#[derive(Debug)]
pub struct Exporting(Option<(JoinHandle<()>, CancellationToken)>);

impl Tracer {
    /// Starts the task that sends spans. Without `config`, the tracer makes no spans. `service` is the program's name, and `instance` the
    /// name of this process.
    pub fn start(
        config: Option<TraceConfig>,
        (service, instance): (&'static str, &str),
        counts: SpanCounts,
    ) -> Result<(Self, Exporting), ClientError> {
        let Some(config) = config else { return Ok((Self::default(), Exporting(None))) };
        let (sender, receiver) = mpsc::channel(MAX_QUEUED_SPANS);
        let kept_below = config.kept_below();
        tracing::info!(endpoint = config.endpoint(), share = config.share(), "traces are sent to a collector");
        let exporter = Exporter::new(http_client::client()?, config, (service, instance), counts.clone());
        let stop = CancellationToken::new();
        let task = tokio::spawn(exporter.run(receiver, stop.clone()));
        Ok((Self(Some(Arc::new(Queue { spans: sender, kept_below, counts }))), Exporting(Some((task, stop)))))
    }

    /// Finds the place of a request in a trace: below the client's span, if the client sent one; otherwise in a new trace for the configured
    /// share of requests. The client decides whether its trace is kept.
    pub fn begin(&self, client: Option<TraceContext>) -> Option<Position> {
        match (&self.0, client) {
            (Some(_), Some(client)) if client.is_sampled() => {
                let context = client.with_span(random_span());
                Some(Position { context, parent: Some(client.span_id) })
            }
            // Where no spans are made here, the client's own span is the parent of what others make.
            (_, Some(context)) => Some(Position { context, parent: None }),
            (Some(queue), None) => {
                let trace_id: [u8; 16] = rand::random();
                let number = u64::from_be_bytes(std::array::from_fn(|index| trace_id[8 + index]));
                let context = TraceContext::new(trace_id, random_span(), true);
                let context = context.filter(|_| u128::from(number) < queue.kept_below)?;
                Some(Position { context, parent: None })
            }
            (None, None) => None,
        }
    }

    /// Begins a trace that is kept, of work that belongs to several traces. `None` if the tracer is off.
    pub fn begin_kept(&self) -> Option<TraceContext> {
        self.0.as_ref().and_then(|_| TraceContext::new(rand::random(), random_span(), true))
    }

    /// Returns the context if spans are made for its trace.
    pub fn kept(&self, context: Option<TraceContext>) -> Option<TraceContext> {
        context.filter(|context| self.0.is_some() && context.is_sampled())
    }

    /// Puts a span into the queue, or drops the span if the queue is full.
    pub fn send(&self, span: SpanBuilder) {
        if let Some(queue) = &self.0
            && queue.spans.try_send(span.build()).is_err()
        {
            queue.counts.add("dropped", 1);
        }
    }
}

fn random_span() -> [u8; 8] {
    rand::random::<u64>().max(1).to_be_bytes()
}

impl Exporting {
    /// Sends the spans that are waiting, for 2 seconds at most. Spans that are made later are dropped.
    pub async fn finish(self) {
        let Some((mut task, stop)) = self.0 else { return };
        stop.cancel();
        if tokio::time::timeout(FLUSH_TIMEOUT, &mut task).await.is_err() {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(share: f64) -> (Tracer, mpsc::Receiver<Span>) {
        let (spans, receiver) = mpsc::channel(2);
        let kept_below = config::kept_below(share);
        (Tracer(Some(Arc::new(Queue { spans, kept_below, counts: SpanCounts::default() }))), receiver)
    }

    #[test]
    fn the_client_decides_whether_its_trace_is_kept() {
        let client: TraceContext = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
        let unkept: TraceContext = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00".parse().unwrap();
        let (none, _queue) = tracer(0.0);
        let position = none.begin(Some(client)).unwrap();
        assert_eq!((position.context.trace_id, position.parent), (client.trace_id, Some(client.span_id)));
        assert_ne!(position.context.span_id, client.span_id);
        assert_eq!(none.begin(Some(unkept)), Some(Position { context: unkept, parent: None }));
        assert_eq!(none.kept(Some(unkept)), None);
        assert_eq!(none.begin(None), None);

        let off = Tracer::default();
        assert_eq!(off.begin(Some(client)), Some(Position { context: client, parent: None }));
        assert_eq!((off.begin(None), off.kept(Some(client)), off.begin_kept()), (None, None, None));
    }

    #[test]
    fn the_share_of_requests_begins_a_trace() {
        let (all, _queue) = tracer(1.0);
        assert!((0..1000).all(|_| all.begin(None).is_some()));
        let (quarter, _queue) = tracer(0.25);
        let kept = (0..4000).filter(|_| quarter.begin(None).is_some()).count();
        assert!((850..1150).contains(&kept), "{kept}");
    }

    #[test]
    fn a_full_queue_drops_spans_and_counts_them() {
        let (tracer, mut queue) = tracer(1.0);
        let context = tracer.begin(None).unwrap().context;
        for _ in 0..5 {
            tracer.send(SpanBuilder::new("a", SpanKind::Internal, context, None));
        }
        assert_eq!(tracer.0.as_ref().unwrap().counts.get("dropped"), 3);
        assert_eq!(queue.try_recv().unwrap().trace_id, context.trace_id);
    }
}
