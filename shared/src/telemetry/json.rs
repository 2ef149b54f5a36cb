//! The JSON log format: one object per line with `timestamp`, `level` and the fields of the log event.
//!
//! Each line is written in one pass without an intermediate JSON tree, because every chat logs a line, and the cost of
//! the line is part of the cost of the chat.

use std::fmt::{self, Write as _};

use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use super::line_rate::LineRate;

/// The formatter that writes each log event as a JSON object. The member `left_out` has the number of earlier lines of the same place that
/// the bound on lines has left out.
#[derive(Debug, Default)]
pub(super) struct JsonFormat(pub(super) LineRate);

impl<S, N> FormatEvent<S, N> for JsonFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let now = crate::event::now().format(&Rfc3339).map_err(|_| fmt::Error)?;
        line.write_str("{\"timestamp\":\"")?;
        line.write_str(&now)?;
        line.write_str("\",\"level\":\"")?;
        line.write_str(event.metadata().level().as_str())?;
        line.write_str("\"")?;
        let mut fields = FieldWriter { line: line.by_ref(), result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        let left_out = self.0.take_left_out(event.metadata());
        if left_out > 0 {
            write!(line, ",\"left_out\":{left_out}")?;
        }
        line.write_str("}\n")
    }
}

/// A visitor that writes the fields of a log event as members of the JSON object.
struct FieldWriter<'a> {
    line: Writer<'a>,
    result: fmt::Result,
}

impl FieldWriter<'_> {
    fn member(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if self.result.is_ok() {
            self.result = (|| {
                self.line.write_str(",\"")?;
                JsonEscaper(&mut self.line).write_str(field.name())?;
                self.line.write_str("\":")?;
                value(&mut self.line)
            })();
        }
    }

    fn string(&mut self, field: &Field, text: impl FnOnce(&mut JsonEscaper<'_, '_>) -> fmt::Result) {
        self.member(field, |line| {
            line.write_char('"')?;
            text(&mut JsonEscaper(line))?;
            line.write_char('"')
        });
    }
}

impl Visit for FieldWriter<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.string(field, |text| write!(text, "{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.string(field, |text| text.write_str(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, |line| line.write_str(itoa::Buffer::new().format(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, |line| line.write_str(itoa::Buffer::new().format(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, |line| line.write_str(if value { "true" } else { "false" }));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN and no infinity.
        self.member(field, |line| if value.is_finite() { write!(line, "{value:?}") } else { line.write_str("null") });
    }
}

/// A writer that escapes text for the inside of a JSON string.
struct JsonEscaper<'a, 'w>(&'a mut Writer<'w>);

impl fmt::Write for JsonEscaper<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.bytes().position(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
            self.0.write_str(&rest[..at])?;
            match rest.as_bytes()[at] {
                b'"' => self.0.write_str("\\\"")?,
                b'\\' => self.0.write_str("\\\\")?,
                b'\n' => self.0.write_str("\\n")?,
                control => write!(self.0, "\\u{control:04x}")?,
            }
            rest = &rest[at + 1..];
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Debug, Default)]
    struct SharedOutput(Arc<Mutex<Vec<u8>>>);

    impl io::Write for SharedOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log_lines(log: impl FnOnce()) -> Vec<serde_json::Value> {
        let output = SharedOutput::default();
        let writer = output.clone();
        let subscriber =
            tracing_subscriber::fmt().event_format(JsonFormat::default()).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = output.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn every_kind_of_field_is_written_as_json() {
        let odd = "a \"quoted\" back\\slash,\nlines\r\tand \u{1} é 😀";
        let error = io::Error::other(odd);
        let lines = log_lines(|| {
            let (absent, present): (Option<u64>, Option<u64>) = (None, Some(7));
            tracing::info!(
                text = odd, display = %odd, debug = ?odd, %error, absent, present, negative = -1_i64, yes = true,
                half = 0.5, whole = 2.0, none = f64::NAN, status = 200_u16, "it {}", "happened"
            );
            tracing::error!("\"");
        });
        let mut first = lines[0].clone();
        let time = first["timestamp"].take();
        assert!(time::OffsetDateTime::parse(time.as_str().unwrap(), &Rfc3339).is_ok(), "{time}");
        let expected = serde_json::json!({
            "timestamp": null, "level": "INFO", "message": "it happened", "text": odd, "display": odd,
            "debug": format!("{odd:?}"), "error": odd, "present": 7, "negative": -1, "yes": true,
            "half": 0.5, "whole": 2.0, "none": null, "status": 200,
        });
        assert_eq!(first, expected);
        assert_eq!((&lines[1]["level"], &lines[1]["message"]), (&"ERROR".into(), &"\"".into()));
    }
}
