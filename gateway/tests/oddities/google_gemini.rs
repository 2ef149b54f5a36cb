//! The Gemini dialect, as sent by Google and by imitations.

use shared::event::DialectName::GoogleGemini;

use super::{ExpectedTranscript, check, check_end_is_held_back, compare, events, run_tap};

pub(crate) const FIRST: &str = r#"{"candidates":[{"content":{"parts":[{"text":"h"}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":3,"totalTokenCount":3},"modelVersion":"m","responseId":"r"}"#;
pub(crate) const LAST: &str = r#"{"candidates":[{"content":{"parts":[{"text":"i"}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":2,"thoughtsTokenCount":4,"totalTokenCount":9},"modelVersion":"m","responseId":"r"}"#;

pub(crate) fn expected_text(text: &'static str) -> ExpectedTranscript {
    ExpectedTranscript {
        text,
        finish_reason: Some("STOP"),
        id: Some("r"),
        model: Some("m"),
        usage: Some((3, 6)),
        ..ExpectedTranscript::default()
    }
}

/// A chunk with these parts.
pub(crate) fn parts(parts: &str) -> String {
    format!(
        r#"{{"candidates":[{{"content":{{"parts":[{parts}],"role":"model"}}}}],"modelVersion":"m","responseId":"r"}}"#
    )
}

/// Checks a document, and a list of chunks.
fn check_document(body: &str, expected: &ExpectedTranscript) {
    let output = run_tap(GoogleGemini, &[body.as_bytes()]);
    compare(expected, &output.transcript, &output.usage, body);
    assert!(output.forwarded == body.as_bytes());
}

#[test]
fn streams_documents_and_lists_of_chunks_are_read() {
    check(GoogleGemini, &events(&[FIRST, LAST]), &expected_text("hi"));
    check(GoogleGemini, &events(&[FIRST, LAST]).replace('\n', "\r\n"), &expected_text("hi"));
    check_document(&format!("[{FIRST}\n,\r\n{LAST}\n]\n"), &expected_text("hi"));
    check_document(&LAST.replace("\"i\"", "\"hi\""), &expected_text("hi"));
    let wrapped = events(
        &[FIRST, LAST].map(|chunk| format!(r#"{{"response":{chunk},"traceId":"t"}}"#)).each_ref().map(String::as_str),
    );
    check(GoogleGemini, &wrapped, &expected_text("hi"));
}

#[test]
fn the_last_chunk_is_held_back() {
    let body = events(&[FIRST, LAST]);
    check_end_is_held_back(GoogleGemini, &body, "STOP");
    check_end_is_held_back(GoogleGemini, &body.replace('\n', "\r\n"), "STOP");
    // Older models give each chunk a finish reason: a chunk passes when the next one arrives.
    let each = FIRST.replace(r#""index":0"#, r#""finishReason":"STOP","index":0"#);
    let body = events(&[&each, &each, LAST]) + ": comment\n\n";
    check(GoogleGemini, &body, &expected_text("hhi"));
    for size in [1, 2, 7, 64, body.len()] {
        let chunks: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
        let before = String::from_utf8(run_tap(GoogleGemini, &chunks).before_end).unwrap();
        assert_eq!(before, events(&[&each, &each]), "in chunks of {size}");
    }
}

/// A stream without `alt=sse` is a list. No byte of the last element's end, and not the bracket after the element, may pass
/// before the end is durable.
#[test]
fn the_end_of_a_list_is_held_back() {
    let each = FIRST.replace(r#""index":0"#, r#""finishReason":"MAX_TOKENS","index":0"#);
    for (list, last, text) in [
        (format!("[{FIRST}\n,\r\n{LAST}\n]\n"), "STOP", "hi"),
        (format!("[{FIRST},{LAST}]"), "STOP", "hi"),
        (format!("[{each},\n{each},\n{LAST} ]"), "STOP", "hhi"),
        (format!(" \n[{LAST}\n]\n \n"), "STOP", "i"),
    ] {
        check(GoogleGemini, &list, &expected_text(text));
        check_end_is_held_back(GoogleGemini, &list, last);
        check_end_is_held_back(GoogleGemini, &list, "]\n");
        let chunks: Vec<&[u8]> = list.as_bytes().chunks(3).collect();
        let before = run_tap(GoogleGemini, &chunks).before_end;
        let last_element = list.find(LAST).unwrap();
        assert!(before.len() <= last_element, "{}", String::from_utf8_lossy(&before));
        assert!(last_element - before.len() < 4, "an element before the last is held back");
    }
    // A list without a finish reason ends with its bracket alone.
    check_end_is_held_back(GoogleGemini, &format!("[{FIRST},\n{FIRST}\n]"), "\n]");
    let error = r#"{"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}"#;
    check_end_is_held_back(GoogleGemini, &format!("[{FIRST},\n{error}\n]"), "UNAVAILABLE");
}

#[test]
fn what_arrived_of_a_list_that_breaks_off_is_read() {
    let list = format!("[{FIRST},{}", &LAST[..60]);
    let output = run_tap(GoogleGemini, &list.as_bytes().chunks(5).collect::<Vec<_>>());
    assert_eq!((output.transcript.text.as_str(), output.transcript.is_ended), ("h", false));
}

#[test]
fn thoughts_and_calls_are_read() {
    let thought = parts(r#"{"text":"hm","thought":true},{"text":"","thoughtSignature":"QUJD"}"#);
    check(
        GoogleGemini,
        &events(&[&thought, FIRST, LAST]),
        &ExpectedTranscript { reasoning: "hm", ..expected_text("hi") },
    );
    let call =
        parts(r#"{"functionCall":{"id":"c","name":"f","args":{"x": 1}}},{"functionCall":{"name":"g","args":{}}}"#);
    check(
        GoogleGemini,
        &events(&[&call, FIRST, LAST]),
        &ExpectedTranscript { calls: &[("c", "f", "{\"x\":1}"), ("", "g", "{}")], ..expected_text("hi") },
    );
    let run = parts(
        r#"{"executableCode":{"language":"PYTHON","code":"1"}},{"codeExecutionResult":{"outcome":"OUTCOME_OK","output":"1"}}"#,
    );
    check(
        GoogleGemini,
        &events(&[&run, FIRST, LAST]),
        &ExpectedTranscript { server_tool_calls: 1, ..expected_text("hi") },
    );
    let picture = parts(r#"{"inlineData":{"mimeType":"image/png","data":"QUJD"}}"#);
    check(GoogleGemini, &events(&[&picture, FIRST, LAST]), &expected_text("hi"));
}

#[test]
fn usage_is_cumulative_and_split_into_parts() {
    let whole = r#"{"candidates":[{"content":{"parts":[{"text":"hi"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":10,"cachedContentTokenCount":4,"toolUsePromptTokenCount":5,"candidatesTokenCount":2,"thoughtsTokenCount":3,"totalTokenCount":20},"modelVersion":"m","responseId":"r"}"#;
    let empty = r#"{"usageMetadata":{"promptTokenCount":0,"candidatesTokenCount":0,"totalTokenCount":0}}"#;
    for body in [whole.to_owned(), events(&[whole]), events(&[whole, empty])] {
        let usage = run_tap(GoogleGemini, &[body.as_bytes()]).usage;
        assert_eq!([usage.prompt_tokens, usage.completion_tokens, usage.total_tokens], [Some(15), Some(5), Some(20)]);
        let parts = usage.parts;
        assert_eq!([parts.uncached_input, parts.cache_read, parts.output, parts.reasoning], [11, 4, 2, 3]);
    }
}

#[test]
fn blocks_and_errors_are_read() {
    let blocked = r#"{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"},"usageMetadata":{"promptTokenCount":3,"totalTokenCount":3},"modelVersion":"m","responseId":"r"}"#;
    let expected = ExpectedTranscript {
        finish_reason: Some("PROHIBITED_CONTENT"),
        usage: Some((3, 0)),
        notes: &["prompt_blocked"],
        ..expected_text("")
    };
    check(GoogleGemini, &events(&[blocked]), &expected);
    check_document(blocked, &expected);
    let unspecified = LAST
        .replace(r#""modelVersion""#, r#""promptFeedback":{"blockReason":"BLOCK_REASON_UNSPECIFIED"},"modelVersion""#);
    check(GoogleGemini, &events(&[FIRST, &unspecified]), &expected_text("hi"));
    let safety = LAST.replace("STOP", "SAFETY");
    check(
        GoogleGemini,
        &events(&[FIRST, &safety]),
        &ExpectedTranscript { finish_reason: Some("SAFETY"), ..expected_text("hi") },
    );
    let error = r#"{"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}"#;
    let failed = ExpectedTranscript {
        finish_reason: None,
        usage: Some((3, 0)),
        error: Some((None, Some("503"), "busy")),
        ..expected_text("h")
    };
    check(GoogleGemini, &events(&[FIRST, error]), &failed);
    check_end_is_held_back(GoogleGemini, &events(&[FIRST, error]), "UNAVAILABLE");
    check_document(&format!("[{FIRST},{error}]"), &failed);
    let nonsense = ExpectedTranscript { notes: &["unreadable_event"], ..expected_text("hi") };
    check(GoogleGemini, &events(&["{\"candidates\":", FIRST, LAST]), &nonsense);
}

#[test]
fn several_candidates_are_kept_apart() {
    let second = r#"{"candidates":[{"index":1,"content":{"parts":[{"text":"other"}]},"finishReason":"STOP"}]}"#;
    let transcript = run_tap(GoogleGemini, &[events(&[FIRST, second, LAST]).as_bytes()]).transcript;
    assert_eq!((transcript.text.as_str(), transcript.other_choices.len()), ("hi", 1));
    assert_eq!(transcript.other_choices[0].1.text, "other");
}
