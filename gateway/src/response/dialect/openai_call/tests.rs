//! Answers of each kind of call, handmade.

use shared::usage::UsageSource;

use super::*;

fn document(operation: Operation, body: &str) -> (Transcript, Usage) {
    let mut fold = CallFold::new(operation, 1);
    fold.fold_document(body.as_bytes());
    let usage = fold.take_usage();
    (fold.transcript, usage)
}

#[test]
fn documents_are_counted_and_their_usage_is_read() {
    let cases = [
        (
            Operation::Embeddings,
            r#"{"object":"list","data":[{"embedding":[]},{"embedding":[]}],"model":"e","usage":{"prompt_tokens":8,"total_tokens":8}}"#,
            (Some(2), Some(8), Some(8)),
        ),
        (Operation::Rerank, r#"{"results":[{"index":0}],"usage":{"total_tokens":5}}"#, (Some(1), Some(5), Some(5))),
        (
            Operation::Rerank,
            r#"{"id":"r","results":[{},{}],"meta":{"tokens":{"input_tokens":7},"billed_units":{"search_units":1}}}"#,
            (Some(2), Some(7), Some(7)),
        ),
        (
            Operation::Embeddings,
            r#"{"embedding":{"values":[]},"usageMetadata":{"promptTokenCount":6,"totalTokenCount":6}}"#,
            (Some(1), Some(6), Some(6)),
        ),
        (Operation::Embeddings, r#"{"embeddings":[{"values":[]},{"values":[]}]}"#, (Some(2), None, None)),
        (Operation::Moderation, r#"{"id":"m","results":[{"flagged":true}]}"#, (Some(1), None, None)),
        (
            Operation::ImageGeneration,
            r#"{"data":[{"b64_json":"AA"}],"usage":{"input_tokens":3,"output_tokens":4,"total_tokens":7}}"#,
            (Some(1), Some(3), Some(7)),
        ),
        (Operation::Rerank, r#"[{"index":0,"score":0.5},{"index":1,"score":0.1}]"#, (Some(2), None, None)),
    ];
    for (operation, body, expected) in cases {
        let (transcript, usage) = document(operation, body);
        let found = (transcript.media.output_items, usage.prompt_tokens, usage.total_tokens);
        assert_eq!(found, expected, "{body}");
        assert!(transcript.is_ended && transcript.error.is_none() && !transcript.has_content(), "{body}");
    }
}

#[test]
fn transcripts_are_text_in_every_format() {
    let cases = [
        (r#"{"text":"Hello.","usage":{"type":"duration","seconds":3}}"#, "Hello.", Some(3.0)),
        (r#"{"task":"transcribe","duration":2.5,"text":"Hello.","segments":[{"tokens":[]}]}"#, "Hello.", Some(2.5)),
        ("1\n00:00:00,000 --> 00:00:01,000\nHello.\n", "1\n00:00:00,000 --> 00:00:01,000\nHello.\n", None),
        ("Hello.\n", "Hello.\n", None),
    ];
    for (body, text, seconds) in cases {
        let (transcript, _) = document(Operation::Transcription, body);
        assert_eq!((transcript.text.as_str(), transcript.media.input_seconds), (text, seconds), "{body}");
    }
}

#[test]
fn events_of_transcripts_have_the_text_and_the_end() {
    let streams = [
        [
            r#"{"type":"transcript.text.delta","delta":"Hello."}"#,
            r#"{"type":"transcript.text.segment","text":"Hello."}"#,
            r#"{"type":"transcript.text.done","text":"Hello.","usage":{"input_tokens":3,"output_tokens":2}}"#,
        ],
        [
            r#"{"type":"transcription.language","audio_language":"en"}"#,
            r#"{"type":"transcription.text.delta","text":"Hello."}"#,
            r#"{"type":"transcription.done","text":"Hello.","usage":{"prompt_tokens":3,"completion_tokens":2}}"#,
        ],
    ];
    for stream in streams {
        let mut fold = CallFold::new(Operation::Transcription, 1);
        let events = stream.map(|data| {
            let data = Some(data.as_bytes());
            let completeness = crate::response::sse::EventCompleteness::Whole;
            fold.fold_event(&SseEvent { name: "", data, completeness, span: 0..0, next_event_bytes: 0 })
        });
        assert_eq!(events, [EventDisposition::Forward, EventDisposition::Forward, EventDisposition::End]);
        assert_eq!(fold.transcript.text, "Hello.");
        assert_eq!((fold.take_usage().prompt_tokens, fold.transcript.is_ended), (Some(3), true));
    }
}

#[test]
fn an_error_with_a_success_status_is_an_error() {
    let (transcript, usage) = document(Operation::Embeddings, r#"{"error":{"message":"m","type":"t"}}"#);
    assert_eq!(transcript.error.unwrap().message, "m");
    assert_eq!(usage.source, UsageSource::Unknown);
    assert!(document(Operation::Embeddings, "<html>").0.error.is_some());
    for (operation, body, error) in [
        (Operation::Embeddings, r#"{"vectors":null,"base_resp":{"status_code":2013,"status_msg":"m"}}"#, Some("m")),
        (Operation::Rerank, r#"{"detail":"m"}"#, Some("m")),
        (Operation::ImageGeneration, r#"{"code":"Throttling","message":"m"}"#, Some("m")),
        (Operation::TextCompletion, r#"{"object":"error","message":"m","type":"t","code":500}"#, Some("m")),
        (Operation::Embeddings, r#"{"data":[{}],"base_resp":{"status_code":0,"status_msg":""}}"#, None),
        (Operation::Rerank, r#"{"results":[{}],"code":200,"message":"m"}"#, None),
        (Operation::Embeddings, r#"{"data":[{}],"code":7,"message":"m"}"#, None),
        (Operation::Moderation, r#"{"results":[],"error":null,"detail":null}"#, None),
        (Operation::Transcription, r#"{"text":"","error":{}}"#, None),
    ] {
        let found = document(operation, body).0.error.map(|error| error.message);
        assert_eq!(found.as_deref(), error, "{body}");
    }
}
