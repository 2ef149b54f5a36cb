//! The start of an answer with a success status, read before the client gets any of it: an error or an empty answer is
//! recognized while another upstream can still be asked.
//!
//! Pure: chunks in, a verdict out. The bytes are read as a copy; the client gets them unchanged.

use std::ops::ControlFlow;

use shared::event::{ChatError, DialectName, Operation};

use crate::response::content_encoding::{ContentDecoder, ContentEncoding};
use crate::response::dialect::Fold;
use crate::response::dialect::openai_call::CallFold;
use crate::response::json_list::JsonListParser;
use crate::response::sse::{EventCompleteness, SseParser};
use crate::response::transcript::Transcript;

/// The maximum number of bytes that are read for the verdict. Errors are shorter; a longer document is an answer.
pub const MAX_START_BYTES: usize = 64 << 10;

/// The bytes of a UTF-8 byte order mark, skipped before the first byte of content.
const BYTE_ORDER_MARK: [u8; 3] = *b"\xEF\xBB\xBF";

/// The kind of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// The answer of a chat in this dialect.
    Chat(DialectName),
    /// The answer of a call that is no chat.
    Call(Operation),
}

impl AnswerKind {
    /// Returns true if the start of an answer with this `content-type` can be read. Pictures, sounds and plain texts are no
    /// errors.
    pub fn is_readable(self, content_type: &str) -> bool {
        let essence = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        match self {
            Self::Chat(_) => true,
            Self::Call(Operation::PassThrough) => false,
            Self::Call(_) => {
                matches!(essence.as_str(), "application/json" | "text/event-stream") || essence.ends_with("+json")
            }
        }
    }

    fn fold(self) -> Fold {
        match self {
            Self::Chat(dialect) => Fold::new(dialect),
            Self::Call(operation) => Fold::OpenaiCall(CallFold::new(operation, 1)),
        }
    }
}

/// The reader of the start of one answer.
#[derive(Debug)]
pub struct AnswerStart {
    fold: Fold,
    decoder: Option<ContentDecoder>,
    format: StartFormat,
    /// The number of bytes read, before decoding.
    length: usize,
}

#[derive(Debug)]
enum StartFormat {
    /// No content has arrived yet.
    Unknown,
    /// A single document. The field has the bytes so far.
    Document(Vec<u8>),
    /// A stream of chunks that is a JSON list.
    List(JsonListParser),
    /// A stream of server-sent events.
    Events(SseParser),
}

/// The verdict about the start of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartVerdict {
    /// More bytes are needed.
    Undecided,
    /// The answer has begun, or its start cannot be read: the bytes pass.
    Begun,
    /// The answer failed before it began.
    Failed(StartFailure),
}

/// The failure of an answer that has a success status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFailure {
    /// The document is an error, or the first event of the stream is one.
    Error {
        /// The error names the request as its cause, so the upstream is not at fault.
        is_about_request: bool,
    },
    /// The body ended without content.
    Empty,
    /// The body broke off before any content.
    Broken,
}

impl StartFailure {
    /// Returns the word for the failure in events and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Error { .. } => "error_in_answer",
            Self::Empty => "empty_answer",
            Self::Broken => "upstream_broken",
        }
    }

    /// Returns true if the failure counts against the upstream.
    pub fn is_upstream_failure(self) -> bool {
        !matches!(self, Self::Error { is_about_request: true })
    }
}

impl AnswerStart {
    /// Makes a reader for an answer of this kind and content encoding.
    pub fn new(kind: AnswerKind, encoding: ContentEncoding) -> Self {
        let decoder = ContentDecoder::new(encoding);
        Self { fold: kind.fold(), decoder, format: StartFormat::Unknown, length: 0 }
    }

    /// Returns true if the body has turned out to be a single document.
    pub fn is_document(&self) -> bool {
        matches!(self.format, StartFormat::Document(_))
    }

    /// Returns true if any byte has been read.
    pub fn has_bytes(&self) -> bool {
        self.length > 0
    }

    /// Reads the next chunk. Comments and pings decide nothing.
    pub fn feed(&mut self, chunk: &[u8]) -> StartVerdict {
        self.length += chunk.len();
        let verdict = match &mut self.decoder {
            None => self.feed_decoded(chunk),
            Some(decoder) => match decoder.decode(chunk) {
                Ok(decoded) => self.feed_decoded(&decoded),
                Err(_) => StartVerdict::Begun,
            },
        };
        if verdict == StartVerdict::Undecided && self.length > MAX_START_BYTES { StartVerdict::Begun } else { verdict }
    }

    fn feed_decoded(&mut self, chunk: &[u8]) -> StartVerdict {
        let mut chunk = chunk;
        if matches!(self.format, StartFormat::Unknown) {
            let content = |byte: &u8| !byte.is_ascii_whitespace() && !BYTE_ORDER_MARK.contains(byte);
            let Some(at) = chunk.iter().position(content) else { return StartVerdict::Undecided };
            chunk = &chunk[at..];
            self.format = match chunk[0] {
                b'[' if self.fold.streams_json_lists() => StartFormat::List(JsonListParser::default()),
                b'{' | b'[' | b'<' => StartFormat::Document(Vec::new()),
                _ => StartFormat::Events(SseParser::default()),
            };
        }
        match &mut self.format {
            StartFormat::Unknown => StartVerdict::Undecided,
            StartFormat::Document(body) => {
                body.extend_from_slice(chunk);
                if body.len() > MAX_START_BYTES { StartVerdict::Begun } else { StartVerdict::Undecided }
            }
            StartFormat::List(parser) => {
                let (fold, mut verdict) = (&mut self.fold, StartVerdict::Undecided);
                parser.feed(chunk, |element| {
                    fold.fold_event(&element.as_event());
                    verdict = error_verdict(fold.transcript()).unwrap_or(StartVerdict::Begun);
                    ControlFlow::Break(())
                });
                verdict
            }
            StartFormat::Events(parser) => {
                let (fold, mut verdict) = (&mut self.fold, StartVerdict::Undecided);
                parser.feed(chunk, |event| {
                    if event.completeness == EventCompleteness::TooLong {
                        verdict = StartVerdict::Begun;
                    } else if event.data.is_some() && !is_ping(event.name, event.data) {
                        fold.fold_event(&event);
                        verdict = error_verdict(fold.transcript()).unwrap_or(StartVerdict::Begun);
                    }
                    match verdict {
                        StartVerdict::Undecided => ControlFlow::Continue(()),
                        StartVerdict::Begun | StartVerdict::Failed(_) => ControlFlow::Break(()),
                    }
                });
                verdict
            }
        }
    }

    /// Decides at the end of the body, which came before any verdict.
    pub fn finish(mut self) -> StartVerdict {
        match &mut self.format {
            StartFormat::Unknown => return StartVerdict::Failed(StartFailure::Empty),
            StartFormat::Document(body) => self.fold.fold_document(body),
            // No element has arrived.
            StartFormat::List(_) => {}
            StartFormat::Events(parser) => {
                let fold = &mut self.fold;
                parser.finish(|event| {
                    fold.fold_event(&event);
                    ControlFlow::Continue(())
                });
            }
        }
        let (transcript, _) = self.fold.take_transcript();
        let is_empty = !transcript.has_any_content() && !transcript.is_ended;
        let empty = StartVerdict::Failed(StartFailure::Empty);
        error_verdict(&transcript).unwrap_or(if is_empty { empty } else { StartVerdict::Begun })
    }
}

/// Returns true for the events that Anthropic and its imitators send to keep a connection alive.
fn is_ping(name: &str, data: Option<&[u8]>) -> bool {
    name == "ping" || data.is_some_and(|data| data.len() < 64 && memchr::memmem::find(data, b"\"ping\"").is_some())
}

fn error_verdict(transcript: &Transcript) -> Option<StartVerdict> {
    let error = transcript.error.as_ref().filter(|_| !transcript.has_any_content())?;
    Some(StartVerdict::Failed(StartFailure::Error { is_about_request: is_about_request(error) }))
}

/// Returns true if the error's code or type says that the request is at fault, as the statuses 400 to 422 would.
fn is_about_request(error: &ChatError) -> bool {
    const CODES: [&str; 6] = ["400", "404", "405", "413", "415", "422"];
    const TYPES: [&str; 4] = ["invalid_request_error", "not_found_error", "request_too_large", "INVALID_ARGUMENT"];
    let is_one_of = |text: &Option<String>, known: &[&str]| text.as_deref().is_some_and(|text| known.contains(&text));
    is_one_of(&error.code, &CODES) || is_one_of(&error.kind, &TYPES) || is_one_of(&error.kind, &CODES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERROR: StartVerdict = StartVerdict::Failed(StartFailure::Error { is_about_request: false });
    const EMPTY: StartVerdict = StartVerdict::Failed(StartFailure::Empty);

    /// The verdict about a body that arrives in pieces of this length.
    fn verdict(dialect: DialectName, body: &[u8], length: usize) -> StartVerdict {
        verdict_of(AnswerKind::Chat(dialect), body, length)
    }

    fn verdict_of(kind: AnswerKind, body: &[u8], length: usize) -> StartVerdict {
        let mut start = AnswerStart::new(kind, ContentEncoding::Identity);
        for chunk in body.chunks(length) {
            let verdict = start.feed(chunk);
            if verdict != StartVerdict::Undecided {
                return verdict;
            }
        }
        start.finish()
    }

    #[test]
    fn errors_and_empty_answers_are_recognized_in_every_cutting() {
        use DialectName::{AnthropicMessages, GoogleGemini, OpenaiChat, OpenaiResponses};
        let about_request = StartVerdict::Failed(StartFailure::Error { is_about_request: true });
        let chunk = r#"{"choices":[{"index":0,"delta":{"content":"hi"}}]}"#;
        let cases = [
            (OpenaiChat, r#"{"error":{"message":"no capacity","code":503}}"#.to_owned(), ERROR),
            (OpenaiChat, r#"  [{"error":{"message":"quota","code":429}}]"#.to_owned(), ERROR),
            (GoogleGemini, r#" [{"error":{"message":"quota","code":429}}]"#.to_owned(), ERROR),
            (GoogleGemini, "[]".to_owned(), EMPTY),
            (GoogleGemini, r#"[{"candidates":[{"content":{"parts":[{"text":"h"}]}}]}"#.to_owned(), StartVerdict::Begun),
            (OpenaiChat, r#"{"error":{"message":"bad","type":"invalid_request_error"}}"#.to_owned(), about_request),
            (OpenaiChat, "data: {\"error\":{\"message\":\"no capacity\"}}\n\n".to_owned(), ERROR),
            (OpenaiChat, ": wait\n\n: wait\n\nevent: error\ndata: {\"message\":\"no\"}\n\n".to_owned(), ERROR),
            (OpenaiChat, "data: {\"error\":{\"message\":\"cut\"}}".to_owned(), ERROR),
            (OpenaiChat, format!("data: {chunk}\n\ndata: {{\"error\":{{}}}}\n\n"), StartVerdict::Begun),
            (OpenaiChat, r#"{"choices":[{"message":{"content":"hi"}}],"error":null}"#.to_owned(), StartVerdict::Begun),
            (OpenaiChat, String::new(), EMPTY),
            (OpenaiChat, r#"{"choices":[{"message":{"content":""}}]}"#.to_owned(), EMPTY),
            (OpenaiChat, r#"{"choices":[{"message":{"audio":{"data":"QUJD"}}}]}"#.to_owned(), StartVerdict::Begun),
            (OpenaiChat, "\n : nothing\n\n".to_owned(), EMPTY),
            (OpenaiChat, "<html>hello</html>".to_owned(), EMPTY),
            (OpenaiResponses, r#"{"status":"failed","error":{"message":"m"},"output":[]}"#.to_owned(), ERROR),
            (OpenaiResponses, "data: {\"type\":\"error\",\"message\":\"m\"}\n\n".to_owned(), ERROR),
            (AnthropicMessages, r#"{"type":"error","error":{"type":"overloaded_error"}}"#.to_owned(), ERROR),
            (
                AnthropicMessages,
                "event: ping\ndata: {\"type\":\"ping\"}\n\nevent: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\
                 \"overloaded_error\",\"message\":\"m\"}}\n\n"
                    .to_owned(),
                ERROR,
            ),
        ];
        for (dialect, body, expected) in cases {
            for length in [1, 2, 7, body.len().max(1)] {
                assert_eq!(verdict(dialect, body.as_bytes(), length), expected, "{length}: {body}");
            }
        }
    }

    #[test]
    fn errors_of_other_calls_are_recognized_and_their_answers_are_not_empty() {
        let cases = [
            (Operation::Embeddings, r#"{"error":{"message":"overloaded","code":503}}"#, ERROR),
            (Operation::Embeddings, r#"{"object":"list","data":[{"embedding":[0.1]}]}"#, StartVerdict::Begun),
            (Operation::Embeddings, r#"{"embedding":{"values":[0.1]}}"#, StartVerdict::Begun),
            (Operation::Moderation, r#"{"results":[]}"#, StartVerdict::Begun),
            (Operation::Rerank, r#"[{"index":0,"score":0.5}]"#, StartVerdict::Begun),
            (Operation::Transcription, r#"{"text":""}"#, StartVerdict::Begun),
            (Operation::TextCompletion, "data: {\"error\":{\"message\":\"m\"}}\n\n", ERROR),
            (Operation::TextCompletion, "data: {\"choices\":[{\"text\":\"a\"}]}\n\n", StartVerdict::Begun),
            (Operation::ImageGeneration, "", EMPTY),
        ];
        for (operation, body, expected) in cases {
            for length in [1, 7, body.len().max(1)] {
                assert_eq!(
                    verdict_of(AnswerKind::Call(operation), body.as_bytes(), length),
                    expected,
                    "{length}: {body}"
                );
            }
        }
        let reads = |operation, content_type| AnswerKind::Call(operation).is_readable(content_type);
        assert!(reads(Operation::Embeddings, "application/json; charset=utf-8"));
        assert!(!reads(Operation::Speech, "audio/mpeg") && !reads(Operation::PassThrough, "application/json"));
    }

    #[test]
    fn a_long_document_passes_before_its_end() {
        let body = format!("{{\"error\":{{\"message\":\"{}\"}}}}", "x".repeat(2 * MAX_START_BYTES));
        assert_eq!(verdict(DialectName::OpenaiChat, body.as_bytes(), 4096), StartVerdict::Begun);
    }
}
