//! The Parquet writer: `chats` and `messages` with the columns of the tables of the same names, and
//! `conversation_events` for conversations opened before the first chat, changed or deleted. Each dataset is a
//! directory with one subdirectory per UTC day (`chats/date=2026-01-31/`), a layout recognised as partitions by DuckDB,
//! Polars and pandas.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder, BooleanBuilder, Float64Builder, Int16Builder, Int32Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use shared::event::{About, Event};
use time::OffsetDateTime;

use crate::projection::chat::{Chat, ChatOutcome};
use crate::projection::message::Message;
use crate::projection::pg_value::PgJson;
use crate::projection::sql_enum::SqlEnum;

/// The maximum number of rows in memory, and the approximate maximum number of bytes, before rows are written to the
/// file.
const MAX_BUFFERED_ROWS: usize = 10_000;
const MAX_BUFFERED_BYTES: usize = 16 << 20;

/// The value of a column in a row, with the column's type.
#[derive(Debug)]
enum Value<'a> {
    Text(Option<&'a str>),
    Owned(String),
    OptionalOwned(Option<String>),
    Int16(i16),
    Int32(Option<i32>),
    Int64(Option<i64>),
    Double(Option<f64>),
    Bool(Option<bool>),
    Time(Option<OffsetDateTime>),
}

type Row<'a> = Vec<(&'static str, Value<'a>)>;

/// Returns a row of `chats`: the columns in order, with values.
fn chat_row(chat: &Chat) -> Row<'_> {
    let request = chat.request.as_ref();
    let deferral = chat.deferral.as_ref();
    let ending = chat.ending.as_ref();
    let failure = ending.and_then(|ending| match &ending.outcome {
        ChatOutcome::Failed { stage, error } => Some((stage, error)),
        ChatOutcome::Completed => None,
    });
    let upstream = ending.and_then(|ending| ending.upstream.as_ref());
    let usage = ending.map(|ending| &ending.usage);
    let pricing = ending.and_then(|ending| ending.pricing.as_ref());
    let cost = pricing.and_then(|pricing| pricing.cost.as_ref());
    let part = |part: fn(&crate::projection::chat::TokenParts) -> i64| usage.map(|usage| part(&usage.parts));
    vec![
        ("chat_id", Value::Owned(chat.chat_id.to_string())),
        ("conversation_id", Value::OptionalOwned(chat.conversation_id.map(|id| id.to_string()))),
        ("user_id", Value::Text(Some(chat.user_id.as_str()))),
        ("gateway", Value::Text(Some(&chat.gateway))),
        ("model", Value::Text(Some(&chat.model))),
        ("started_at", Value::Time(Some(chat.started_at))),
        ("status", Value::Text(Some(chat.status()))),
        ("conversation_origin", Value::Text(request.and_then(|request| request.origin.as_ref()).map(SqlEnum::as_sql))),
        ("client_thread_id", Value::Text(request.and_then(|request| request.client_thread_id.as_deref()))),
        ("dialect", Value::Text(request.map(|request| request.dialect.as_sql()))),
        ("stream", Value::Bool(request.map(|request| request.stream))),
        ("temperature", Value::Double(request.and_then(|request| request.temperature))),
        ("has_user_message", Value::Bool(Some(request.is_some_and(|request| request.new_messages > 0)))),
        (
            "caller_metadata",
            Value::Text(request.and_then(|request| request.caller_metadata.as_ref()).map(PgJson::as_str)),
        ),
        ("finished_at", Value::Time(ending.map(|ending| ending.finished_at))),
        ("has_assistant_message", Value::Bool(Some(ending.is_some_and(|ending| ending.has_message)))),
        ("stage", Value::Text(failure.map(|(stage, _)| stage.as_sql()))),
        ("error_status", Value::Int32(failure.and_then(|(_, error)| error.status).map(i32::from))),
        ("error_type", Value::Text(failure.and_then(|(_, error)| error.kind.as_deref()))),
        ("error_code", Value::Text(failure.and_then(|(_, error)| error.code.as_deref()))),
        ("error_message", Value::Text(failure.map(|(_, error)| error.message.as_str()))),
        ("upstream_name", Value::Text(upstream.map(|upstream| upstream.name.as_str()))),
        ("upstream_model", Value::Text(upstream.and_then(|upstream| upstream.model.as_deref()))),
        ("upstream_response_id", Value::Text(upstream.and_then(|upstream| upstream.response_id.as_deref()))),
        ("attempts", Value::Text(ending.map(|ending| ending.attempts.as_str()))),
        ("time_to_first_token_ms", Value::Int64(ending.and_then(|ending| ending.time_to_first_token_ms))),
        ("duration_ms", Value::Int64(ending.map(|ending| ending.duration_ms))),
        ("usage_source", Value::Text(usage.map(|usage| usage.source.as_sql()))),
        ("prompt_tokens", Value::Int64(usage.and_then(|usage| usage.prompt_tokens))),
        ("completion_tokens", Value::Int64(usage.and_then(|usage| usage.completion_tokens))),
        ("total_tokens", Value::Int64(usage.and_then(|usage| usage.total_tokens))),
        ("uncached_input_tokens", Value::Int64(part(|parts| parts.uncached_input))),
        ("cache_read_tokens", Value::Int64(part(|parts| parts.cache_read))),
        ("cache_write_tokens", Value::Int64(part(|parts| parts.cache_write))),
        ("output_tokens", Value::Int64(part(|parts| parts.output))),
        ("reasoning_tokens", Value::Int64(part(|parts| parts.reasoning))),
        ("usage_raw", Value::Text(usage.and_then(|usage| usage.raw.as_ref()).map(PgJson::as_str))),
        ("notes", Value::Text(ending.map(|ending| ending.notes.as_str()))),
        ("operation", Value::Text(Some(chat.operation.as_str()))),
        (
            "new_messages",
            Value::Int32(request.map(|request| i32::from(request.new_messages)).filter(|count| *count > 1)),
        ),
        ("media", Value::Text(ending.and_then(|ending| ending.media.as_ref()).map(PgJson::as_str))),
        ("key_id", Value::OptionalOwned(chat.key_id.map(|id| id.to_string()))),
        ("project_id", Value::OptionalOwned(chat.project_id.map(|id| id.to_string()))),
        ("cost_nanodollars", Value::Int64(cost.map(|cost| cost.nanodollars))),
        ("cost_parts", Value::Text(cost.map(|cost| cost.parts.as_str()))),
        ("price_version", Value::Text(pricing.map(|pricing| pricing.price_version.as_str()))),
        ("priced_as", Value::Text(cost.map(|cost| cost.priced_as.as_str()))),
        ("provider_cost_nanodollars", Value::Int64(ending.and_then(|ending| ending.provider_cost_nanodollars))),
        ("recording", Value::Text(Some(chat.recording.as_str()))),
        ("deferred_at", Value::Time(deferral.map(|deferral| deferral.deferred_at))),
        ("deferred_upstream", Value::Text(deferral.map(|deferral| deferral.upstream.as_str()))),
        ("deferred_response_id", Value::Text(deferral.map(|deferral| deferral.response_id.as_str()))),
    ]
}

/// Returns a row of `messages`: the columns in order, with values.
fn message_row(message: &Message) -> Row<'_> {
    vec![
        ("message_id", Value::Owned(message.message_id.to_string())),
        ("conversation_id", Value::OptionalOwned(message.conversation_id.map(|id| id.to_string()))),
        ("chat_id", Value::Owned(message.chat_id.to_string())),
        ("position", Value::Int16(message.position.number())),
        ("user_id", Value::Text(Some(message.user_id.as_str()))),
        ("role", Value::Text(Some(&message.role))),
        ("status", Value::Text(Some(message.status.as_sql()))),
        ("content", Value::Text(Some(&message.content))),
        ("reasoning", Value::Text(message.reasoning.as_deref())),
        ("refusal", Value::Text(message.refusal.as_deref())),
        ("audio_transcript", Value::Text(message.audio_transcript.as_deref())),
        ("tool_calls", Value::Text(message.tool_calls.as_ref().map(PgJson::as_str))),
        ("finish_reason", Value::Text(message.finish_reason.as_deref())),
        ("model", Value::Text(Some(&message.model))),
        ("tokens", Value::Int64(message.tokens)),
        ("created_at", Value::Time(Some(message.created_at))),
        ("tool_call_id", Value::Text(message.tool_call_id.as_deref())),
        ("recording", Value::Text(Some(message.recording.as_str()))),
    ]
}

/// Returns a row of `conversation_events`; `None` for an event that is not about a conversation itself.
fn conversation_row(event: &Event) -> Option<Row<'_>> {
    let About::Conversation(id) = event.about() else { return None };
    let (title, model, temperature, archived) = match event {
        Event::ConversationCreated(event) => (event.title.as_deref(), event.model.as_deref(), event.temperature, None),
        Event::ConversationChanged(event) => (event.title.as_deref(), None, None, event.archived),
        _ => (None, None, None, None),
    };
    Some(vec![
        ("event_id", Value::Owned(event.id().to_string())),
        ("kind", Value::Text(Some(event.kind().subject_token()))),
        ("conversation_id", Value::Owned(id.to_string())),
        ("user_id", Value::Text(Some(event.user_id().as_str()))),
        ("happened_at", Value::Time(Some(event.time()))),
        ("title", Value::Text(title)),
        ("model", Value::Text(model)),
        ("temperature", Value::Double(temperature)),
        ("archived", Value::Bool(archived)),
    ])
}

/// A writer of the file of one dataset and one day. The file has a temporary name until complete.
#[derive(Debug)]
pub struct DatasetWriter {
    path: PathBuf,
    unfinished: PathBuf,
    file: Option<(ArrowWriter<File>, Arc<Schema>)>,
    columns: Vec<ColumnBuilder>,
    rows: usize,
    bytes: usize,
    written: u64,
}

/// A builder of a column's next batch of values.
#[derive(Debug)]
enum ColumnBuilder {
    Text(StringBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Double(Float64Builder),
    Bool(BooleanBuilder),
    Time(TimestampMicrosecondBuilder),
}

impl DatasetWriter {
    /// Creates a writer for the dataset `name` and a day below `directory`. The file is created with the first row.
    pub fn new(directory: &Path, name: &str, day: &str) -> Self {
        let directory = directory.join(name).join(format!("date={day}"));
        Self {
            path: directory.join("part-0.parquet"),
            // A reader of `*.parquet` does not match the temporary name.
            unfinished: directory.join("part-0.unfinished"),
            file: None,
            columns: Vec::new(),
            rows: 0,
            bytes: 0,
            written: 0,
        }
    }

    /// Adds a row for a chat to `chats`.
    pub fn add_chat(&mut self, chat: &Chat) -> Result<(), ParquetError> {
        self.add(chat_row(chat))
    }

    /// Adds a row for a message to `messages`.
    pub fn add_message(&mut self, message: &Message) -> Result<(), ParquetError> {
        self.add(message_row(message))
    }

    /// Adds a row for an event about a conversation to `conversation_events`; an event about a chat adds no row.
    pub fn add_conversation_event(&mut self, event: &Event) -> Result<(), ParquetError> {
        conversation_row(event).map_or(Ok(()), |row| self.add(row))
    }

    /// Completes the file and renames the file into place, replacing an older file. Returns the number of rows; without
    /// rows no file is written.
    pub fn finish(mut self) -> Result<u64, ParquetError> {
        self.write()?;
        if let Some((writer, _)) = self.file.take() {
            writer.into_inner()?.sync_all()?;
            fs::rename(&self.unfinished, &self.path)?;
        }
        Ok(self.written)
    }

    fn add(&mut self, row: Row<'_>) -> Result<(), ParquetError> {
        if self.file.is_none() {
            if let Some(directory) = self.path.parent() {
                fs::create_dir_all(directory)?;
            }
            let schema = Arc::new(Schema::new(row.iter().map(|(name, value)| value.field(name)).collect::<Vec<_>>()));
            let properties = WriterProperties::builder()
                .set_compression(Compression::SNAPPY)
                .set_max_row_group_row_count(Some(100_000));
            let writer =
                ArrowWriter::try_new(File::create(&self.unfinished)?, Arc::clone(&schema), Some(properties.build()))?;
            self.file = Some((writer, schema));
            self.columns = row.iter().map(|(_, value)| value.column()).collect();
        }
        for (column, (_, value)) in self.columns.iter_mut().zip(row) {
            self.bytes += value.bytes();
            column.push(value);
        }
        self.rows += 1;
        if self.rows >= MAX_BUFFERED_ROWS || self.bytes >= MAX_BUFFERED_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), ParquetError> {
        let Some((writer, schema)) = &mut self.file else { return Ok(()) };
        let arrays = self.columns.iter_mut().map(ColumnBuilder::finish).collect();
        writer.write(&RecordBatch::try_new(Arc::clone(schema), arrays)?)?;
        if writer.in_progress_size() >= MAX_BUFFERED_BYTES {
            writer.flush()?;
        }
        self.written += self.rows as u64;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }
}

impl Value<'_> {
    fn field(&self, name: &str) -> Field {
        let kind = match self {
            Self::Text(_) | Self::Owned(_) | Self::OptionalOwned(_) => DataType::Utf8,
            Self::Int16(_) => DataType::Int16,
            Self::Int32(_) => DataType::Int32,
            Self::Int64(_) => DataType::Int64,
            Self::Double(_) => DataType::Float64,
            Self::Bool(_) => DataType::Boolean,
            Self::Time(_) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        };
        Field::new(name, kind, !matches!(self, Self::Owned(_) | Self::Int16(_)))
    }

    fn column(&self) -> ColumnBuilder {
        match self {
            Self::Text(_) | Self::Owned(_) | Self::OptionalOwned(_) => ColumnBuilder::Text(StringBuilder::new()),
            Self::Int16(_) => ColumnBuilder::Int16(Int16Builder::new()),
            Self::Int32(_) => ColumnBuilder::Int32(Int32Builder::new()),
            Self::Int64(_) => ColumnBuilder::Int64(Int64Builder::new()),
            Self::Double(_) => ColumnBuilder::Double(Float64Builder::new()),
            Self::Bool(_) => ColumnBuilder::Bool(BooleanBuilder::new()),
            Self::Time(_) => ColumnBuilder::Time(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => 8 + text.map_or(0, str::len),
            Self::Owned(text) => 8 + text.len(),
            Self::OptionalOwned(text) => 8 + text.as_ref().map_or(0, String::len),
            _ => 8,
        }
    }
}

impl ColumnBuilder {
    fn push(&mut self, value: Value<'_>) {
        match (self, value) {
            (Self::Text(column), Value::Text(text)) => column.append_option(text),
            (Self::Text(column), Value::Owned(text)) => column.append_value(text),
            (Self::Text(column), Value::OptionalOwned(text)) => column.append_option(text),
            (Self::Int16(column), Value::Int16(number)) => column.append_value(number),
            (Self::Int32(column), Value::Int32(number)) => column.append_option(number),
            (Self::Int64(column), Value::Int64(number)) => column.append_option(number),
            (Self::Double(column), Value::Double(number)) => column.append_option(number),
            (Self::Bool(column), Value::Bool(truth)) => column.append_option(truth),
            (Self::Time(column), Value::Time(time)) => column.append_option(time.map(micros)),
            // The first row's value sets a column's type, and one function makes all rows of a dataset.
            (_, value) => unreachable!("a value does not have the type of its column: {value:?}"),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(column) => ArrayBuilder::finish(column),
            Self::Int16(column) => ArrayBuilder::finish(column),
            Self::Int32(column) => ArrayBuilder::finish(column),
            Self::Int64(column) => ArrayBuilder::finish(column),
            Self::Double(column) => ArrayBuilder::finish(column),
            Self::Bool(column) => ArrayBuilder::finish(column),
            Self::Time(column) => ArrayBuilder::finish(column),
        }
    }
}

fn micros(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX)
}

/// Succeeds: this build can write Parquet files. A build without the feature `parquet` returns an error here.
pub fn ensure_built() -> io::Result<()> {
    Ok(())
}

/// Removes the temporary file of an interrupted export, if present.
pub fn remove_unfinished(directory: &Path, name: &str, day: &str) -> io::Result<()> {
    match fs::remove_file(DatasetWriter::new(directory, name, day).unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
