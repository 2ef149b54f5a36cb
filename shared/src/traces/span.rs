//! A span on its way to the collector.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::Link;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status, span};
use time::OffsetDateTime;

use crate::trace_context::TraceContext;

/// The kind of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Work within a service.
    Internal,
    /// The work of a service for a request.
    Server,
    /// A request to another service.
    Client,
    /// The sending of a message.
    Producer,
    /// The processing of a message.
    Consumer,
}

/// A span, put together when it ends.
#[derive(Clone, Debug)]
pub struct SpanBuilder(Span);

impl SpanBuilder {
    /// Begins a span. `parent` is the id of the span above.
    pub fn new(name: impl Into<String>, kind: SpanKind, context: TraceContext, parent: Option<[u8; 8]>) -> Self {
        let kind = match kind {
            SpanKind::Internal => span::SpanKind::Internal,
            SpanKind::Server => span::SpanKind::Server,
            SpanKind::Client => span::SpanKind::Client,
            SpanKind::Producer => span::SpanKind::Producer,
            SpanKind::Consumer => span::SpanKind::Consumer,
        };
        Self(Span {
            trace_id: context.trace_id.to_vec(),
            span_id: context.span_id.to_vec(),
            parent_span_id: parent.map(Vec::from).unwrap_or_default(),
            flags: u32::from(context.is_sampled()),
            name: name.into(),
            kind: kind.into(),
            ..Span::default()
        })
    }

    /// Sets the times at which the span began and ended.
    #[must_use]
    pub fn times(mut self, began: OffsetDateTime, ended: OffsetDateTime) -> Self {
        self.0.start_time_unix_nano = nanoseconds(began);
        self.0.end_time_unix_nano = nanoseconds(ended).max(self.0.start_time_unix_nano);
        self
    }

    /// Adds a text.
    #[must_use]
    pub fn text(self, key: &str, value: impl Into<String>) -> Self {
        self.attribute(key, Value::StringValue(value.into()))
    }

    /// Adds a text, if there is one.
    #[must_use]
    pub fn optional_text(self, key: &str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.text(key, value),
            None => self,
        }
    }

    /// Adds a list of one text, if there is one.
    #[must_use]
    pub fn optional_list(self, key: &str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => {
                let values = vec![AnyValue { value: Some(Value::StringValue(value.into())) }];
                self.attribute(key, Value::ArrayValue(ArrayValue { values }))
            }
            None => self,
        }
    }

    /// Adds a number, if there is one.
    #[must_use]
    pub fn number(self, key: &str, value: Option<u64>) -> Self {
        match value {
            Some(value) => self.attribute(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX))),
            None => self,
        }
    }

    /// Adds a number with decimals, if there is one.
    #[must_use]
    pub fn seconds(self, key: &str, value: Option<f64>) -> Self {
        match value {
            Some(value) => self.attribute(key, Value::DoubleValue(value)),
            None => self,
        }
    }

    /// Links the span with a span of another trace.
    #[must_use]
    pub fn link(mut self, to: TraceContext) -> Self {
        self.0.links.push(Link {
            trace_id: to.trace_id.to_vec(),
            span_id: to.span_id.to_vec(),
            flags: u32::from(to.is_sampled()),
            ..Link::default()
        });
        self
    }

    /// Marks the span as failed, if there is an error: a word from a small set.
    #[must_use]
    pub fn error(self, error: Option<&str>) -> Self {
        let Some(error) = error else { return self };
        let mut failed = self.text("error.type", error);
        failed.0.status = Some(Status { message: String::new(), code: StatusCode::Error.into() });
        failed
    }

    fn attribute(mut self, key: &str, value: Value) -> Self {
        let value = Some(AnyValue { value: Some(value) });
        self.0.attributes.push(KeyValue { key: key.to_owned(), value, ..KeyValue::default() });
        self
    }

    pub(super) fn build(self) -> Span {
        self.0
    }
}

fn nanoseconds(time: OffsetDateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos()).unwrap_or_default()
}
